# The small YOLOX with bi-level routing attention after the block that makes P3.
_base_ = ['../_base_/yolox_shapes.py', '../_base_/models/tutorial_attention.py']

model = dict(
    neck=dict(
        _delete_=True,
        type='mmbiformer.AttentionNeck',
        neck=_base_.model.neck,
        levels=(0,),
        inside=True,
        attention=_base_.attention,
    )
)
