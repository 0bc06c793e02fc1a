_base_ = './upernet_biformer-s_8xb2-160k_ade20k-512x512.py'

model = dict(backbone=dict(arch='t', drop_path_rate=0.1))
