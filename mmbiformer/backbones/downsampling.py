"""What opens a stage: overlapped as in BiFormer, or in patches as in Swin's layout."""

from torch import nn

from mmbiformer.layers import LAYER_NORM_EPS, ChannelsFirstLayerNorm, PatchConv2d


def overlapped_stem(dim: int) -> nn.Sequential:
    """Two 3x3 convolutions of stride 2: (B, 3, H, W) to (B, dim, H / 4, W / 4)."""
    return nn.Sequential(
        *overlapped_downsampling(3, dim // 2), nn.GELU(), *overlapped_downsampling(dim // 2, dim)
    )


def overlapped_downsampling(in_dim: int, dim: int) -> nn.Sequential:
    """One 3x3 convolution of stride 2: (B, in_dim, H, W) to (B, dim, H / 2, W / 2)."""
    return nn.Sequential(nn.Conv2d(in_dim, dim, 3, stride=2, padding=1), nn.BatchNorm2d(dim))


def patch_stem(dim: int) -> nn.Sequential:
    """A convolution of 4x4 patches: (B, 3, H, W) to (B, dim, H / 4, W / 4)."""
    return nn.Sequential(PatchConv2d(3, dim, 4), ChannelsFirstLayerNorm(dim, LAYER_NORM_EPS))


def patch_downsampling(in_dim: int, dim: int) -> nn.Sequential:
    """A convolution of 2x2 patches: (B, in_dim, H, W) to (B, dim, H / 2, W / 2)."""
    return nn.Sequential(
        ChannelsFirstLayerNorm(in_dim, LAYER_NORM_EPS), PatchConv2d(in_dim, dim, 2)
    )
