"""Child registries of mmengine's roots, so that ``type='mmbiformer.X'`` builds from any mm config.

mmengine imports ``<scope>.registry`` when it first meets a scope, and a registry imports its
``locations`` when it is first asked: no ``custom_imports`` is needed. A package with something to
register is named among the locations of its registry.
"""

from mmengine import registry as roots
from mmengine.registry import Registry

SCOPE = 'mmbiformer'

MODELS = Registry(
    'model',
    parent=roots.MODELS,
    scope=SCOPE,
    locations=['mmbiformer.backbones', 'mmbiformer.necks', 'mmbiformer.rivals'],
)
# mmdet 3 and mmseg 1 build necks by their registry of models, so they would not ask another one.
NECKS = MODELS
METRICS = Registry(
    'metric', parent=roots.METRICS, scope=SCOPE, locations=['mmbiformer.evaluation.metrics']
)
OPTIM_WRAPPERS = Registry(
    'optimizer wrapper',
    parent=roots.OPTIM_WRAPPERS,
    scope=SCOPE,
    locations=['mmbiformer.engine.mixed_precision'],
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=roots.OPTIM_WRAPPER_CONSTRUCTORS,
    scope=SCOPE,
    locations=['mmbiformer.engine.layer_decay'],
)
HOOKS = Registry('hook', parent=roots.HOOKS, scope=SCOPE, locations=['mmbiformer.hooks'])
TRANSFORMS = Registry(
    'transform', parent=roots.TRANSFORMS, scope=SCOPE, locations=['mmbiformer.datasets.loading']
)
