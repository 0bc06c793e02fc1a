# RTMDet-s, mmdet's recipe, with bi-level routing attention after the block that makes P3, as
# public tutorials put it into YOLOv8: the convolution down to P4 and the head take what it gives.
_base_ = [
    'mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py',
    '../_base_/models/tutorial_attention.py',
]
custom_imports = dict(imports=['mmbiformer'], allow_failed_imports=False)

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

# 8 GPUs x 32 images. mmdet's config has 16 from its base, for which this learning rate is not.
auto_scale_lr = dict(base_batch_size=256)

default_hooks = dict(
    checkpoint=dict(type='mmbiformer.CrashSafeCheckpointHook'),
    exact_resume=dict(type='mmbiformer.ExactResumeHook'),
    stop=dict(type='mmbiformer.SafeStopHook'),
)
