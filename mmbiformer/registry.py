"""Child registries of mmengine's roots, so that ``type='mmbiformer.X'`` builds from any mm config.

mmengine imports ``<scope>.registry`` when it first meets a scope, and a registry imports its
``locations`` when it is first asked: no ``custom_imports`` is needed.
"""

from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry

MODELS = Registry(
    'model', parent=MMENGINE_MODELS, scope='mmbiformer', locations=['mmbiformer.backbones']
)
METRICS = Registry(
    'metric',
    parent=MMENGINE_METRICS,
    scope='mmbiformer',
    locations=['mmbiformer.evaluation.metrics'],
)
