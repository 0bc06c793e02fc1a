"""Hooks of a run, for any mm config."""

from .checkpoint_hook import CrashSafeCheckpointHook

__all__ = ['CrashSafeCheckpointHook']
