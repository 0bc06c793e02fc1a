"""Checks of a config: keys and names that nothing knows, and channels that do not fit."""
