"""Inputs that once broke a parser, and where fuzzing starts, on CPython and on MicroPython with a heap of 100 KB."""

import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz"
sys.path.insert(0, str(FUZZ))

import fuzz  # noqa: E402
import run_all  # noqa: E402
import seeds  # noqa: E402
import targets  # noqa: E402
from sekisho_boot import reasons  # noqa: E402

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
def test_hostile_bytes_on_micropython(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "CORPUS", tmp_path)
    monkeypatch.setattr(run_all, "REPLAYED", 60)
    for name in targets.TARGETS:
        (tmp_path / name).mkdir()
        for number, data in enumerate(seeds.seeds(name)):
            (tmp_path / name / str(number)).write_bytes(data)
    good, table = run_all.replay(list(targets.TARGETS))
    assert good, table
    assert table.count(" 0 failures") == len(targets.TARGETS)


def test_parameters_that_set_nothing_are_refused() -> None:
    """An `override-parameters {}` in a sequence that the engine takes without it."""
    taken = [data for data in seeds.seeds("sequence") if targets.run("sequence", data) == 0]
    empty = [bytes([data[0] + 2]) + data[1:] + b"\x14\xa0" for data in taken if 0x80 < data[0] < 0x96]
    assert empty
    for data in empty:
        assert targets.run("sequence", data) == reasons.PARAMETER
