_base_ = './biformer-s_8xb128_in1k.py'

model = dict(backbone=dict(arch='t', drop_path_rate=0.1))
