# Token labelling (arXiv 2104.10858): label maps in a folder of their own, MixToken for MixUp and
# CutMix.
_base_ = './biformer-s_8xb128_in1k.py'

model = dict(
    type='mmbiformer.classification.TokenLabelClassifier',
    neck=None,
    head=dict(type='mmbiformer.classification.TokenLabelHead', token_weight=0.5),
    train_cfg=None,
)

train_pipeline = _base_.train_pipeline
train_pipeline[1].update(
    type='mmbiformer.classification.RandomResizedCropWithLabelMap', map_size=7
)
train_pipeline[2].update(type='mmbiformer.classification.RandomFlipWithLabelMap')
train_pipeline[-1].update(algorithm_keys=('label_map',))
# Elsewhere: --cfg-options train_dataloader.dataset.pipeline.1.folder=...
train_pipeline.insert(
    1,
    dict(
        type='mmbiformer.classification.LoadLabelMap',
        folder='data/imagenet_label_maps',
        num_classes=1000,
    ),
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
