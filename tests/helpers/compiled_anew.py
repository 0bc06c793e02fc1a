"""A library that is compiled into a folder of its own, of sources that a test may change."""

import shutil
from pathlib import Path

import pytest

from mmbiformer.cpp import compiler, depthwise_conv, gelu
from mmbiformer.ops import cpp_backend

REMEMBERED = compiler.load, cpp_backend.fault, depthwise_conv.fault, gelu.fault


class Anew:
    """The folder and the sources."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch

    def libraries(self) -> list[Path]:
        """What was compiled and kept."""
        return [*self.folder.rglob('*.so')]

    def change(self, source: str, right: str, wrong: str) -> None:
        """Compile a changed source."""
        sources = self.folder / 'sources'
        shutil.copytree(compiler.FOLDER, sources)
        text = (sources / source).read_text()
        assert text.count(right) == 1
        (sources / source).write_text(text.replace(right, wrong))
        self.monkeypatch.setattr(compiler, 'FOLDER', sources)
        forget()


def forget() -> None:
    """Have the next call compile, or load what was compiled."""
    for function in REMEMBERED:
        function.cache_clear()
