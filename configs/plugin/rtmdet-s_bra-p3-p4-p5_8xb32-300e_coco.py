# The attention after P3, P4 and P5, as public tutorials put it into YOLOv5.
_base_ = './rtmdet-s_bra-p3_8xb32-300e_coco.py'

model = dict(neck=dict(levels=(0, 1, 2)))
