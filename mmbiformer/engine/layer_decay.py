"""Layer-wise decay of the learning rate, for fine-tuning."""

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mmbiformer.errors import UserError
from mmbiformer.registry import OPTIM_WRAPPER_CONSTRUCTORS

from .parts import find_backbone


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Lower learning rates for a backbone's earlier layers (Clark et al., ICLR 2020; BEiT).

    A layer that is n layers before the last has the learning rate times ``decay_rate ** n``. The
    last layer are the norms of the backbone's outputs, and all that is not the backbone's;
    ``get_layer_depth`` of the backbone says which the others are. All other keys of
    ``paramwise_cfg`` are mmengine's.

    Args:
        optim_wrapper_cfg (dict): As of mmengine.
        paramwise_cfg (dict): With ``decay_rate``, more than 0 and at most 1.

    Raises:
        UserError: If ``decay_rate`` is missing or out of range, or the backbone has no layers.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        rate = self.paramwise_cfg.get('decay_rate')
        if not isinstance(rate, int | float) or not 0 < rate <= 1:
            raise UserError(
                f'paramwise_cfg.decay_rate={rate!r} must be more than 0 and at most 1: 0.9, say'
            )
        self.decay_rate = rate

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs
    ) -> None:
        """Add groups of one parameter each, as mmengine does; then scale their learning rates."""
        super().add_params(params, module, prefix, **kwargs)
        if prefix:  # a part of the model
            return
        backbone = find_backbone(module)
        if not hasattr(backbone, 'get_layer_depth'):
            raise UserError(
                f'layer-wise decay: the backbone, a {type(backbone).__name__}, does not say which '
                "layer a parameter belongs to; take one of mmbiformer's, or leave constructor out"
            )
        scales = {}
        for name, parameter in backbone.named_parameters():
            layer, num_layers = backbone.get_layer_depth(name)
            scales[parameter] = self.decay_rate ** (num_layers - 1 - layer)
        for group in params:
            (parameter,) = group['params']
            group['lr'] = group.get('lr', self.base_lr) * scales.get(parameter, 1.0)
