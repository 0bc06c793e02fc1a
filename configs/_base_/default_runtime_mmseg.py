# Runtime of the segmentation configs. See default_runtime_mmdet.py for the import.
default_scope = 'mmseg'
custom_imports = dict(imports=['mmbiformer'], allow_failed_imports=False)

val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='mmbiformer.CrashSafeCheckpointHook',
        by_epoch=False,
        interval=8000,
        max_keep_ckpts=3,
        save_best='mIoU',
    ),
    exact_resume=dict(type='mmbiformer.ExactResumeHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    stop=dict(type='mmbiformer.SafeStopHook'),
    visualization=dict(type='SegVisualizationHook'),
)

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=False)

log_level = 'INFO'
load_from = None
resume = False

# Takes effect with --tta: averages the class probabilities over the views of `tta_pipeline`.
tta_model = dict(type='SegTTAModel')
