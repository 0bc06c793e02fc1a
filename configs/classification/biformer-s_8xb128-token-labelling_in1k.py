# Token labelling (arXiv 2104.10858): label maps in a folder of their own, MixToken for MixUp and
# CutMix.
_base_ = './biformer-s_8xb128_in1k.py'

model = dict(
    type='mmbiformer.classification.TokenLabelClassifier',
    mix_token=dict(alpha=1.0),
    neck=None,
    head=dict(type='mmbiformer.classification.TokenLabelHead', token_weight=0.5),
    train_cfg=None,
)

load, crop, flip, *augmentations, pack = _base_.train_pipeline
crop.update(type='mmbiformer.classification.RandomResizedCropWithLabelMap', map_size=7)
flip.update(type='mmbiformer.classification.RandomFlipWithLabelMap')
pack.update(algorithm_keys=('label_map',))
label_maps = dict(
    type='mmbiformer.classification.LoadLabelMap',
    folder='data/imagenet_label_maps',
    num_classes=1000,
)
train_pipeline = [load, label_maps, crop, flip, *augmentations, pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
