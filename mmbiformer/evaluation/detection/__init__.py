"""Detectors and instance segmenters, judged by object size in COCO's formats."""
