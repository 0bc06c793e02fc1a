"""Addresses and model zoos are fetched by torch.hub and read as files are."""

import shutil
from contextlib import contextmanager

import pytest
import torch
from hostile_files import Call, Name, save
from mmengine.runner import CheckpointLoader, checkpoint

from mmbiformer.checkpoints import CheckpointError, schemes

WEIGHTS = {'backbone.x': torch.ones(1), 'head.x': torch.zeros(1)}
ZOOS = {
    'https://x.org/model.pth': 'https://x.org/model.pth',
    'http://x.org/a/model.pth?raw=1': 'http://x.org/a/model.pth?raw=1',
    'torchvision://resnet50': 'resnet50',
    'open-mmlab://detectron2/resnet50_caffe': 'resnet50',
    'openmmlab://resnet50_caffe': 'resnet50',
    'mmcls://resnet50_v1d': 'resnetv1d50',
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A torch.hub that has one file at every address; returns what was downloaded."""
    fetched = []

    def download(address, path, progress):
        fetched.append(address)
        shutil.copy(tmp_path / 'remote.pth', path)

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    return fetched


@pytest.mark.parametrize(('name', 'address'), ZOOS.items())
def test_addresses_and_zoos(name, address, hub, tmp_path):
    torch.save(dict(state_dict=WEIGHTS), tmp_path / 'remote.pth')
    for _ in range(2):  # the second time from the folder
        found = CheckpointLoader.load_checkpoint(name, 'cpu')['state_dict']
    assert len(hub) == 1 and address in hub[0]
    assert found.keys() == ({'x'} if name.startswith('mmcls') else WEIGHTS.keys())
    shutil.rmtree(tmp_path / 'hub')
    save(
        dict(state_dict=Call(Name('os.mkdir'), (str(tmp_path / 'harm'),))), tmp_path / 'remote.pth'
    )
    with pytest.raises(CheckpointError, match=r'asks for os\.mkdir'):
        CheckpointLoader.load_checkpoint(name, 'cpu')
    assert not (tmp_path / 'harm').exists()


@pytest.mark.parametrize('name', ['s3://x/y.pth', 'cluster:s3://x/y.pth', 'petrel://x/y.pth'])
def test_file_servers(name, tmp_path, monkeypatch):
    @contextmanager
    def get_local_path(filepath, backend_args):
        assert filepath == name and backend_args == dict(backend='petrel')
        yield str(tmp_path / 'local.pth')

    monkeypatch.setattr(schemes, 'get_local_path', get_local_path)
    torch.save(WEIGHTS, tmp_path / 'local.pth')
    assert CheckpointLoader.load_checkpoint(name).keys() == WEIGHTS.keys()


def test_a_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    torch.save(WEIGHTS, tmp_path / 'x.pth')
    assert CheckpointLoader.load_checkpoint('~/x.pth').keys() == WEIGHTS.keys()


def test_what_cannot_be_fetched(hub):
    with pytest.raises(CheckpointError, match=r"'https://x\.org/y\.pth' cannot be fetched: "):
        CheckpointLoader.load_checkpoint('https://x.org/y.pth')
    for name in ('torchvision://resnet51', 'open-mmlab://x', 'mmcls://x'):
        with pytest.raises(CheckpointError, match=f"'{name}': mmengine has no address of it"):
            CheckpointLoader.load_checkpoint(name)
    with pytest.raises(CheckpointError, match=r"'pavi://x': fetch the file and name its path"):
        CheckpointLoader.load_checkpoint('pavi://x')


def test_mmengines_own_loaders_are_not_asked(tmp_path, monkeypatch):
    """OpenMMLab's last mmengine cannot load what it saved itself on torch 2.6 and later."""

    def fail(*_, **__):
        raise RuntimeError('Weights only load failed')

    monkeypatch.setattr(checkpoint, '_safe_torch_load', fail, raising=False)
    monkeypatch.setattr(checkpoint, 'load_url', fail)
    torch.save(dict(state_dict=WEIGHTS), tmp_path / 'x.pth')
    model = torch.nn.ModuleDict(dict(head=torch.nn.LayerNorm(1)))
    loaded = checkpoint.load_checkpoint(model, str(tmp_path / 'x.pth'))
    assert loaded['state_dict'].keys() == WEIGHTS.keys()
