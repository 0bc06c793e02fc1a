"""Data sets, and loading them. Needs numpy, opencv, pillow and pycocotools."""
