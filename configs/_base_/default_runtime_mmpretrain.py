# Runtime of the classification configs. See default_runtime_mmdet.py for the import.
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmbiformer'], allow_failed_imports=False)

val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='mmbiformer.CrashSafeCheckpointHook',
        interval=1,
        max_keep_ckpts=3,
        save_best='accuracy/top1',
    ),
    exact_resume=dict(type='mmbiformer.ExactResumeHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    stop=dict(type='mmbiformer.SafeStopHook'),
    visualization=dict(type='VisualizationHook', enable=False),
)

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends, name='visualizer')

log_level = 'INFO'
load_from = None
resume = False
