"""What killed simulators left in memory goes at the next start; what anybody still uses, or somebody else's, stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.cli import Runner
from sekisho_tools import leftovers

REPO = Path(__file__).parents[1]
SIMULATOR = """
import sys
from sekisho_sim.device import Machine
machine = Machine()
print(machine.directory, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def simulator() -> Iterator[subprocess.Popen[str]]:
    """A process with a simulator, which says where its files are."""
    environment = os.environ | {"PYTHONPATH": f"{REPO}/tools:{REPO}/host_sim"}
    process = subprocess.Popen(
        [sys.executable, "-c", SIMULATOR], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def dead() -> int:
    """The number of a process that is gone."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def left(base: Path, process: int, name: str = "abcdefg_") -> Path:
    """A directory like that of a simulator."""
    directory = base / f"sekisho-sim-{process}-{name}"
    directory.mkdir()
    (directory / "board.bin").write_bytes(bytes(100))
    for end in (".ask", ".answer"):
        os.mkfifo(directory / f"rpc{end}")
    return directory


def test_what_a_killed_simulator_left_goes_and_what_a_living_one_has_stays(simulator: subprocess.Popen[str]) -> None:
    assert simulator.stdout is not None
    directory = Path(simulator.stdout.readline().strip())
    assert directory.parent == leftovers.place()
    leftovers.sweep(leftovers.place())
    assert (directory / "board.bin").exists()
    simulator.send_signal(signal.SIGKILL)
    simulator.wait()
    assert directory.exists(), "nothing to sweep"
    leftovers.sweep(leftovers.place())
    assert not directory.exists()


@pytest.mark.parametrize("end", [".ask", ".answer"])
def test_files_that_a_process_of_another_container_holds_stay(tmp_path: Path, dead: int, end: str) -> None:
    """Its number says nothing here; so does that of a dead simulator whose device still runs."""
    directory = left(tmp_path, dead)
    held = os.open(directory / f"rpc{end}", os.O_RDWR | os.O_NONBLOCK)
    assert leftovers.sweep(tmp_path) == []
    assert directory.exists()
    os.close(held)
    assert leftovers.sweep(tmp_path) == [directory]


def test_a_simulator_that_is_just_being_made_stays(tmp_path: Path) -> None:
    directory = tmp_path / f"sekisho-sim-{os.getpid()}-abcdefgh"
    directory.mkdir()
    assert leftovers.sweep(tmp_path) == []
    assert directory.exists()


def test_what_is_not_a_simulators_or_not_ours_is_never_touched(
    tmp_path: Path, dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    base = tmp_path / "memory"
    base.mkdir()
    (base / f"sekisho-sim-{dead}-link0000").symlink_to(precious)
    (base / f"sekisho-sim-{dead}-file0000").touch()
    for name in (
        "sekisho-sim-0-abcdefgh",
        "sekisho-sim--1-abcdefgh",
        f"my-sekisho-sim-{dead}-a",
        f"sekisho-sim-{dead}",
    ):
        (base / name).mkdir()
    (base / f"sekisho-sim-{9_999_999_999}-abcdefgh").mkdir()
    before = sorted(base.iterdir())
    assert leftovers.sweep(base) == []
    assert sorted(base.iterdir()) == before
    assert (precious / "file").exists()
    directory = left(base, dead)
    monkeypatch.setattr(leftovers.os, "getuid", lambda: os.geteuid() + 1)
    assert leftovers.sweep(base) == []
    monkeypatch.undo()
    assert leftovers.sweep(base) == [directory]


def test_a_link_inside_is_removed_and_what_it_names_is_not(tmp_path: Path, dead: int) -> None:
    (tmp_path / "precious").touch()
    (left(tmp_path, dead) / "board.link").symlink_to(tmp_path / "precious")
    assert len(leftovers.sweep(tmp_path)) == 1
    assert (tmp_path / "precious").exists()


def test_one_sweep_removes_so_many_and_no_more(tmp_path: Path, dead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "REMOVED", 2)
    for number in range(3):
        left(tmp_path, dead, f"number{number}")
    assert [len(leftovers.sweep(tmp_path)) for _ in range(3)] == [2, 1, 0]
    assert leftovers.sweep(tmp_path / "missing") == []


def test_starting_the_simulator_sweeps(
    tmp_path: Path, dead: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "MEMORY", tmp_path)
    directory = left(tmp_path, dead)
    assert Runner(capsys, monkeypatch)(f"sim run {tmp_path}/missing.bin").error == "FILE"
    assert not directory.exists()
