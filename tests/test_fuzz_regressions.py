"""Inputs that once broke a parser, and where fuzzing starts, on CPython and on MicroPython with a heap of 100 KB."""

import inspect
import json
import re
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz"
sys.path.insert(0, str(FUZZ))

import fuzz  # noqa: E402
import run_all  # noqa: E402
import seeds  # noqa: E402
import targets  # noqa: E402
from sekisho import orders  # noqa: E402
from sekisho_boot import engine, reasons  # noqa: E402

NAMES = [*targets.TARGETS, *fuzz.DESK_TARGETS]
FOUND = sorted(path for path in seeds.REGRESSIONS.glob("*/*") if path.is_file())


@pytest.mark.requirement("ORG07")
@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_once_broke_a_parser_does_not_any_more(path: Path) -> None:
    fuzz.check(path.parent.name, path.read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_every_target_takes_its_seeds(name: str) -> None:
    for data in seeds.seeds(name):
        fuzz.check(name, data)


def test_the_device_that_boots_hostile_flash_has_the_key_set_of_the_tools() -> None:
    assert list(seeds._key_sets()) == [targets.Config.KEYSET]


def test_the_seeds_reach_what_lies_behind_signatures() -> None:
    """A target that refuses everything at the door would fuzz nothing."""
    for name in ("cbor", "suit", "manifest", "sequence", "cose", "keyset", "keyset_content", "image", "boot"):
        assert any(targets.run(name, data) == 0 for data in seeds.seeds(name)), name
    for name in ("severed", "install", "encryption", "order"):
        assert any(targets.run(name, data) == 0 for data in seeds.seeds(name)), name


def test_the_vectors_are_among_the_seeds(shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {bytes.fromhex(path.read_text()) for path in (shared_dir / "spec" / "suit-vectors").glob("*.hex")}
    assert len(found) > 90  # some are equal
    assert set(seeds.vectors()) == found
    for name in ("suit", "cbor", "desk", "severed", "cose_sign", "keyset"):
        assert found <= set(seeds.seeds(name)), name
    parts = {name: len(set(seeds.seeds(name))) for name in ("cose", "manifest", "sequence", "encryption")}
    monkeypatch.setattr(seeds, "vectors", lambda pattern="*": [])
    for name, with_vectors in parts.items():
        assert with_vectors > len(set(seeds.seeds(name))) + 5, name


@pytest.mark.requirement("ORG07")
@pytest.mark.invariant(8)
def test_hostile_bytes_on_micropython(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "CORPUS", tmp_path)
    monkeypatch.setattr(run_all, "REPLAYED", 60)
    for name in targets.TARGETS:
        (tmp_path / name).mkdir()
        for number, data in enumerate(seeds.seeds(name)):
            (tmp_path / name / str(number)).write_bytes(data)
    rows = [run_all.Row(name) for name in targets.TARGETS]
    run_all.replay(rows)
    assert [row.failures for row in rows] == [()] * len(rows)
    assert {row.replayed for row in rows} == {65}
    assert all(row.heap == run_all.HEAP + run_all.HARNESS.get(row.target, 0) for row in rows)


def test_what_the_order_target_puts_for_the_engine_is_what_the_engine_has() -> None:
    for right in ("RIGHT_ROLLBACK", "RIGHT_UNLOCK"):
        assert getattr(targets.Rights, right) == getattr(engine, right)
    source = inspect.getsource(orders)
    assert re.findall(r"engine\b.*", source.split("# Actions.")[0].split('"""')[2]) == [
        "engine import RIGHT_ROLLBACK, RIGHT_UNLOCK"
    ]


def test_a_target_that_breaks_is_on_the_page(tmp_path: Path) -> None:
    record = {"boot": "b" * 64, "commit": "c" * 12, "seconds": 9, "seconds_each": 1, "processes": 2, "vectors": 3}
    rows = [run_all.Row("suit", 1000, 605, 100, 12), run_all.Row("desk", 2000)]
    run_all.write(tmp_path, record, rows)
    page = (tmp_path / "fuzz.md").read_text()
    assert "Recorded for boot/ bbbbbbbbbbbbbbbb, commit cccccccccccc" in page
    assert "**2 targets, 3,000 inputs, 605 on MicroPython, 0 broke**; 9 seconds." in page
    assert "| suit | 1,000 | 605 | 100 | 12 |" in page
    assert "| desk | 2,000 | - | - | - |" in page
    assert json.loads((tmp_path / "fuzz.json").read_text())["boot"] == "b" * 64
    rows[1].failures = ("a trace",)
    run_all.write(tmp_path, record, rows)
    assert "**desk** broke:\n\n```\na trace\n```" in (tmp_path / "fuzz.md").read_text()
    assert "1 broke" in (tmp_path / "fuzz.md").read_text()


def test_a_replay_that_does_not_end_well_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that is not there, and a heap in which nothing can be loaded."""
    monkeypatch.setattr(fuzz, "CORPUS", tmp_path)
    monkeypatch.setattr(run_all, "REPLAYED", 2)
    rows = [run_all.Row("nowhere")]
    run_all.replay(rows)
    assert "KeyError" in rows[0].failures[0]
    monkeypatch.setattr(run_all, "HEAP", 16)
    rows = [run_all.Row("suit")]
    run_all.replay(rows)
    assert rows[0].failures
    assert rows[0].replayed == 0


def test_parameters_that_set_nothing_are_refused() -> None:
    """An `override-parameters {}` in a sequence that the engine takes without it."""
    taken = [data for data in seeds.seeds("sequence") if targets.run("sequence", data) == 0]
    empty = [bytes([data[0] + 2]) + data[1:] + b"\x14\xa0" for data in taken if 0x80 < data[0] < 0x96]
    assert empty
    for data in empty:
        assert targets.run("sequence", data) == reasons.PARAMETER
