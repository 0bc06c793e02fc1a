# The small YOLOX as it is, which those with attention are compared with.
_base_ = '../_base_/yolox_shapes.py'
