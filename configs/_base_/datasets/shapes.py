# The embedded data set of mmbiformer.datasets.shapes: what detection and segmentation share.
data_root = 'data/shapes/'
metainfo = dict(
    classes=('circle', 'square', 'triangle', 'star', 'ring', 'cross'),
    palette=[
        (214, 39, 40),
        (31, 119, 180),
        (44, 160, 44),
        (255, 187, 0),
        (148, 103, 189),
        (23, 190, 207),
    ],
)

# The images are small: loading them takes the main process a few per cent of an iteration.
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(metainfo=metainfo, data_root=data_root),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(metainfo=metainfo, data_root=data_root, test_mode=True),
)
test_dataloader = val_dataloader
