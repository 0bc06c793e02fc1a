_base_ = './upernet_biformer-s_8xb2-160k_ade20k-512x512.py'

# The paper gives no drop path rate for T on this task; 0.1 is this project's choice.
model = dict(backbone=dict(arch='t', drop_path_rate=0.1))
