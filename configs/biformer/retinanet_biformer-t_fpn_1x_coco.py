_base_ = './retinanet_biformer-s_fpn_1x_coco.py'

# The paper gives no drop path rate for T on this task; 0.1 is this project's choice.
model = dict(backbone=dict(arch='t', drop_path_rate=0.1))
