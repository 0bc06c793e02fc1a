"""What is taken out of a config on a machine without an accelerator is said."""

import pytest
from mmengine.config import Config

from mmbiformer.engine import device
from mmbiformer.errors import UserError


@pytest.fixture
def on(monkeypatch):
    def be_on(name: str, units: tuple[str, ...] = ()) -> None:
        monkeypatch.setattr(device, 'get_device', lambda: name)
        monkeypatch.setattr(device, 'bf16_units', lambda: list(units))

    return be_on


def config() -> Config:
    return Config(
        dict(
            optim_wrapper=dict(type='AmpOptimWrapper', loss_scale='dynamic', dtype='bfloat16'),
            sync_bn='torch',
        )
    )


def test_cpu_runs_in_float32_and_says_so(on) -> None:
    on('cpu')
    cfg = config()
    notices = device.fit_to_device(cfg, 'none')
    assert cfg.optim_wrapper == dict(type='OptimWrapper')
    assert cfg.sync_bn is None
    assert [notice.split()[0] for notice in notices] == ['AMP', 'SyncBN']


def test_a_cpu_with_units_for_bfloat16_runs_in_it_and_says_so(on) -> None:
    on('cpu', ('avx512_bf16', 'amx_bf16'))
    cfg = config()
    notices = device.fit_to_device(cfg, 'none')
    assert cfg.optim_wrapper == dict(type='mmbiformer.CPUAmpOptimWrapper')
    assert notices[0] == 'AMP is in bfloat16 on this CPU, which has avx512_bf16, amx_bf16'


def test_one_gpu_keeps_amp_and_turns_sync_bn_into_bn(on) -> None:
    on('cuda')
    cfg = config()
    (notice,) = device.fit_to_device(cfg, 'none')
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.sync_bn is None
    assert notice.startswith('SyncBN becomes BN')


def test_many_gpus_keep_both(on, monkeypatch) -> None:
    on('cuda')
    cfg = config()
    monkeypatch.setenv('RANK', '0')
    assert device.fit_to_device(cfg, 'pytorch') == []
    assert cfg.to_dict() == config().to_dict()


@pytest.mark.parametrize(
    ('launcher', 'machine', 'message'),
    [('slurm', 'cpu', 'slurm needs GPUs'), ('pytorch', 'cuda', 'needs torchrun')],
)
def test_launcher_that_cannot_work_here(on, monkeypatch, launcher, machine, message) -> None:
    monkeypatch.delenv('RANK', raising=False)
    on(machine)
    with pytest.raises(UserError, match=message):
        device.fit_to_device(config(), launcher)


def test_asking_for_amp_on_a_cpu_without_units_for_it_is_an_error(on) -> None:
    on('cpu')
    with pytest.raises(UserError, match='--amp needs an accelerator'):
        device.set_amp(config())


@pytest.mark.parametrize('where', [('cuda', ()), ('cpu', ('amx_bf16',))])
def test_asking_for_amp(on, where) -> None:
    on(*where)
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper')))
    device.set_amp(cfg)
    assert cfg.optim_wrapper == dict(type='AmpOptimWrapper', loss_scale='dynamic')
