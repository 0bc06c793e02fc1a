# Segmentation in the ablation: the Semantic FPN of the quickstart. A config adds the backbone.
_base_ = ['../biformer/fpn_biformer_quickstart_shapes.py', './models/ablation_backbone.py']

model = dict(backbone=dict(_delete_=True, **_base_.backbone))

data_root = 'work_dirs/ablation/shapes/'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader

num_iters = 500
train_cfg = dict(max_iters=num_iters, val_interval=num_iters + 1)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(T_max=num_iters, end=num_iters)
default_hooks = dict(checkpoint=dict(interval=num_iters))
