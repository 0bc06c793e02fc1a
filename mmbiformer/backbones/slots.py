"""The attentions that BiFormer is compared with in Swin-T's layout (paper, table 5): data alone.

A slot has an entry for each stage: the config of an attention without its ``dim``, or a tuple of
configs that the blocks of the stage take in turn. Each states what the attention's own paper
gives in a model of about Swin-T's size. ``head_dim`` says how wide a head is where the paper's
heads grow in number with the width.
"""

from collections.abc import Mapping, Sequence

Entry = Mapping | Sequence[Mapping]

HEAD_DIM = 32  # of Swin-T, Twins-SVT-B and DAT-T: 3, 6, 12 and 24 heads at the widths of Swin-T
TOPKS = (1, 4, 16, None)  # of BiFormer; None: full attention


def routing(topks: Sequence[int | None] = TOPKS, **options: object) -> tuple[Entry, ...]:
    """Bi-level routing attention, of BiFormer-STL: ``options`` are those of the attention."""
    routed = dict(type='mmbiformer.BiLevelRoutingAttention', head_dim=HEAD_DIM, **options)
    full = dict(type='mmbiformer.FullAttention')
    return tuple(full if topk is None else dict(routed, topk=topk) for topk in topks)


def _of_each_stage(kind: str, **options: Sequence) -> tuple[dict, ...]:
    """The configs of a kind, with an option for each of the four stages."""
    return tuple(
        dict(type=f'mmbiformer.{kind}', **dict(zip(options, values, strict=True)))
        for values in zip(*options.values(), strict=True)
    )


_HEAD_DIMS = (HEAD_DIM,) * 4
# Liu et al., ICCV 2021: windows of 7, shifted in every second block.
_WINDOW = dict(type='mmbiformer.ShiftedWindowAttention', head_dim=HEAD_DIM, is_shifted=False)
_SHIFTED = dict(_WINDOW, is_shifted=True)
_AXIAL = dict(type='mmbiformer.AxialAttention', head_dim=HEAD_DIM)
_LOCAL = dict(type='mmbiformer.LocallyGroupedAttention', head_dim=HEAD_DIM)
# Xia et al., CVPR 2022, table 1: 12 and 24 heads in 3 and 6 groups; maps of 14 and 7 at 224.
_DEFORMABLE = dict(type='mmbiformer.DeformableAttention', head_dim=HEAD_DIM)

SLOTS: dict[str, tuple[Entry, ...]] = {
    # Ramachandran et al., NeurIPS 2019: 8 heads, neighbourhoods of 7 x 7.
    'sliding_window': _of_each_stage('SlidingWindowAttention', num_heads=(8,) * 4),
    'shifted_window': ((_WINDOW, _SHIFTED),) * 4,
    # Chu et al., NeurIPS 2021, Twins-SVT: keys sub-sampled by 8, 4, 2 and 1.
    'spatially_separable': tuple(
        (_LOCAL, subsampled)
        for subsampled in _of_each_stage(
            'SubsampledAttention', head_dim=_HEAD_DIMS, ratio=(8, 4, 2, 1)
        )
    ),
    # Ho et al., 2019: rows, then columns.
    'sequential_axial': ((dict(_AXIAL, axis='row'), dict(_AXIAL, axis='column')),) * 4,
    # Huang et al., ICCV 2019: one head, twice.
    'criss_cross': (dict(type='mmbiformer.CrissCrossAttention'),) * 4,
    # Dong et al., CVPR 2022, CSWin-T.
    'cross_shaped_window': _of_each_stage(
        'CrossShapedWindowAttention', num_heads=(2, 4, 8, 16), stripe=(1, 2, 7, 7)
    ),
    'deformable': (
        (_WINDOW, _SHIFTED),
        (_WINDOW, _SHIFTED),
        (_WINDOW, dict(_DEFORMABLE, table_side=14)),
        (_WINDOW, dict(_DEFORMABLE, table_side=7)),
    ),
    'routing': routing(partition_factor=7),
}
