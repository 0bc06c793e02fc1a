# BiFormer-STL: bi-level routing attention in Swin-T's layout, under Semantic FPN.
_base_ = '../_base_/ablation_segmentation.py'

model = dict(backbone=dict(_delete_=True, **_base_.routing))
