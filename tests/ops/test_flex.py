"""PyTorch's block-sparse kernel: its forward pass on CPUs, and ours around its backward pass."""

from dataclasses import replace

import pytest
import torch
from attention_cases import Case, each_padding, make_inputs, run
from attention_cases import forward as attend
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from mmbiformer.ops import flex, flex_programs

CASES = {
    'divisible': Case(8, 8, 4, topk=3),
    'partial regions': Case(13, 18, 4, topk=4),
    'padding regions': Case(9, 9, 8, topk=16),
    'one region': Case(3, 5, 1, topk=1),
    'all regions, several tiles': Case(35, 29, 2, topk=4, batch=1),
    'regions of whole tiles': Case(32, 16, 2, topk=2),
    'more keys than queries': Case(4, 5, 2, topk=2, key_size=(33, 40)),
    'wider values': Case(13, 18, 4, topk=4, value_dim=24),
}
CASES = {name: replace(case, head_dim=16) for name, case in CASES.items()}
each_flex_case = pytest.mark.parametrize('case', CASES.values(), ids=CASES)


def dense(q: Tensor, k: Tensor, v: Tensor, block_mask: BlockMask, scale: float) -> Tensor:
    """What the block mask says, over all pairs of tokens."""
    height, width = block_mask.BLOCK_SIZE
    listed = torch.zeros(len(q), 1, q.shape[2] // height, k.shape[2] // width)
    full = block_mask.full_kv_num_blocks is not None
    counts = block_mask.full_kv_num_blocks if full else block_mask.kv_num_blocks
    indices = block_mask.full_kv_indices if full else block_mask.kv_indices
    (count,) = counts.unique()
    listed.scatter_(3, indices[..., :count].long(), 1)
    mask = listed.bool().repeat_interleave(height, 2).repeat_interleave(width, 3)
    if not full:
        (is_key,) = block_mask.mask_mod.args
        mask &= is_key
    logits = (scale * q @ k.transpose(2, 3)).masked_fill(~mask, float('-inf'))
    return logits.softmax(-1) @ v


@pytest.fixture
def plain(monkeypatch):
    """:func:`dense` in place of the programs: it is soon there, and has a backward pass."""
    monkeypatch.setattr(flex, 'TILE', 16)
    monkeypatch.setattr(flex_programs, 'compiled', lambda: dense)


def test_programs_compute_what_the_reference_does():
    """As users run it. Maps of other sizes, other numbers of routed regions share a program."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    partial, full = CASES['partial regions'], CASES['regions of whole tiles']
    for case in partial, replace(partial, height=30, topk=16, padding='masked'), full:
        arguments = make_inputs(replace(case, dtype=torch.float32))
        exact = {name: x.double() for name, x in arguments.tensors.items()}
        truth = attend(replace(arguments, tensors=exact), 'reference')
        error, plain_error = (attend(arguments, x) - truth for x in ('flex', 'reference'))
        assert 0 < error.norm() <= 2 * plain_error.norm()
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] == 2


def test_autocast_in_a_program_of_another_compiler():
    arguments = make_inputs(Case(13, 18, 4, topk=4, head_dim=16, dtype=torch.float32))
    with torch.autocast('cpu', torch.bfloat16):
        out = torch.compile(attend, backend='eager')(arguments, 'flex')
        expected = attend(arguments, 'reference')
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, expected, rtol=0, atol=0.03)


def test_without_a_compiler_it_is_no_other_attention():
    arguments = make_inputs(Case(8, 8, 4, topk=3, head_dim=16, dtype=torch.float32))
    off = torch.compiler.set_stance('force_eager')
    message = r"'flex' needs torch\.compile, which is switched off"
    with off, pytest.raises(RuntimeError, match=message):
        attend(arguments, 'flex')


@each_flex_case
@each_padding
def test_what_is_around_the_kernel(monkeypatch, plain, case, padding):
    """Regrouping, padding and lists are ours, and PyTorch differentiates them."""
    monkeypatch.setattr(flex, 'problem', lambda inputs: None)
    monkeypatch.setattr('mmbiformer.ops.backends.check_can_run', lambda *_: None)
    arguments = make_inputs(replace(case, padding=padding))
    truth = run(arguments, 'reference')
    for name, result in run(arguments, 'flex').items():
        torch.testing.assert_close(result, truth[name], rtol=0, atol=1e-12)


@each_padding
def test_lists_of_the_backward_pass(monkeypatch, padding):
    """By whom a region was chosen: the kernels' gradients of keys and values follow these."""
    arguments = make_inputs(Case(8, 7, 4, topk=3, head_dim=16, padding=padding))
    arguments.tensors = {name: x.float() for name, x in arguments.tensors.items()}
    masks = []

    def record(*maps: Tensor, block_mask: BlockMask, scale: float) -> Tensor:
        masks.append(block_mask)
        return dense(*maps, block_mask, scale)

    monkeypatch.setattr(flex_programs, 'compiled', lambda: record)
    attend(arguments, 'flex')
    (mask,) = masks
    for image, lists in enumerate(arguments.indices.tolist()):
        for region in range(16):
            count = mask.q_num_blocks[image, 0, region]
            by = mask.q_indices[image, 0, region, :count].tolist()
            assert sorted(by) == [i for i, chosen in enumerate(lists) if region in chosen]


@pytest.mark.parametrize('is_compiled', [False, True], ids=['eager', 'compiled'])
@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (dict(is_weighted=True), 'it has no routing weights'),
        (dict(dtype=torch.float64), 'it computes no torch.float64'),
        (dict(head_dim=8), 'a head has 8 channels, and it needs 16'),
        ({}, 'PyTorch has no backward pass of flex_attention on CPUs'),
    ],
    ids=['weights', 'dtype', 'head dim', 'gradients'],
)
def test_what_it_cannot_do_is_one_line(plain, change, reason, is_compiled):
    case = replace(Case(8, 8, 4, topk=2, head_dim=16, dtype=torch.float32), **change)
    arguments = make_inputs(case)
    if not change:
        arguments.tensors['v'].requires_grad_()
    call = torch.compile(attend, backend='eager', fullgraph=True) if is_compiled else attend
    with pytest.raises(Exception, match=f"backend 'flex' cannot run: {reason}; take 'chunked'"):
        call(arguments, 'flex')


def test_torch_that_is_too_old(plain, monkeypatch):
    monkeypatch.setattr(flex, 'TORCH', '99.1')
    arguments = make_inputs(Case(8, 8, 4, topk=2, head_dim=16, dtype=torch.float32))
    with pytest.raises(ValueError, match=r'it needs torch 99\.1 or newer, torch \S+ is installed'):
        attend(arguments, 'flex')
