# The backbones of the ablation: Swin-T's layout, narrow and short. Heads of 32 channels and the
# groups of deformable attention ask for these widths.
arch = dict(embed_dims=(32, 64, 128, 256), depths=(2, 2, 2, 2))
backbone = dict(type='mmbiformer.SwinLayout', arch=arch, attention='shifted_window')
# S for maps of a 160 x 160 image: regions of 8 x 8, 4 x 4 and 2 x 2 tokens.
routing = dict(type='mmbiformer.BiFormerSTL', arch=arch, partition_factor=5)
