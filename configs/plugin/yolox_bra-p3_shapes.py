# The small YOLOX with bi-level routing attention after the block that makes P3.
_base_ = '../_base_/yolox_shapes.py'

model = dict(
    neck=dict(
        _delete_=True,
        type='mmbiformer.AttentionNeck',
        neck=_base_.model.neck,
        levels=(0,),
        inside=True,
        attention=dict(
            type='mmbiformer.BiLevelRoutingAttention',
            num_heads=8,
            partition_factor=7,
            topk=4,
            lce_kernel=3,
        ),
    )
)
