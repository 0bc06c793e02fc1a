_base_ = './retinanet_biformer-s_fpn_1x_coco.py'

model = dict(backbone=dict(arch='t', drop_path_rate=0.1))
