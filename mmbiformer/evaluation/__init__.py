"""AP by object size, and segmentation by the size of segments."""
