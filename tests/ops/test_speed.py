"""The fast backend is not slower than the plain one, at every golden size."""

import time

import pytest
import torch
from golden import golden_cases

from mmbiformer.ops import routed_attention

CASES = {
    name: case
    for name, case in golden_cases().items()
    if case['kind'] == 'attention'
    and set(case['args']) <= set(golden_cases()['attn_padded']['args'])
}
REPEATS = 40


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('training', [False, True], ids=['forward', 'forward+backward'])
def test_gathered_is_not_slower_than_reference(name, training) -> None:
    case = CASES[name]
    args, (batch, height, width, channels) = case['args'], case['input_shape']
    s = args['n_win']
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.rand(batch, height, width, channels, generator=generator, requires_grad=training)
        for _ in range(3)
    )
    pad = torch.zeros(channels)
    indices = torch.stack(
        [torch.randperm(s * s, generator=generator)[: args['topk']] for _ in range(batch * s * s)]
    ).view(batch, s * s, -1)

    def seconds(backend: str) -> float:
        start = time.perf_counter()
        out = routed_attention(
            *(q, k, v, indices),
            partition_factor=s,
            num_heads=args['num_heads'],
            scale=channels**-0.5,
            pad_key=pad,
            pad_value=pad,
            backend=backend,
        )
        if training:
            torch.autograd.grad(out.sum(), (q, k, v))
        return time.perf_counter() - start

    # Interleaved, and the fastest of each: what else runs on the machine only ever adds time.
    runs = [(seconds('gathered'), seconds('reference')) for _ in range(REPEATS)]
    gathered, reference = (min(times) for times in zip(*runs, strict=True))
    assert gathered <= reference
