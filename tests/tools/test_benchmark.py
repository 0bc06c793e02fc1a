"""The benchmark as a user runs it: tables, files, and errors of one line."""

import json

import pytest
import torch
from toolbox import run_tool

from mmbiformer.benchmark import groups

TINY = ('--repeats', 1, '--device', 'cpu')


@pytest.fixture
def run(tmp_path, capsys):
    """Run the tool; returns what it printed and what it wrote as JSON."""

    def run(*args: object) -> tuple[str, dict]:
        arch = () if {'plugin', 'ablation'} & set(args) else ('--arch', 't')
        run_tool('benchmark', *args, *arch, *TINY, '--out-dir', tmp_path)
        (path,) = tmp_path.glob('*.json')
        return capsys.readouterr().out, json.loads(path.read_text())

    return run


def assert_is_picture(folder) -> None:
    (path,) = folder.glob('*.png')
    assert path.read_bytes().startswith(b'\x89PNG')
    assert path.stat().st_size > 10_000


def test_backbone(run, tmp_path) -> None:
    models = ('official-style', 'reference')
    out, content = run('--size', '32x48', '--models', *models)
    assert 'benchmark-only twin of the official implementation' in out
    for mode in ('inference', 'training'):
        assert f'backbone, {mode}, 32x48, BiFormer-T with S=4, batch 1, fp32' in out
    assert 'n/a' not in out
    inference, training = content['groups']
    for rows, mode in ((inference, 'inference'), (training, 'training')):
        assert [row['case']['model'] for row in rows] == list(models)
        for row in rows:
            assert row['case']['mode'] == mode
            assert len(row['samples']) == 1
            assert row['seconds'] == row['samples'][0] > 0
            assert row['peak_bytes'] > 0
            assert (row['saved_bytes'] is None) == (mode == 'inference')
    assert training[0]['flops'] == 3 * inference[0]['flops']
    assert min(content['matmul_gflops']) > 0
    assert {'machine', 'code', 'torch', 'threads', 'date', 'command'} <= content[
        'environment'
    ].keys()
    assert_is_picture(tmp_path)


@torch._dynamo.config.patch(disable=True)
def test_compiled_and_as_a_cuda_graph(run, tmp_path, monkeypatch) -> None:
    """Without a GPU the graphs are named as not run; what compiling gives has tests of its own."""
    # It is measured in another process, which would compile.
    monkeypatch.setattr(groups, 'peak_bytes', lambda *args: 1)
    options = ('--size', '32', '--models', 'chunked', '--mode', 'training')
    out, content = run(*options, '--compile', '--cuda-graph')
    (rows,) = content['groups']
    ways = [(row['case']['compiled'], row['case']['graph']) for row in rows]
    assert ways == [(False, False), (True, False), (False, True), (True, True)]
    assert [len(row['samples']) for row in rows] == [1, 1, 0, 0]
    for name in ('chunked, CUDA graph', 'chunked, compiled, CUDA graph'):
        assert f'{name}: n/a: not run: a CUDA graph needs a CUDA GPU' in out
    assert 'how long a GPU waits for them: not run, as a CUDA GPU alone has them' in out
    assert 'floor of all routed attention in bf16 on one H100, worked out and not measured' in out
    assert_is_picture(tmp_path)


def test_op(run, tmp_path) -> None:
    models = ('--models', 'official-style', 'reference', 'chunked')
    options = ('--size', '64', '--mode', 'training', '--amp', 'bf16')
    out, content = run('--level', 'op', *models, *options)
    assert [rows[0]['case']['stage'] for rows in content['groups']] == [0, 1, 2]
    assert 'op, attention of stage 3, training, 64x64' in out
    assert_is_picture(tmp_path)


@pytest.mark.parametrize(
    ('model', 'mode'), [('official-style', 'training'), ('swin-t', 'inference')]
)
def test_detector(run, tmp_path, model, mode) -> None:
    options = ('--size', '64', '--models', model, '--mode', mode)
    _, content = run('--level', 'detector', *options)
    ((row,),) = content['groups']
    assert row['samples'] and row['flops'] and row['peak_bytes'] and not row['problems']
    assert_is_picture(tmp_path)


def test_plugin(run, tmp_path) -> None:
    models = ['yolox-s', 'bra-p3-tutorial-style', 'bra-p3']
    options = ('--size', '64', '--models', *models, '--mode', 'inference', '--deterministic')
    out, content = run('--level', 'plugin', *options)
    assert 'plugin, inference, 64x64, YOLOX-s, batch 1, fp32, deterministic algorithms' in out
    (rows,) = content['groups']
    assert [row['case']['model'] for row in rows] == models
    assert all(row['samples'] and row['flops'] and not row['problems'] for row in rows)
    plain, tutorial, ours = (row['parameters'] for row in rows)
    # Weights and biases of qkv, projection and the 3 x 3 local context.
    assert tutorial == ours == plain + 4 * 128 * (128 + 1) + 128 * (9 + 1)
    assert '/ YOLOX-s' in out
    assert_is_picture(tmp_path)


def test_ablation(run, tmp_path) -> None:
    models = ['sliding_window', 'shifted_window', 'conv-position']
    tiny = ('--size', '64', '--mode', 'inference', '--models', *models)
    out, content = run('--level', 'ablation', *tiny)
    assert "ablation, inference, 64x64, Swin-T's layout, S=4, batch 1, fp32" in out
    (rows,) = content['groups']
    assert [row['case']['model'] for row in rows] == models
    assert all(row['samples'] and row['flops'] and not row['problems'] for row in rows)
    assert [round(row['parameters'] / 1e6, 1) for row in rows] == [19.7, 27.5, 25.0]
    assert '/ shifted' in out
    assert_is_picture(tmp_path)


def test_cloformer_and_mobilenet_are_rows_beside_biformer(run) -> None:
    models = ['chunked', 'mobilenet-v2', 'cloformer-xxs-official-style', 'cloformer-xxs']
    _, content = run('--size', '64', '--models', *models, '--mode', 'training')
    (rows,) = content['groups']
    assert [row['case']['model'] for row in rows] == models
    assert all(row['samples'] and not row['problems'] for row in rows)
    twin, ours = rows[2:]
    assert twin['flops'] == ours['flops'] > 0
    assert twin['parameters'] == ours['parameters']


def test_growth(run, tmp_path) -> None:
    out, content = run('--level', 'growth', '--size', '32', '64', '--models', 'reference')
    assert "attention, paper's limit" in out
    assert len(content['points']) == 12
    assert_is_picture(tmp_path)


def test_advice(run) -> None:
    out, content = run('--level', 'advice', '--size', '800x1344')
    assert content['advice'][0]['recommended'] == 17
    assert 'x1.46' in out
    assert 'backbone ms' not in out


def test_advice_with_times(run) -> None:
    out, content = run('--level', 'advice', '--size', '64', '--measure')
    assert 'backbone ms' in out
    assert all(seconds > 0 for seconds in content['advice'][0]['seconds'].values())


WRONG = {
    'level': (['--level', 'layer'], "'layer' (choose from"),
    'size': (['--size', '512x'], "'512x' is no size: write 512 or 800x1344"),
    'size 0': (['--size', '0x512'], "'0x512' is no size"),
    'repeats': (['--repeats', '0'], "'0' is no number from 1 on"),
    'unknown option': (['--sizes', '512', '--fast'], '--fast'),
    'model': (['--models', 'vit'], "level 'backbone' has no 'vit': choose from official-style"),
    'rival of the op': (['--level', 'op', '--models', 'swin-t'], "level 'op' has no 'swin-t'"),
    'two backends': (
        ['--level', 'growth', '--models', 'reference', 'reference'],
        'level growth takes one backend of',
    ),
    'one size': (['--level', 'growth', '--size', '512'], 'needs two sizes or more'),
    'mode': (['--level', 'advice', '--mode', 'training'], 'leave out --mode'),
    'architecture of YOLOX-s': (
        ['--level', 'plugin', '--arch', 's'],
        '--level plugin is YOLOX-s with S=7: leave out --partition-factor and --arch',
    ),
    'architecture of Swin-T': (
        ['--level', 'ablation', '--arch', 's'],
        "--level ablation is of Swin-T's size: leave out --arch",
    ),
    'compile': (
        ['--level', 'detector', '--compile'],
        'go with --level backbone, not with detector',
    ),
    'measure': (['--measure'], '--measure goes with --level advice, not with backbone'),
}


@pytest.mark.parametrize(('args', 'message'), WRONG.values(), ids=WRONG)
def test_wrong_options_end_in_one_line(args, message, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        run_tool('benchmark', *args)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ')
    assert message in line
