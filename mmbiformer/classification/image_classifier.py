"""mmpretrain's classifier, which takes the files of the backbones' authors as they are."""

import logging
from collections.abc import Mapping

from mmpretrain.models import ImageClassifier as MMPretrainClassifier
from torch import Tensor

from mmbiformer.checkpoints import CheckpointError, backbone_tensors

logger = logging.getLogger('mmbiformer')

_OFFICIAL_HEAD = {'head.weight': 'head.fc.weight', 'head.bias': 'head.fc.bias'}
# The layer of TokenLabelHead that training alone uses.
_TOKEN_LAYER = 'head.token_fc.'


class ImageClassifier(MMPretrainClassifier):
    """mmpretrain's ImageClassifier around a backbone of this package and a ``LinearClsHead``.

    Arguments are mmpretrain's. Official classification files load as they are, by ``init_cfg`` or
    by tools/test.py, and strictly: the backbone accounts for its part, and the linear layer, which
    they call ``head``, must be that of the config. Files of mmpretrain load as ever. In
    evaluation, which does not use it, the layer of token labelling may be in the file or in the
    model alone.
    """

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest) -> None:
        if not prefix and not any(name.startswith('backbone.') for name in state_dict):
            tensors = backbone_tensors(state_dict)
            self._check_head(tensors)
            state_dict.clear()
            for name, value in tensors.items():
                state_dict[_OFFICIAL_HEAD.get(name, f'backbone.{name}')] = value
        if not prefix and not self.training:
            self._fit_token_layer(state_dict)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _fit_token_layer(self, state_dict: dict) -> None:
        """Drop the layer for tokens from a file whose model has none, or add the model's own."""
        own, theirs = (
            {name: value for name, value in tensors.items() if name.startswith(_TOKEN_LAYER)}
            for tensors in (self.state_dict(), state_dict)
        )
        if own.keys() == theirs.keys():
            return
        for name in theirs:
            del state_dict[name]
        state_dict.update(own)
        logger.info(
            'classifier checkpoint: %s %s, which training alone uses',
            ', '.join(theirs or own),
            'dropped' if theirs else 'new',
        )

    def _check_head(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise CheckpointError where an official linear layer is not the head's."""
        own = self.state_dict()
        for official, ours in _OFFICIAL_HEAD.items():
            if official not in tensors:
                raise CheckpointError(
                    f'the checkpoint has no {official}, it is of no classifier: --pretrained '
                    'takes a backbone alone'
                )
            theirs, wanted = tuple(tensors[official].shape), tuple(own[ours].shape)
            if theirs != wanted:
                raise CheckpointError(
                    f'{official} of the checkpoint has the shape {theirs}, not {wanted}: set '
                    'num_classes of the head, or start the backbone alone by --pretrained'
                )
