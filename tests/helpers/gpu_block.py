"""How many kernels a routed block launches on a GPU, and what they read and write; needs no GPU.

    python tests/helpers/gpu_block.py

As it runs eagerly, operators are counted on tensors without values, on the path of GPUs. As it is
compiled, Inductor generates its Triton code for an H200 that is only pretended, and nothing runs;
so this asks for private parts of PyTorch, and fits version 2.13.
"""

import copy
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from unittest.mock import patch

import torch
import torch.nn.functional as F
from launches import CountLaunches
from torch import nn
from torch._guards import TracingContext, tracing
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from mmbiformer.layers import BiFormerBlock, BiLevelRoutingAttention
from mmbiformer.layers.casting import call_with_casts

# BiFormer's routed stages at 800 x 1344, S = 16, batch 2: channels, top-k, height, width.
STAGES = (64, 1, 200, 336), (128, 4, 100, 168), (256, 16, 50, 84)
S, BATCH, HEAD_DIM = 16, 2, 32
GPU = torch.device('cuda', 0)
bfloat16 = torch.autocast('cpu', torch.bfloat16)


def build_block(dim: int, topk: int) -> BiFormerBlock:
    """Without stochastic depth; its norms compute in float32, as autocast has them do on GPUs."""
    attention = BiLevelRoutingAttention(dim, dim // HEAD_DIM, S, topk, backend='chunked')
    block = BiFormerBlock(dim, attention)
    for norm in (block.norm1, block.norm2):
        norm.forward = _in_float32.__get__(norm)
    return block


def _in_float32(norm: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast('cpu', enabled=False):
        return F.layer_norm(x.float(), norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def count_eager(
    dim: int, topk: int, height: int, width: int, run=call_with_casts
) -> tuple[CountLaunches, CountLaunches]:
    """Launches of the forward and of the backward pass."""
    with ExitStack() as stack:
        for name in ('layers.block.is_eager_on_cpu', 'layers.depthwise.is_eager_on_cpu'):
            stack.enter_context(patch(f'mmbiformer.{name}', lambda x: False))
        for name in ('ops.any_size.is_on_cpu', 'ops.routing.is_on_cpu'):
            stack.enter_context(patch(f'mmbiformer.{name}', lambda x: False))
        # What is kept for a size is there from the second map of that size on.
        kept = {}
        stack.enter_context(patch('mmbiformer.ops.routing.shares', _keeping(kept)))
        stack.enter_context(FakeTensorMode())
        block = build_block(dim, topk)
        x = torch.empty(BATCH, height, width, dim, dtype=torch.bfloat16, requires_grad=True)
        with bfloat16:
            run(block, x)
        with bfloat16, CountLaunches() as forward:
            out = run(block, x)
        with CountLaunches() as backward:
            out.backward(torch.empty_like(out))
    return forward, backward


def _keeping(kept: dict):
    from mmbiformer.ops.routing import shares

    def keep(x, partition_factor):
        if 'shares' not in kept:
            kept['shares'] = shares(x, partition_factor)
        return kept['shares']

    return keep


def compile_for_gpu(dim: int, topk: int, height: int, width: int, **options) -> list[dict]:
    """What Inductor makes of the forward and the backward pass: its code, and bytes moved."""
    from functorch.compile import min_cut_rematerialization_partition
    from torch._dynamo.backends.common import aot_autograd
    from torch._inductor import compile_fx, config
    from torch._inductor.decomposition import select_decomp_table

    programs = []

    def take_code(lowering) -> SimpleNamespace:
        code = lowering.codegen()[0].value
        programs.append({'code': code, 'bytes': lowering.count_bytes()[0]})
        return SimpleNamespace(call=None, runner=None, __file__='none', key='', cache_linemap=None)

    def lower(program: torch.fx.GraphModule, inputs: list) -> object:
        runnable = copy.deepcopy(program)  # what is returned here runs once, on the CPU
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        with _pretend_gpu(), mode, tracing(TracingContext(mode)), V.set_fake_mode(mode):
            inputs = [
                torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=GPU) for x in inputs
            ]
            for node in program.graph.nodes:
                if 'device' in node.kwargs:
                    node.kwargs = {**node.kwargs, 'device': GPU}
            FakeTensorProp(program, mode).propagate_dont_convert_inputs(*inputs)
            compile_fx.compile_fx_inner(program, inputs, is_backward=bool(programs))
        return runnable.forward

    torch._dynamo.reset()
    backend = aot_autograd(
        fw_compiler=lower,
        bw_compiler=lower,
        decompositions=select_decomp_table(),
        partition_fn=min_cut_rematerialization_partition,
    )
    block = build_block(dim, topk)
    x = torch.rand(BATCH, height, width, dim, dtype=torch.bfloat16, requires_grad=True)
    lowering = 'torch._inductor.graph.GraphLowering.compile_to_module'
    with patch(lowering, take_code), config.patch(**options), bfloat16:
        out = torch.compile(call_with_casts, backend=backend, dynamic=False)(block, x)
    if len(programs) == 1:
        with patch(lowering, take_code), config.patch(**options):
            out.sum().backward()
    return programs


@contextmanager
def _pretend_gpu() -> Iterator[None]:
    """An H200 as far as Inductor asks for one."""
    from torch._dynamo import device_interface
    from torch.utils import _triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler.compiler import make_backend

    properties = SimpleNamespace(
        **dict(name='NVIDIA H200', major=9, minor=0, multi_processor_count=132, warp_size=32),
        **dict(regs_per_multiprocessor=65536, max_threads_per_multi_processor=2048),
        **dict(shared_memory_per_block_optin=232448, total_memory=140 << 30, gcnArchName=''),
    )
    answers = dict(
        is_available=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        get_device_properties=lambda device=None: properties,
        get_device_capability=lambda device=None: (9, 0),
        is_bf16_supported=lambda *args, **kwargs: True,
        get_rng_state=torch.get_rng_state,
        set_rng_state=torch.set_rng_state,
        _lazy_init=lambda: None,
        _exchange_device=lambda device: 0,
        _maybe_exchange_device=lambda device: 0,
    )
    interface = device_interface.CudaInterface
    asked = 'is_available', 'device_count', 'current_device', 'get_device_properties'
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(patch.object(torch.cuda, name, answer))
        for name in asked:
            stack.enter_context(patch.object(interface, name, staticmethod(answers[name])))
        capability = staticmethod(lambda device=None: 90)
        stack.enter_context(patch.object(interface, 'get_compute_capability', capability))
        known = dict(device_interface.device_interfaces, cuda=interface, **{'cuda:0': interface})
        stack.enter_context(patch.dict(device_interface.device_interfaces, known))
        worker = device_interface.caching_worker_device_properties
        stack.enter_context(patch.dict(worker, cuda=[properties]))
        worker = device_interface.caching_worker_current_devices
        stack.enter_context(patch.dict(worker, cuda=0))
        for function in (_triton.has_triton, _triton.triton_hash_with_backend):
            function.cache_clear()
            stack.callback(function.cache_clear)
        target = make_backend(GPUTarget('cuda', 90, 32))
        stack.enter_context(patch.object(_triton, 'triton_backend', lambda: target))
        yield


def count_compiled(program: dict) -> int:
    """Kernels that a program of Inductor's launches, those of libraries and of ours included."""
    call = program['code'].partition('def call')[2]
    return len(re.findall(r'\.run\(|extern_kernels\.\w+\(|torch\.ops\.[\w.]+\.\w+\(', call))


def main() -> None:
    print('stage; kernels forward + backward (casts); MB read and written forward + backward')
    for stage, shape in enumerate(STAGES, 1):
        rows = {
            'eager, parameters cast one by one': count_eager(*shape, run=lambda f, x: f(x)),
            'eager': count_eager(*shape),
        }
        for name, passes in rows.items():
            kernels = ' + '.join(str(x.total()) for x in passes)
            casts = ' + '.join(str(x.casts()) for x in passes)
            megabytes = ' + '.join(f'{x.bytes / 1e6:,.0f}' for x in passes)
            print(f'{stage}  {name}: {kernels} ({casts}); {megabytes}')
        for name, options in {'': {}, ', combo kernels': dict(combo_kernels=True)}.items():
            programs = compile_for_gpu(*shape, **options)
            kernels = ' + '.join(str(count_compiled(x)) for x in programs)
            megabytes = ' + '.join(f'{x["bytes"] / 1e6:,.0f}' for x in programs)
            print(f'{stage}  compiled{name}: {kernels}; {megabytes}', flush=True)


if __name__ == '__main__':
    main()
