# The layout of BiFormer: convolutional position encoding too.
_base_ = './fpn_deeper_shapes.py'

model = dict(backbone=dict(conv_position=True))
