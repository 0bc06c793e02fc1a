"""What the README shows runs as written, and the files it names are there."""

import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()
PYTHON = re.findall(r'```python\n(.*?)```', README, re.DOTALL)
DOCS = [f'docs/{path.name}' for path in sorted((ROOT / 'docs').glob('*.md'))]
PAGES = ['README.md', 'CONTRIBUTING.md', 'configs/biformer/README.md', *DOCS]


def test_there_are_examples() -> None:
    assert len(PYTHON) == 3


@pytest.mark.parametrize('code', [code for code in PYTHON if 'import' in code])
def test_python_example_runs(code, capsys) -> None:
    exec(code, {})
    printed = capsys.readouterr().out.strip()
    assert not printed or f'# {printed}' in code


def test_config_example_builds() -> None:
    (code,) = (code for code in PYTHON if 'import' not in code)
    backbone = Config.fromstring(code, '.py').model.backbone
    assert backbone.pop('_delete_')
    assert backbone.init_cfg.type == 'Pretrained'
    model = MODELS.build({**backbone, 'init_cfg': None})
    assert model.embed_dims == (64, 128, 256, 512)


@pytest.mark.parametrize('page', PAGES)
def test_files_that_pages_name_exist(page) -> None:
    text = (ROOT / page).read_text()
    links = [link for link in re.findall(r'\]\(([^)#]+)\)', text) if '://' not in link]
    paths = re.findall(r'\b((?:configs|tools|tests|requirements|mmbiformer)/[\w./-]+\.\w+)', text)
    for link in links:
        assert (ROOT / page).parent.joinpath(link).exists(), link
    for path in paths:
        assert (ROOT / path).exists(), path
    assert links or paths
