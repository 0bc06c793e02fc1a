"""Damaged checkpoints are found, whether or not they have a manifest."""

import random
import subprocess

import pytest
import torch

from mmbiformer.checkpoints import check_digest, find_damage, remove_checkpoint, write_checkpoint
from mmbiformer.errors import UserError


@pytest.fixture
def path(tmp_path):
    """A checkpoint of 4 kB with a manifest."""
    torch.save({'state_dict': {'x': torch.rand(1000)}}, tmp_path / 'epoch_1.pth')
    content = (tmp_path / 'epoch_1.pth').read_bytes()
    write_checkpoint(content, tmp_path / 'epoch_1.pth')
    return tmp_path / 'epoch_1.pth'


def test_manifests_are_those_of_sha256sum(path):
    manifest = path.with_name('epoch_1.pth.sha256')
    for _ in range(2):  # written, then replaced
        sums = subprocess.run(
            ['sha256sum', path.name], cwd=path.parent, capture_output=True, text=True
        )
        assert manifest.read_text() == sums.stdout
        write_checkpoint(b'another', path)
    remove_checkpoint(path)
    assert not [*path.parent.iterdir()]


def test_every_truncation_and_flip_is_found_by_the_manifest(path):
    content, rng = path.read_bytes(), random.Random(0)
    for _ in range(50):
        path.write_bytes(content[: rng.randrange(len(content))])
        assert 'truncated' in find_damage(path)
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        assert find_damage(path).endswith('its SHA-256 is not the one in epoch_1.pth.sha256')
        with pytest.raises(UserError, match=r"epoch_1\.pth' is damaged: .*take another"):
            check_digest(path)
    path.write_bytes(content)
    assert find_damage(path) is None
    check_digest(path)


def test_without_a_manifest_the_archive_is_checked(path):
    content = path.read_bytes()
    path.with_name('epoch_1.pth.sha256').unlink()
    assert find_damage(path) is None
    path.write_bytes(content[:-1])
    assert find_damage(path) == (
        'is truncated, or no checkpoint of torch 1.6 or later, and has no manifest'
    )
    check_digest(path)  # knows nothing against it
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1  # in the tensor
    path.write_bytes(flipped)
    assert "the checksum of 'epoch_1/data/0' in it is wrong" in find_damage(path)
    path.write_bytes(b'')
    assert 'truncated' in find_damage(path)
    path.unlink()
    assert find_damage(path) == 'is not there'


@pytest.mark.parametrize('has_manifest', [True, False])
@pytest.mark.parametrize(
    ('signature', 'offset', 'value'),
    [
        (b'PK\x06\x07', 16, 2),  # the archive has a second disk
        (b'PK\x01\x02', 8, 1),  # a record is encrypted
        (b'PK\x01\x02', 10, 99),  # or compressed in some unknown way
        (b'PK\x03\x04', 30, 0xFF),  # or has a name that is no text
    ],
)
def test_flips_that_zipfile_stumbles_over(path, signature, offset, value, has_manifest):
    content = bytearray(path.read_bytes())
    content[content.index(signature) + offset] = value
    path.write_bytes(content)
    if not has_manifest:
        path.with_name('epoch_1.pth.sha256').unlink()
    assert ('SHA-256' if has_manifest else 'manifest') in find_damage(path)


@pytest.mark.parametrize('text', ['', 'no digest at all', '\n\n'])
def test_a_broken_manifest_vouches_for_nothing(path, text):
    path.with_name('epoch_1.pth.sha256').write_text(text)
    assert 'its SHA-256 is not the one in' in find_damage(path)


def test_between_two_versions_either_verifies(path, monkeypatch):
    """Killed before and after the new file takes the name, without and with the old manifest."""
    import os

    old, new = path.read_bytes(), b'new content'
    replace = os.replace
    for has_manifest in (True, False):
        path.write_bytes(old)
        write_checkpoint(old, path)
        if not has_manifest:
            path.with_name('epoch_1.pth.sha256').unlink()

        def stop(source, target):
            if str(target) == str(path):
                assert find_damage(path) is None and path.read_bytes() == old
                replace(source, target)
                assert find_damage(path) != 'is not there' and path.read_bytes() == new
                assert 'SHA-256' not in (find_damage(path) or '')
                raise KeyboardInterrupt
            replace(source, target)

        monkeypatch.setattr(os, 'replace', stop)
        with pytest.raises(KeyboardInterrupt):
            write_checkpoint(new, path)
        monkeypatch.undo()
        check_digest(path)
