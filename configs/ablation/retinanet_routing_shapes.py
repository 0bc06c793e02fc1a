# BiFormer-STL: bi-level routing attention in Swin-T's layout, under RetinaNet.
_base_ = '../_base_/ablation_detection.py'

model = dict(backbone=dict(_delete_=True, **_base_.routing))
