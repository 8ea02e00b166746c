"""`make demo` does what the README shows, and its exit code tells the truth."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import firmware
from rich.console import Console
from sekisho_tools import demo, imagefile


def run_demo(repo: Path) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join((str(repo / "tools"), str(repo / "host_sim")))
    return subprocess.run(
        [sys.executable, "-m", "sekisho_tools.demo"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )


def rows(text: str) -> list[tuple[str, str, str]]:
    """(mark, what, must be) of the lines of the last table."""
    return re.findall(r"^│ (.) │ (\S.*?) +│ (\S.*?) +│ ", text, re.MULTILINE)


@pytest.mark.requirement("UPE01", "UPE02", "UPE11", "UPE13", "UPE14")
def test_the_demo_does_what_the_readme_shows(repo: Path) -> None:
    firmware.path("v1.16")
    done = run_demo(repo)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = rows((repo / "README.md").read_text())
    assert len(shown) >= 12
    assert rows(done.stdout) == shown
    assert {mark for mark, _, _ in shown} == {"✔"}
    for number in ("bytes of .mpy", "peak heap", "flash operations", "fetched", "seconds"):
        assert number in done.stdout
    assert "genuine firmware bytes" in done.stdout


@pytest.fixture
def stage(tmp_path: Path) -> demo.Demo:
    firmware.path("v1.16")
    return demo.Demo(tmp_path, Console(quiet=True))


def test_one_line_that_is_not_as_it_must_be_fails_the_demo(stage: demo.Demo) -> None:
    stage.judge("a", "good", "good", True)
    assert demo.verdict(stage)
    stage.judge("b", "good", "bad", False)
    assert not demo.verdict(stage)


def test_a_device_that_takes_what_it_must_refuse_is_noticed(stage: demo.Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge looks at flash and console, not at what the scenario hoped for."""
    stage.home.mkdir(parents=True)
    monkeypatch.setattr(demo.Demo, "run", lambda *_, **__: demo.Seen([RESULT]))
    monkeypatch.setattr(demo.Demo, "world", lambda *_, **__: None)
    for slot, name, bootable, printed, good in (
        ("ota_0", "v1.15", ["ota_0"], "CLASS", True),
        ("ota_0", "v1.15", ["ota_0"], "VENDOR", False),
        ("ota_1", "v1.16", ["ota_0"], "CLASS", False),
        ("ota_0", "v1.15", ["ota_0", "ota_1"], "CLASS", False),
        (None, "nothing", [], "CLASS", False),
    ):
        RESULT.console = f"sekisho: {printed}\n"
        monkeypatch.setattr(demo.Demo, "slot_of_next_boot", lambda *_, answer=(slot, name): answer)
        monkeypatch.setattr(demo.Demo, "bootable", lambda *_, answer=bootable: answer)
        stage.refused("what", "CLASS", b"", b"")
        assert stage.lines[-1].good is good


RESULT = demo.RunResult("until", [], "", demo.bootloader.BootResult("ota_0", "ota_0", []), "ota_0", "v1.15")


def test_a_renamed_image_is_a_valid_other_image() -> None:
    app = imagefile.parse(firmware.read("v1.16"))
    other = imagefile.parse(demo.renamed(app.data, b"v1.16-", b"v1.17-"))
    assert other.micropython is not None
    assert other.micropython.startswith("v1.17-")
    assert other.digest != app.digest
    assert other.size == app.size
