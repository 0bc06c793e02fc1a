# UperNet 160k with BiFormer-S, the recipe of arXiv 2303.08810: 8 GPUs x 2 images, AMP.
_base_ = [
    '../_base_/models/upernet_biformer.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/default_runtime_mmseg.py',
    '../_base_/schedules/adamw-poly_160k.py',
]

default_hooks = dict(checkpoint=dict(interval=16000))
