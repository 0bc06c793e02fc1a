"""A hook for the distributed test; configs name it in custom_imports."""

import json
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from torch.nn.modules.batchnorm import _BatchNorm


@HOOKS.register_module(force=True)
class Recorder(Hook):
    """Keeps BatchNorm in eval mode; writes every loss, and a sum over the final weights."""

    def before_train(self, runner) -> None:
        self.losses = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        for module in runner.model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.losses.append(outputs['loss'].item())

    def after_train(self, runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        weights = [parameter.double().abs().sum().item() for parameter in model.parameters()]
        record = dict(losses=self.losses, weights=weights, world_size=runner.world_size)
        Path(runner.work_dir, f'rank{get_rank()}.json').write_text(json.dumps(record))
