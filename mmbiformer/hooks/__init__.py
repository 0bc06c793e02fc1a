"""Hooks of a run, for any mm config."""

from .checkpoint_hook import CrashSafeCheckpointHook
from .exact_resume_hook import ExactResumeHook
from .safe_stop_hook import SafeStopHook

__all__ = ['CrashSafeCheckpointHook', 'ExactResumeHook', 'SafeStopHook']
