"""What is seen of a fleet of simulated devices: in a small terminal, in a large one, and at the end."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import ddi_sites
import pytest
from helpers.cli import Runner
from helpers.site import Product, firmware
from rich.console import Console
from sekisho_sim import fleet_view
from sekisho_sim.fleet import Member
from sekisho_tools import config
from sekisho_tools.fleet import Steps, publish_to, start_rollout
from sekisho_tools.serve import StaticServer

OLD, NEW = firmware("old", 60_000), firmware("new", 70_000)
REPO = Path(__file__).parents[1]


def say(member: Member, *lines: str) -> None:
    member.hear("".join(f"sekisho: {line}\r\n" for line in lines))


def fleet(number: int = 50) -> Any:
    members = [Member(f"sim-{n:03}", None) for n in range(1, number + 1)]  # type: ignore[arg-type]
    for at, member in enumerate(members[: number - 4]):
        member.starts = 1
        say(member, "fw slot 0, release 1", "NOTHING (nothing new)")
        if at in (3, 9):
            say(member, "fetched 65536 of 70464 bytes")
        if at in (11, 13, 15, 17, 18):
            say(member, "release 2 staged", "restarting")
        if at in (13, 15, 17, 18):
            say(member, "fw slot 1, release 2, on trial")
        if at in (15, 17, 18):
            say(member, "fw slot 0, release 1", "release 2 failed: HEALTH", "RETRY_LATER (release 2 failed before)")
    members[20].error = members[20].state = "OSError: something long to tell about a device that failed in its own way"
    return types.SimpleNamespace(members=members)


ROLLOUT = {
    "name": "lamps",
    "status": "paused",
    "statusReason": "3 of 5 devices of group canary failed or fell silent",
    "groups": [
        {"name": "canary", "status": "error", "totalTargetsPerStatus": {"error": 3, "running": 2, "finished": 0}},
        {"name": "group-1", "status": "scheduled", "totalTargetsPerStatus": {"scheduled": 23}},
        {"name": "group-2", "status": "scheduled", "totalTargetsPerStatus": {"scheduled": 22}},
    ],
}


def drawn(size: tuple[int, int], devices: int = 50) -> list[str]:
    console = Console(width=size[0], height=size[1], force_terminal=False)
    with console.capture() as capture:
        console.print(fleet_view.frame(fleet(devices), 75, size, ROLLOUT))
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize("devices", [1, 5, 50, 200])
@pytest.mark.parametrize("size", [(40, 16), (80, 24), (120, 50), (200, 100)])
def test_the_table_fits_every_terminal_and_leaves_no_device_out(size: tuple[int, int], devices: int) -> None:
    if devices < 25:
        fleet_of = [Member(f"sim-{n:03}", None) for n in range(devices)]  # type: ignore[arg-type]
        found = types.SimpleNamespace(members=fleet_of)
        console = Console(width=size[0], height=size[1], force_terminal=False)
        with console.capture() as capture:
            console.print(fleet_view.frame(found, 1, size, ROLLOUT))  # type: ignore[arg-type]
        lines = capture.get().splitlines()
        assert sum(line.startswith("sim-") for line in lines) == devices
        assert len(lines) < size[1]
        return
    lines = drawn(size, devices)
    assert len(lines) < size[1]
    assert max(map(len, lines)) <= size[0]
    signs = "".join(line for line in lines[1:8] if re.fullmatch(r"[-!TSvx+.]+", line))
    assert len(signs) == devices
    assert signs.startswith("...v.....v.S.T.x.xx.!.")
    named = [line for line in lines if line.startswith("sim-")]
    more = re.search(r"and (\d+) more", lines[-1])
    assert len(named) + (int(more[1]) if more else 0) == devices


def test_what_matters_comes_first_where_there_is_no_room_for_all() -> None:
    lines = drawn((80, 24))
    named = [line.split()[0] for line in lines if line.startswith("sim-")]
    assert named[:8] == [f"sim-{n:03}" for n in (21, 14, 12, 4, 10, 16, 18, 19)]
    assert lines[-1] == "... and 35 more: 31 runs, 4 off"
    words = " ".join(lines[:6])
    assert "! 1 fails  T 1 try 2  S 1 staged  v 2 fetching  x 3 back on 1  . 38 run 1  - 4 off" in words
    assert "rollout lamps: paused; canary: 3 error, 2 running; group-1: 23 scheduled" in words
    assert "fails           1       OSError: something long" in lines[7]
    assert "2 failed: HEALTH; RETRY_LATER" in lines[12]


def test_in_a_large_terminal_the_devices_stay_in_their_order() -> None:
    named = [line.split()[0] for line in drawn((120, 70)) if line.startswith("sim-")]
    assert named == [f"sim-{n:03}" for n in range(1, 51)]


def test_the_conclusion_says_how_the_bug_was_caught() -> None:
    assert fleet_view.conclusion(fleet(), ROLLOUT) == [
        "sim-021: OSError: something long to tell about a device that failed in its own way.",
        "45 of 50 run release 1.",
        "1 of 50 run release 2, 1 on trial.",
        "Release 2 was rolled back by 3 (HEALTH 3x): sim-016, sim-018, sim-019. 1 run it, 46 never took it.",
        "Rollout lamps is paused: 3 of 5 devices of group canary failed or fell silent.",
    ]


def test_a_roll_back_is_counted_once_however_often_the_device_tells_of_it() -> None:
    member = Member("sim-001", None)  # type: ignore[arg-type]
    for _ in range(2):
        say(member, "release 2 staged", "fw slot 1, release 2, on trial")
        for _ in range(3):
            say(member, "fw slot 0, release 1", "release 2 failed: HEALTH", "NOTHING (nothing new)")
    assert (member.rollbacks, member.refused, member.state) == (2, {2: "HEALTH"}, "rolled back")
    say(member, "release 2 staged", "fw slot 1, release 2, on trial", "confirmed")
    assert (member.rollbacks, member.refused, member.state) == (2, {}, "confirmed")


def files(product: Product, folder: Path) -> Path:
    (folder / "flash.bin").write_bytes(product.factory(OLD).flash_path.read_bytes())
    (folder / "flash.bin.config.py").write_text(config.render(product.device))
    return folder / "flash.bin"


@pytest.mark.requirement("UPD02")
def test_the_command_follows_a_rollout_and_says_how_the_bug_was_caught(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    product = Product(tmp_path)
    with ddi_sites.running("embedded", tmp_path / "server") as server:
        product.server = server.url
        server.call("PUT", "/system/configs/pollingTime", {"value": "00:00:30"})
        flash = files(product, tmp_path)
        (tmp_path / "faulty.bin").write_bytes(NEW)
        (tmp_path / "lamp-2.suit").write_bytes(product.release(2, NEW))

        def roll_out() -> None:
            end = time.monotonic() + 60
            while sum(bool(one.get("lastControllerRequestAt")) for one in server.api.everything("/targets")) < 5:
                assert time.monotonic() < end
                time.sleep(0.2)
            publish_to(server.api, [tmp_path / "lamp-2.suit", tmp_path / "faulty.bin"])
            start_rollout(server.api, "lamps", "lamp", "controllerId==sim-*", Steps(canary=40, groups=1, errors=0))

        operator = threading.Thread(target=roll_out)
        operator.start()
        monkeypatch.setenv("SEKISHO_PASSWORD", ddi_sites.PASSWORD)
        line = f"sim fleet {flash} -n 5 --server {server.url} --user admin --faulty {tmp_path}/faulty.bin"
        done = Runner(capsys, monkeypatch)(f"{line} --rollout lamps --speed 4 --seconds 120")
        operator.join()
    assert done.code == 0, done.err + done.out
    text = " ".join(done.out.split())
    back = re.search(r"Release 2 was rolled back by ([12]) \(HEALTH \1x\): sim-00\d.*?\. 0 run it, (\d) never", text)
    assert back, text
    assert int(back[1]) + int(back[2]) == 5
    assert "5 of 5 run release 1." in text
    assert re.search(r"Rollout lamps is paused: \d of 2 devices of group canary failed or fell silent\.", text)


def test_following_a_rollout_needs_an_operator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = Runner(capsys, monkeypatch)(f"sim fleet {tmp_path}/x.bin --server http://127.0.0.1:9 --rollout lamps")
    assert (done.code, done.error) == (1, "LOGIN")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda one: one.name)
def test_a_fleet_that_is_interrupted_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    """In a terminal of its own: the last table and the conclusion are printed, no process and no file stays."""
    product = Product(tmp_path)
    (tmp_path / "temporary").mkdir()
    with StaticServer(product.root) as server:
        product.server = server.url
        flash = files(product, tmp_path)
        command = ["sim", "fleet", str(flash), "-n", "3", "--server", server.url, "--until", "2"]
        mark = f"SEKISHO_TEST_MARK={tmp_path}"
        environment = os.environ | {
            "PYTHONPATH": f"{REPO}/tools:{REPO}/host_sim", "TMPDIR": str(tmp_path / "temporary"),
            "SEKISHO_TEST_MARK": str(tmp_path), "COLUMNS": "80", "LINES": "24", "TERM": "xterm",
        }  # fmt: skip
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "sekisho_tools", *command],
            stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
            # Whoever runs this in the background has SIGINT ignored, and children would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        os.close(theirs)
        text = read(ours, lambda text: "3 run 1" in text)
        made = list(Path("/dev/shm").glob(f"sekisho-sim-{process.pid}-*"))
        process.send_signal(number)
        text += read(ours, lambda _: False)
        code = process.wait(30)
        os.close(ours)
    assert "3 of 3 run release 1." in text
    assert code in (-signal.SIGINT, 130), text[-500:]
    assert "Traceback" not in text
    assert [path for path in made if path.exists()] == []
    assert list((tmp_path / "temporary").iterdir()) == []
    assert marked(mark) == []


def read(terminal: int, enough: Any) -> str:
    """What is printed, until that is *enough* or the terminal is closed."""
    text, end = "", time.monotonic() + 60
    while not enough(text):
        assert time.monotonic() < end, text[-1000:]
        if select.select([terminal], [], [], 1)[0]:
            try:
                data = os.read(terminal, 65536)
            except OSError:  # nobody holds the other end any more
                break
            text += data.decode(errors="replace")
    return text


def marked(mark: str) -> list[str]:
    """Processes with *mark* in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes().split(b"\0"):
                found.append((path.parent / "cmdline").read_text())
        except OSError:
            pass
    return found
