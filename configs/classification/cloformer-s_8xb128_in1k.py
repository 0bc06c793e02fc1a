_base_ = './cloformer-xxs_8xb128_in1k.py'

model = dict(backbone=dict(arch='s', drop_path_rate=0.06), head=dict(in_channels=448))
