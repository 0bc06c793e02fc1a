# Detection in the ablation: the RetinaNet of the size benchmark on images of 160 x 160. A config
# adds the backbone.
_base_ = ['./size_benchmark.py', './models/ablation_backbone.py']

model = dict(
    backbone=dict(_delete_=True, **_base_.backbone),
    neck=dict(in_channels=[32, 64, 128, 256]),
)

data_root = 'work_dirs/ablation/shapes/'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_validation.json')
test_evaluator = val_evaluator

max_epochs = 3  # 600 steps of four images
train_cfg = dict(max_epochs=max_epochs, val_begin=max_epochs + 1)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(T_max=max_epochs, end=max_epochs)
