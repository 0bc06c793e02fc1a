# ADE20K with test images stretched up to sides divisible by 32, as in the published Semantic FPN
# runs. Only the image is stretched: labels keep their size, so the metric is unaffected.
_base_ = './ade20k.py'

test_pipeline = _base_.test_pipeline
tta_pipeline = _base_.tta_pipeline
# Both follow the resize: the second step of one pipeline, the first of the views of the other.
test_pipeline.insert(2, dict(type='ResizeToMultiple', size_divisor=32))
tta_pipeline[1].transforms.insert(1, [dict(type='ResizeToMultiple', size_divisor=32)])

val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
