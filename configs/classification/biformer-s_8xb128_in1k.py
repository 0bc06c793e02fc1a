_base_ = [
    '../_base_/models/classifier_biformer.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/adamw-cosine_300e.py',
    '../_base_/default_runtime_mmpretrain.py',
]
