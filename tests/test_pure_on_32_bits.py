"""The tests of tests/pure once more, with 31-bit small integers and 16-bit digits as on a chip."""

from pathlib import Path

import mp32
import pytest
from sekisho_tools import device_code

FILES = sorted((Path(__file__).parent / "pure").glob("test_*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_on_the_32_bit_build(file: Path) -> None:
    mp32.require()
    assert mp32.run_pure(file, [device_code.BOOT, device_code.LIB]).splitlines()[-1].endswith(" 0 failed")


def test_a_program_that_raises_is_noticed() -> None:
    mp32.require()
    with pytest.raises(AssertionError, match="ValueError"):
        mp32.run("raise ValueError(5)", [])


def test_the_build_has_a_chips_integers() -> None:
    mp32.require()
    assert mp32.run("import sys; print(sys.maxsize, sys.implementation.version[:2])", []) == "2147483647 (1, 26)\n"


def test_missing_node_is_an_error_only_where_ci_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mp32, "missing", lambda: "no Node")
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="CI is set"):
        mp32.require()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="no Node"):
        mp32.require()
