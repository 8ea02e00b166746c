"""The crypto benchmark runs, and its textbook agrees with what it is compared with."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def bench(repo: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_crypto", repo / "bench" / "bench_crypto.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_figure_has_a_textbook_beside_it(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    figures = bench.on_unix(32, rounds=1)
    assert figures.keys() == {"verify_unknown_key", "verify_recent_key", "sign", "sha512_block"}
    assert all(figure.ours > 0 and figure.textbook > 0 and figure.ratio > 0 for figure in figures.values())
    bench.show("title", "microseconds", figures)
    assert "verify_unknown_key" in capsys.readouterr().out
