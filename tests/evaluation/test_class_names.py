"""Names of classes from a text file or a data YAML."""

import pytest

from mmbiformer.errors import UserError
from mmbiformer.evaluation.class_names import read_names


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('names.txt', '\ufeffcar\n\n  small bus \nbike'),
        ('data.yaml', 'path: x\nnames: [car, small bus, bike]\n'),
        ('data.yml', 'nc: 3\nnames:\n  0: car\n  2: bike\n  1: small bus\n'),
    ],
)
def test_names(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding='utf-8')
    assert read_names(path) == ['car', 'small bus', 'bike']


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('names.txt', b' \n', "names.txt' has no names: write one per line"),
        ('names.txt', b'\xff\xfe\x00', "names.txt' cannot be read: .*utf-8"),
        ('names.txt', None, "names.txt' cannot be read: "),
        ('data.yaml', b'nc: 3', "data.yaml' has no names: a data YAML lists them under 'names'"),
        ('data.yaml', b'- a', "data.yaml' has no names"),
        ('data.yaml', b'names: []', "data.yaml' has no names"),
        ('data.yaml', b'names: {1: a, 2: b}', 'or numbers them there from 0 on'),
        ('data.yaml', b'names: [a', "data.yaml' is not valid YAML"),
    ],
)
def test_files_without_names(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_names(tmp_path / name)
