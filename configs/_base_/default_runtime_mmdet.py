# Runtime of the detection configs: mmdet's own, with checkpoints that a kill leaves whole, and
# runs that stop in time and go on as if they had not been stopped. By the import mmengine reads
# checkpoints without running anything in them, also before it builds the model.
_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(imports=['mmbiformer'], allow_failed_imports=False)
default_hooks = dict(
    checkpoint=dict(type='mmbiformer.CrashSafeCheckpointHook'),
    exact_resume=dict(type='mmbiformer.ExactResumeHook'),
    stop=dict(type='mmbiformer.SafeStopHook'),
)
