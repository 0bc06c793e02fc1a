# RTMDet-s, mmdet's recipe, with bi-level routing attention after the block that makes P3, as
# public tutorials put it into YOLOv8: the convolution down to P4 and the head take what it gives.
_base_ = 'mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py'

model = dict(
    neck=dict(
        _delete_=True,
        type='mmbiformer.AttentionNeck',
        neck=_base_.model.neck,
        levels=(0,),
        inside=True,
        # The options of the tutorials; BiFormer has 32 channels a head and a kernel of 5.
        attention=dict(
            type='mmbiformer.BiLevelRoutingAttention',
            num_heads=8,
            partition_factor=7,
            topk=4,
            lce_kernel=3,
        ),
    )
)

# 8 GPUs x 32 images. mmdet's config has 16 from its base, for which this learning rate is not.
auto_scale_lr = dict(base_batch_size=256)
