# Further towards BiFormer: more blocks, with narrower MLPs, at about the same cost.
_base_ = './retinanet_overlapped_shapes.py'

model = dict(backbone=dict(arch=dict(depths=(2, 2, 4, 2), mlp_ratios=(3, 3, 3, 3))))
