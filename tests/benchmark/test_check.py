"""Level check: right backends pass, and wrong ones are found."""

import json
from dataclasses import replace

import pytest
import torch

from mmbiformer.benchmark import check
from mmbiformer.benchmark.cases import Case
from mmbiformer.benchmark.main import main
from mmbiformer.errors import UserError
from mmbiformer.ops import BACKENDS

CASE = Case('op', 'chunked', 'training', 't', (224, 200), 7, 1, 'cpu', 'fp32')


def run(tmp_path, *options: str) -> dict:
    main('', '', ['--level', 'check', '--size', '64', '--out-dir', str(tmp_path), *options])


def content(tmp_path) -> list[dict]:
    (path,) = tmp_path.glob('check_*.json')
    return json.loads(path.read_text())['checks']


def wrong(monkeypatch, part: int, factor: float) -> None:
    """One gradient of 'chunked' is off in the precisions that are checked."""
    right = BACKENDS['chunked']

    def backward(grad_out, inputs, *kept):
        grads = list(right.backward(grad_out, inputs, *kept))
        if grad_out.dtype != torch.float64:
            grads[part] = grads[part] * factor
        return tuple(grads)

    monkeypatch.setitem(BACKENDS, 'chunked', right._replace(backward=backward))


def test_a_right_backend_passes_in_all_stages_precisions_and_paddings(tmp_path, capsys):
    run(tmp_path, '--models', 'chunked', '--arch', 't')
    (checked,) = content(tmp_path)
    assert [x['outcome'] for x in checked['verdicts']] == ['passed'] * 3 * 3 * 2
    assert all(0 < x['error'] <= x['allowed'] for x in checked['verdicts'])
    assert "'chunked', BiFormer-T with S=4, 64x64" in capsys.readouterr().out


@pytest.mark.parametrize(
    ('part', 'factor', 'name', 'error'),
    [
        (0, 1.001, 'gradient of q', 1e-3),
        (2, float('nan'), 'gradient of v', float('inf')),
        (4, 2.0, 'gradient of pad_value', 1.0),
    ],
    ids=['a little', 'nan', 'pad'],
)
def test_a_wrong_result_is_found(monkeypatch, part, factor, name, error):
    wrong(monkeypatch, part, factor)
    verdict = next(check.check_stages(CASE, ['fp32']))
    assert (verdict.outcome, verdict.worst) == ('FAILED', name)
    assert verdict.error == pytest.approx(error, rel=0.01)


def test_a_wrong_backend_ends_with_code_1(monkeypatch, tmp_path, capsys):
    wrong(monkeypatch, 1, 1.5)
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, '--models', 'chunked', '--arch', 't', '--amp', 'bf16')
    assert ended.value.code == 1
    assert 'FAILED' in capsys.readouterr().out
    assert content(tmp_path)[0]['verdicts'][0]['worst'] == 'gradient of k'


def test_what_cannot_run_is_not_passed(tmp_path, monkeypatch, capsys):
    row = BACKENDS['triton']._replace(problem=lambda inputs: 'there is no GPU')
    monkeypatch.setitem(BACKENDS, 'triton', row)
    with pytest.raises(SystemExit):
        run(tmp_path, '--arch', 't')
    text = capsys.readouterr().out
    assert 'not run' in text and 'passed' not in text
    assert text.count("backend 'triton' cannot run: there is no GPU; take 'chunked'") == 1


def test_the_check_of_first_use_is_made_anew(monkeypatch):
    setups = []
    monkeypatch.setattr(check, 'try_apart', lambda setup: setups.append(setup) or 'it is off')
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: 1)
    outcomes = check.first_use(CASE, ['bf16'])
    assert outcomes == dict.fromkeys(
        ('bf16, official padding', 'bf16, masked padding'), 'it is off'
    )
    assert setups[0] == ('cpu:1', 'bfloat16', 32, 7, True)
    assert setups[1] == setups[0]._replace(has_pads=False)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            ['--models', 'swin-t'],
            '--models swin-t: level check takes backends: choose from refere',
        ),
        (['--mode', 'training'], '--level check is about forward and backward: leave out --mode'),
    ],
    ids=['models', 'mode'],
)
def test_options_that_do_not_fit(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        run(tmp_path, *options)


def test_padding_is_that_of_the_map():
    verdicts = list(check.check_stages(replace(CASE, size=(230, 200)), ['fp32']))
    assert {x.padding for x in verdicts} == {'official', 'masked'}
    assert [x.outcome for x in verdicts] == ['passed'] * 6
