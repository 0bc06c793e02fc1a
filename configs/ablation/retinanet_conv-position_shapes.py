# The layout of BiFormer: convolutional position encoding too.
_base_ = './retinanet_deeper_shapes.py'

model = dict(backbone=dict(conv_position=True))
