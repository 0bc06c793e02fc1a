# Routed attention with the options of public tutorials on YOLO. In BiFormer a head has 32
# channels, and the kernel a side of 5.
attention = dict(
    type='mmbiformer.BiLevelRoutingAttention',
    num_heads=8,
    partition_factor=7,
    topk=4,
    lce_kernel=3,
)
