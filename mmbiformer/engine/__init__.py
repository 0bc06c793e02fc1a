"""From a config file to a training or test run. Needs mmengine and the config's mm package."""

from .config import load_config
from .runs import build_tester, build_trainer

__all__ = ['build_tester', 'build_trainer', 'load_config']
