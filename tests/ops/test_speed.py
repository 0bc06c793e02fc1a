"""The chunked backend is faster than the plain one, at layers where the margin is clear."""

import time

import pytest
import torch

from mmbiformer.ops import routed_attention

# Height and width of the map, C, S, topk.
LAYERS = {
    '224 stage 3': (14, 14, 256, 7, 16),
    '512 stage 2': (64, 64, 128, 8, 4),
    '512 stage 3': (32, 32, 256, 8, 16),
    '800x1344 stage 3': (50, 84, 256, 16, 16),
}
REPEATS = 4


@pytest.mark.parametrize('training', [False, True], ids=['forward', 'forward+backward'])
@pytest.mark.parametrize('name', LAYERS)
def test_chunked_is_faster_than_reference(name, training) -> None:
    height, width, channels, s, topk = LAYERS[name]
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.rand(1, height, width, channels, generator=generator, requires_grad=training)
        for _ in range(3)
    )
    pad = torch.zeros(channels)
    chosen = [torch.randperm(s * s, generator=generator)[:topk] for _ in range(s * s)]
    indices = torch.stack(chosen).unsqueeze(0)

    def seconds(backend: str) -> float:
        start = time.perf_counter()
        out = routed_attention(
            *(q, k, v, indices),
            partition_factor=s,
            num_heads=channels // 32,
            scale=channels**-0.5,
            pad_key=pad,
            pad_value=pad,
            backend=backend,
        )
        if training:
            torch.autograd.grad(out.sum(), (q, k, v))
        return time.perf_counter() - start

    # Interleaved, and the fastest of each: what else runs on the machine only ever adds time.
    runs = [(seconds('chunked'), seconds('reference')) for _ in range(REPEATS)]
    chunked, reference = (min(times) for times in zip(*runs, strict=True))
    print(f'{name}: {1000 * chunked:.1f} ms, {reference / chunked:.1f} times as fast')
    assert chunked < reference
