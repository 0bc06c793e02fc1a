"""Semantic segmenters, judged by the size of ground-truth segments."""
