"""What README and docs/export.md show runs as written, and the files that pages name are there."""

import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

from mmbiformer import BiFormer

ROOT = Path(__file__).parents[1]


def python_blocks(page: str) -> list[str]:
    return re.findall(r'```python\n(.*?)```', (ROOT / page).read_text(), re.DOTALL)


PYTHON = python_blocks('README.md')
DOCS = [f'docs/{path.name}' for path in sorted((ROOT / 'docs').glob('*.md'))]
FOLDERS = [
    'configs/biformer/README.md',
    'configs/cloformer/README.md',
    'mmbiformer/evaluation/README.md',
]
PAGES = ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'SECURITY.md', *FOLDERS, *DOCS]


def test_there_are_examples() -> None:
    assert len(PYTHON) == 5


@pytest.mark.parametrize('code', [code for code in PYTHON if 'import' in code])
def test_python_example_runs(code, capsys) -> None:
    exec(code, {})
    printed = capsys.readouterr().out.strip()
    assert not printed or f'# {printed}' in code


def test_export_example_runs(monkeypatch, tmp_path, capsys) -> None:
    """With one block per stage, of which one routes: the export of BiFormer-T takes minutes."""
    small = dict(depths=(1, 1, 1, 1), topks=(4, None, None, None))
    monkeypatch.setitem(
        BiFormer.arch_settings, 'tiny', {**BiFormer.arch_settings['tiny'], **small}
    )
    monkeypatch.chdir(tmp_path)
    code = '\n'.join(python_blocks('docs/export.md'))
    exec(code, {})
    assert f'# {capsys.readouterr().out.strip()}\n' in code
    assert {path.name for path in tmp_path.iterdir()} == {'biformer.pt2', 'biformer.onnx'}


def test_config_example_builds() -> None:
    code, _ = (code for code in PYTHON if 'import' not in code)
    backbone = Config.fromstring(code, '.py').model.backbone
    assert backbone.pop('_delete_')
    assert backbone.init_cfg.type == 'Pretrained'
    model = MODELS.build({**backbone, 'init_cfg': None})
    assert model.embed_dims == (64, 128, 256, 512)


PLUGINS = [*PYTHON, *python_blocks('docs/plugin.md')]


def test_plugin_examples_are_the_shipped_config(tmp_path) -> None:
    examples = [code for code in PLUGINS if 'AttentionNeck' in code]
    assert len(examples) == 2
    shipped = Config.fromfile(ROOT / 'configs/plugin/yolox-s_bra-p3_8xb8-300e_coco.py')
    for number, code in enumerate(examples):
        code = code.replace("'configs/", f"'{ROOT}/configs/")
        path = tmp_path / f'example_{number}.py'
        path.write_text(code)
        assert Config.fromfile(path).model == shipped.model


def test_plugin_example_runs() -> None:
    (code,) = (code for code in python_blocks('docs/plugin.md') if 'import' in code)
    names: dict = {}
    exec(code, names)
    assert names['x'].shape == (1, 64, 80, 80)


@pytest.mark.parametrize('page', PAGES)
def test_files_that_pages_name_exist(page) -> None:
    text = (ROOT / page).read_text()
    links = [link for link in re.findall(r'\]\(([^)#]+)\)', text) if '://' not in link]
    paths = re.findall(r'\b((?:configs|tools|tests|requirements|mmbiformer)/[\w./-]+\.\w+)', text)
    for link in links:
        assert (ROOT / page).parent.joinpath(link).exists(), link
    for path in paths:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize('page', PAGES)
def test_prose_wraps_at_100_columns(page) -> None:
    prose = re.sub(r'(?s)```.*?```', '', (ROOT / page).read_text())
    tables_and_quotes = '|', '>', '    '
    long = [x for x in prose.splitlines() if len(x) > 100 and not x.startswith(tables_and_quotes)]
    assert not long


def test_layout_in_the_readme_lists_every_room() -> None:
    rooms = {x.parent.name for x in (ROOT / 'mmbiformer').glob('*/__init__.py')}
    assert rooms == set(re.findall(r'(?m)^mmbiformer/(\w+)/ ', (ROOT / 'README.md').read_text()))
