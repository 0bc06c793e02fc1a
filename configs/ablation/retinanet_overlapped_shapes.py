# From BiFormer-STL towards BiFormer: overlapped patch embedding.
_base_ = './retinanet_routing_shapes.py'

model = dict(backbone=dict(downsampling='overlapped'))
