"""Token labelling: a label for each token beside the image's (Jiang et al. 2021).

"All Tokens Matter: Token Labeling for Training Better Vision Transformers", arXiv 2104.10858.
"""

import numpy as np
import torch
from mmpretrain.models import LinearClsHead
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from .image_classifier import ImageClassifier


def mix_tokens(
    images: Tensor, scores: Tensor, label_maps: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """MixToken: replace a rectangle of tokens of each image by those of another one of the batch.

    The rectangle is the same for all images and a whole number of tokens of the last stage, so
    that no token is of two images. Its share of the image is uniformly distributed, the Beta(1, 1)
    of CutMix, before it is rounded and cut at the border.

    Args:
        images (Tensor): (B, 3, H, W), where H and W are multiples of h and w.
        scores (Tensor): Probabilities of classes, (B, N).
        label_maps (Tensor): Those of each token, (B, N, h, w).

    Returns:
        tuple[Tensor]: The three, mixed.
    """
    height, width = label_maps.shape[2:]
    if images.shape[2] % height or images.shape[3] % width:
        raise ValueError(
            f'images of {tuple(images.shape[2:])} must be multiples of label maps of '
            f'{(height, width)}: set map_size of RandomResizedCropWithLabelMap'
        )
    others = torch.randperm(len(images), device=images.device)
    rows, columns = draw_rectangle(height, width)
    stride_y, stride_x = images.shape[2] // height, images.shape[3] // width
    is_other = torch.zeros(height, width, dtype=torch.bool, device=images.device)
    is_other[rows, columns] = True
    is_other_pixel = is_other.repeat_interleave(stride_y, 0).repeat_interleave(stride_x, 1)
    share = is_other.to(scores.dtype).mean()
    return (
        torch.where(is_other_pixel, images[others], images),
        (1 - share) * scores + share * scores[others],
        torch.where(is_other, label_maps[others], label_maps),
    )


def draw_rectangle(height: int, width: int) -> tuple[slice, slice]:
    """A rectangle anywhere, as slices of rows and columns of tokens."""
    side = np.sqrt(np.random.uniform())
    slices = []
    for size in (height, width):
        length, middle = round(size * side), np.random.randint(size)
        start = middle - length // 2
        slices.append(slice(max(start, 0), max(start + length, 0)))
    return tuple(slices)


class TokenLabelHead(LinearClsHead):
    """A linear layer for the image, and another one for each token, which training alone uses.

    The loss is that of the image plus ``token_weight`` times the mean cross-entropy of the tokens.

    Args:
        token_weight (float): The paper's beta. Defaults to 0.5.
        options: Those of mmpretrain's ``LinearClsHead``. Its input is the last map, not pooled.
    """

    def __init__(self, token_weight: float = 0.5, **options: object) -> None:
        super().__init__(**options)
        self.token_weight = token_weight
        self.token_fc = nn.Linear(self.in_channels, self.num_classes)

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """The mean over the last map, (B, C)."""
        return feats[-1].mean((2, 3))

    def loss(self, feats: tuple[Tensor, ...], data_samples: list[DataSample]) -> dict:
        """``loss`` of the images, and ``loss_token``."""
        label_maps = torch.stack([sample.label_map for sample in data_samples]).to(feats[-1])
        if label_maps.shape[2:] != feats[-1].shape[2:]:
            raise ValueError(
                f'label maps of {tuple(label_maps.shape[2:])} do not fit the last map of '
                f'{tuple(feats[-1].shape[2:])}: set map_size of RandomResizedCropWithLabelMap'
            )
        logits = self.token_fc(feats[-1].permute(0, 2, 3, 1))
        log_probabilities = logits.log_softmax(-1).permute(0, 3, 1, 2)
        token_loss = -(label_maps * log_probabilities).sum(1).mean()
        return dict(super().loss(feats, data_samples), loss_token=self.token_weight * token_loss)


class TokenLabelClassifier(ImageClassifier):
    """The classifier with label maps, which MixToken mixes as it does the images.

    Its head is a :class:`TokenLabelHead`; arguments are those of :class:`ImageClassifier`.
    """

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict:
        """Mix, and compute the losses of the head."""
        labels = torch.cat([sample.gt_label for sample in data_samples])
        scores = nn.functional.one_hot(labels, self.head.num_classes).to(inputs)
        label_maps = torch.stack([sample.label_map for sample in data_samples]).to(inputs)
        inputs, scores, label_maps = mix_tokens(inputs, scores, label_maps)
        for sample, score, label_map in zip(data_samples, scores, label_maps, strict=True):
            sample.set_gt_score(score)
            sample.set_field(label_map, 'label_map')
        return super().loss(inputs, data_samples)
