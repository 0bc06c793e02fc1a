# The attention after P3, P4 and P5.
_base_ = './yolox_bra-p3_shapes.py'

model = dict(neck=dict(levels=(0, 1, 2)))
