# The recipe of the size benchmark: RetinaNet from scratch on shapes of all sizes. A config adds a
# backbone with four outputs and their widths, and nothing else.
_base_ = './retinanet_shapes.py'

norm_cfg = dict(type='GN', num_groups=16)
model = dict(
    neck=dict(out_channels=64, num_outs=5, norm_cfg=norm_cfg),
    bbox_head=dict(
        in_channels=64,
        feat_channels=64,
        stacked_convs=1,
        norm_cfg=norm_cfg,
        # Sides of 7 to 178 pixels; the boxes have 5 to 200, and few are longer than 4 : 3.
        anchor_generator=dict(octave_base_scale=1.75, ratios=[1.0], strides=[4, 8, 16, 32, 64]),
    ),
)

# Where tools/size_benchmark.py makes the data; the small ones of its data sets by default.
data_root = 'work_dirs/size_benchmark/small/shapes/'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_validation.json')
test_evaluator = val_evaluator

max_epochs = 8
# Validation would begin after the last epoch: tools/size_benchmark.py evaluates once, at the end.
train_cfg = dict(max_epochs=max_epochs, val_begin=max_epochs + 1)
# At twice the rate the first hundred steps went faster for BiFormer, slower for Swin.
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(T_max=max_epochs, end=max_epochs)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
