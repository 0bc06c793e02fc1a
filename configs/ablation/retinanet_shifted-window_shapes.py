# Shifted windows, as Swin has them in Swin-T's layout, under RetinaNet.
_base_ = '../_base_/ablation_detection.py'

model = dict(backbone=dict(attention='shifted_window'))
