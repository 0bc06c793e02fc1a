# Semantic FPN 80k with BiFormer-S, the recipe of arXiv 2303.08810: 8 GPUs x 4 images, AMP.
_base_ = [
    '../_base_/models/fpn_biformer.py',
    '../_base_/datasets/ade20k_divisible-by-32.py',
    '../_base_/default_runtime_mmseg.py',
    '../_base_/schedules/adamw-cosine_80k.py',
]

train_dataloader = dict(batch_size=4)
