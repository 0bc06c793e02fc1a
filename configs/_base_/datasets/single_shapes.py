# The embedded data set of mmbiformer.datasets.single_shapes, for classification.
data_root = 'data/single_shapes/'
# In the order of their folders, which gives the labels.
metainfo = dict(classes=('circle', 'cross', 'ring', 'square', 'star', 'triangle'))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]

# The images are small: loading them takes the main process a few per cent of an iteration.
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset',
        metainfo=metainfo,
        data_root=data_root,
        data_prefix='training',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=50,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset',
        metainfo=metainfo,
        data_root=data_root,
        data_prefix='validation',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='Accuracy')
test_evaluator = val_evaluator
