"""Data sets. Needs numpy, opencv and pycocotools."""
