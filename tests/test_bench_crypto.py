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
    assert figures.keys() == set(bench.OURS) | set(bench.OURS.values())
    assert all(value > 0 for value in figures.values())
    bench.show("title", "microseconds", figures)
    assert "verify_unknown_key" in capsys.readouterr().out
