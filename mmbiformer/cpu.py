"""What this CPU computes in hardware."""

import torch


def bf16_units() -> list[str]:
    """Names of its units for bfloat16, as 'amx_bf16' and 'avx512_bf16'; none before torch 2.10.

    Without them PyTorch computes in bfloat16 as well, and mostly slower than in float32.
    """
    capabilities = getattr(torch.cpu, 'get_capabilities', dict)()
    return [name for name, is_there in capabilities.items() if 'bf16' in name and is_there]
