"""`make bench-check`: a figure that got worse fails, one that could not be measured does not."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    path = Path(__file__).parents[1] / "scripts" / "bench.py"
    spec = importlib.util.spec_from_file_location("engine_bench", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_figure_has_a_recorded_one(bench: ModuleType) -> None:
    assert set(bench.FIGURES) <= set(json.loads(bench.RECORDED.read_text()))


def test_a_figure_that_is_worse_than_recorded_is_named(bench: ModuleType) -> None:
    recorded = json.loads(bench.RECORDED.read_text())
    assert bench.worse(recorded, recorded) == []
    for name, (words, _) in bench.FIGURES.items():
        tolerance = bench.TOLERANCE.get(name, bench.OTHERS)
        assert bench.worse({**recorded, name: int(recorded[name] * tolerance)}, recorded) == []
        (said,) = bench.worse({**recorded, name: int(recorded[name] * tolerance) + 1}, recorded)
        assert said.startswith(words)


def test_without_valgrind_the_other_figures_are_compared_all_the_same(bench: ModuleType) -> None:
    recorded = json.loads(bench.RECORDED.read_text())
    without = {name: value for name, value in recorded.items() if name not in ("boot", "bodies", "hash")}
    assert bench.worse(without, recorded) == []
    assert len(bench.worse({**without, "mpy": 2 * without["mpy"]}, recorded)) == 1


def test_a_budget_that_is_missed_is_said(bench: ModuleType) -> None:
    assert bench.over_budget({"mpy": bench.MPY_BUDGET, "heap": bench.HEAP_BUDGET}) == []
    assert len(bench.over_budget({"mpy": bench.MPY_BUDGET + 1, "heap": bench.HEAP_BUDGET + 1})) == 2
