# Sliding windows in Swin-T's layout, under RetinaNet.
_base_ = '../_base_/ablation_detection.py'

model = dict(backbone=dict(attention='sliding_window'))
