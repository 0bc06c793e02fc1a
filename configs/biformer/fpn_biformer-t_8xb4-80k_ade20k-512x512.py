_base_ = './fpn_biformer-s_8xb4-80k_ade20k-512x512.py'

model = dict(backbone=dict(arch='t', drop_path_rate=0.1))
