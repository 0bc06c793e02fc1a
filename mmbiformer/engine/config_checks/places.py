"""Where mmengine's Runner reads a config, and what it calls with what stands there: data alone."""

import inspect
from collections.abc import Callable
from typing import NamedTuple

from mmengine import registry as roots
from mmengine.dist import init_dist
from mmengine.evaluator import Evaluator
from mmengine.optim import OptimWrapper
from mmengine.registry import Registry
from mmengine.runner import EpochBasedTrainLoop, LogProcessor, Runner, TestLoop, ValLoop
from mmengine.utils import import_modules_from_strings
from mmengine.utils.dl_utils import set_multi_processing
from mmengine.visualization import Visualizer
from torch.distributed import init_process_group
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.data import DataLoader


class Place(NamedTuple):
    """What is called with a dict of the config.

    Attributes:
        registry (Registry, optional): Where the dict's ``type`` is looked up first; None where
            ``type`` is a key like others.
        default (Callable, optional): What is called where there is no ``type``.
        extra (frozenset[str]): Keys that are taken out before the call.
    """

    registry: Registry | None = None
    default: Callable | None = None
    extra: frozenset[str] = frozenset()


def _names(*functions: Callable) -> frozenset[str]:
    return frozenset(name for x in functions for name in inspect.signature(x).parameters)


_LOADER = Place(None, DataLoader, frozenset({'num_batch_per_epoch', 'disable_subprocess_warning'}))
_HOOK = Place(roots.HOOKS, None, frozenset({'priority'}))
_CLIPPING = frozenset({'type'}) | _names(clip_grad_value_)
# Path in a config; with '.*' all keys below it; with '*.' a key that means the same anywhere.
PLACES = {
    'model': Place(roots.MODELS),
    'tta_model': Place(roots.MODELS),
    'tta_pipeline': Place(roots.TRANSFORMS),
    'train_dataloader': _LOADER,
    'val_dataloader': _LOADER,
    'test_dataloader': _LOADER,
    'train_cfg': Place(roots.LOOPS, EpochBasedTrainLoop, frozenset({'by_epoch'})),
    'val_cfg': Place(roots.LOOPS, ValLoop),
    'test_cfg': Place(roots.LOOPS, TestLoop),
    'optim_wrapper': Place(
        roots.OPTIM_WRAPPERS, OptimWrapper, frozenset({'constructor', 'paramwise_cfg'})
    ),
    'optim_wrapper.clip_grad': Place(None, clip_grad_norm_, _CLIPPING),
    'param_scheduler': Place(
        roots.PARAM_SCHEDULERS, None, frozenset({'convert_to_iter_based', 'epoch_length'})
    ),
    'val_evaluator': Place(roots.METRICS),
    'test_evaluator': Place(roots.METRICS),
    '*.metrics': Place(roots.METRICS),
    'custom_hooks': _HOOK,
    'default_hooks.*': _HOOK,
    'visualizer': Place(roots.VISUALIZERS, Visualizer),
    'log_processor': Place(roots.LOG_PROCESSORS, LogProcessor),
    'env_cfg.mp_cfg': Place(None, set_multi_processing),
    'env_cfg.dist_cfg': Place(None, init_dist, _names(init_process_group)),
    'randomness': Place(None, Runner.set_randomness),
    'custom_imports': Place(None, import_modules_from_strings),
    '*.dataset': Place(roots.DATASETS),
    '*.datasets': Place(roots.DATASETS),
    '*.pipeline': Place(roots.TRANSFORMS),
    '*.transforms': Place(roots.TRANSFORMS),
    '*.collate_fn': Place(roots.FUNCTIONS),
    '*.optimizer': Place(roots.OPTIMIZERS),
    '*.vis_backends': Place(roots.VISBACKENDS),
    # What initialises weights takes out these itself.
    '*.init_cfg': Place(roots.WEIGHT_INITIALIZERS, None, frozenset({'override', 'name'})),
    '*.override': Place(roots.WEIGHT_INITIALIZERS, None, frozenset({'name'})),
    # mmcv takes this out before it builds a norm.
    '*.norm_cfg': Place(roots.MODELS, None, frozenset({'requires_grad'})),
}
# Instead of a metric, where there are `metrics`.
EVALUATOR = Place(roots.EVALUATOR, Evaluator)
# The Runner's own, and what it and this package read of a config besides.
RUNNER_KEYS = _names(Runner.__init__) - {'self'} | {
    *('activation_checkpointing', 'compile', 'custom_imports', 'efficient_conv_bn_eval'),
    *('find_unused_parameters', 'max_skipped', 'model_wrapper_cfg', 'sync_bn'),
    *('tta_model', 'tta_pipeline'),
}
# Class and key of dicts that go to other libraries.
FOREIGN = {
    ('Albu', 'bbox_params'),
    ('Albu', 'transforms'),
    ('Detectron2Wrapper', 'detector'),
    ('VPD', 'diffusion_cfg'),
}
# Keys of these are names that the user chooses.
FREE_KEYS = ('custom_keys', 'key_mapping', 'name_mapping', 'caption_prompt')
