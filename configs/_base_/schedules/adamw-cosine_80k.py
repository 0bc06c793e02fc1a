# The published Semantic FPN schedule: batch 32 (8 GPUs x 4 images), 80k iterations.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4),
)

# Both act from iteration 0 and multiply: the decay already runs during the warm-up.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=1000),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-8, by_epoch=False, begin=0, end=80000),
]

train_cfg = dict(type='IterBasedTrainLoop', max_iters=80000, val_interval=8000)
auto_scale_lr = dict(enable=False, base_batch_size=32)
