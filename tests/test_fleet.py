"""Many simulated devices against one server: an update, and one with a planted bug."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import ddi_sites
import pytest
from helpers.cli import Runner
from helpers.site import VENDOR, Product, firmware
from sekisho_sim.fleet import Fleet
from sekisho_sim.world import World
from sekisho_tools import config
from sekisho_tools.identity import device_id
from sekisho_tools.serve import StaticServer
from test_group_lock import free_ports

OLD, NEW = firmware("old", 60_000), firmware("new", 70_000)
BREAKS = "import sekisho\nsekisho.on_health(lambda: False)\nasync def main():\n    pass\n"


def flash(product: Product) -> bytes:
    return product.factory(OLD).flash_path.read_bytes()


def settings(product: Product, **more: object) -> dict[str, object]:
    return {"server": product.server, "wifi": [["sekisho", "sekisho-lab"]], "poll": 30} | more


def test_a_release_with_a_bug_is_rolled_back_by_every_device_that_took_it(tmp_path: Path) -> None:
    product = Product(tmp_path)
    with StaticServer(product.root) as server:
        product.server = server.url
        image = flash(product)
        product.offer(2, NEW, application=BREAKS)
        with Fleet(tmp_path / "fleet", image, [settings(product)] * 4, product.personalities) as fleet:
            fleet.start()
            assert fleet.wait(lambda fleet: all(member.rollbacks for member in fleet.members), 120), fleet.members
            assert {member.slot for member in fleet.members} == {"ota_0"}
            assert len({member.world.mac for member in fleet.members}) == 4


@pytest.mark.requirement("UPD02")
def test_a_rollout_stops_at_its_canary_group(tmp_path: Path) -> None:
    """The server lets the second group begin only when the first has done well."""
    product = Product(tmp_path)
    with ddi_sites.running("embedded", tmp_path / "server") as server:
        product.server = server.url
        image = flash(product)
        targets = [server.device() for _ in range(5)]
        envelope = product.offer(2, NEW, application=BREAKS)
        release = server.release(("r.suit", envelope), (hashlib.sha256(NEW).hexdigest(), NEW))
        stop = {
            "successCondition": {"condition": "THRESHOLD", "expression": "100"},
            "errorCondition": {"condition": "THRESHOLD", "expression": "0"},
            "errorAction": {"action": "PAUSE", "expression": ""},
        }
        groups = [{"name": "canary", "targetPercentage": 40} | stop, {"name": "rest", "targetPercentage": 100} | stop]
        body = {
            "name": "r",
            "distributionSetId": release,
            "targetFilterQuery": "controllerId==lamp-*",
            "type": "forced",
        }
        rollout = server.call("POST", "/rollouts", body | {"groups": groups})["id"]
        wait(lambda: server.call("GET", f"/rollouts/{rollout}")["status"] == "ready")
        server.call("POST", f"/rollouts/{rollout}/start")
        with Fleet(
            tmp_path / "fleet", image, [settings(product, **t) for t in targets], product.personalities
        ) as fleet:
            fleet.start()
            paused = lambda _: server.call("GET", f"/rollouts/{rollout}")["status"] == "paused"  # noqa: E731
            assert fleet.wait(paused, 120), fleet.members
            assert sum(bool(member.rollbacks) for member in fleet.members) in (1, 2)
            assert {member.slot for member in fleet.members} == {"ota_0"}
            untouched = [member for member in fleet.members if member.starts == 1 and not member.rollbacks]
            assert len(untouched) == 3


def peers(world: World, count: int, ports: list[int]) -> list[dict[str, object]]:
    """The settings with which *count* devices of one flash image know each other."""
    ids = [device_id(VENDOR, world.mac[:4] + number.to_bytes(2, "big")).hex for number in range(1, count + 1)]
    places = [f"{name}@127.0.0.1:{port}" for name, port in zip(ids, ports, strict=True)]
    return [
        {"peers": [place for place in places if place != own], "peer_port": port, "peer_key": "a secret of the group"}
        for own, port in zip(places, ports, strict=True)
    ]


def watched(fleet: Fleet) -> list[tuple[str, str]]:
    """(device, line) of everything that is printed, in its order."""
    lines: list[tuple[str, str]] = []
    for member in fleet.members:

        def hear(text: str, hear=member.hear, name=member.name) -> None:
            lines.extend((name, line) for line in text.splitlines())
            hear(text)

        member.hear = hear  # type: ignore[method-assign]
    return lines


@pytest.mark.requirement("UPE09")
def test_two_peers_update_one_after_the_other_and_never_restart_together(tmp_path: Path) -> None:
    product = Product(tmp_path)
    with StaticServer(product.root) as server:
        product.server = server.url
        world = product.factory(OLD)
        product.offer(2, NEW)
        each = [settings(product, **own) for own in peers(world, 2, free_ports(2))]
        with Fleet(tmp_path / "fleet", world.flash_path.read_bytes(), each, product.personalities, speed=4) as fleet:
            lines = watched(fleet)
            fleet.start()
            assert fleet.wait(lambda fleet: fleet.settled(2), 90), "\n".join(map(str, lines))
    steps = [(name, word) for name, text in lines for word in ("staged", "confirmed") if text.endswith(word)]
    assert [word for _, word in steps] == ["staged", "confirmed"] * 2, lines
    assert steps[0][0] == steps[1][0]


@pytest.mark.requirement("UPE09")
def test_a_device_whose_peer_is_silent_keeps_its_update_waiting(tmp_path: Path) -> None:
    product = Product(tmp_path)
    with StaticServer(product.root) as server:
        product.server = server.url
        world = product.factory(OLD)
        product.offer(2, NEW)
        own = peers(world, 2, free_ports(2))[0]
        image, each = world.flash_path.read_bytes(), [settings(product, **own)]
        with Fleet(tmp_path / "fleet", image, each, product.personalities, speed=4) as fleet:
            lines = watched(fleet)
            fleet.start()
            silent = lambda _: any("BUSY (peer 127.0.0.1 does not answer)" in text for _, text in lines)  # noqa: E731
            assert fleet.wait(silent, 60), lines
            assert not any("staged" in text for _, text in lines)


def wait(done, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_command_ends_when_every_device_runs_the_release(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    product = Product(tmp_path)
    with StaticServer(product.root) as server:
        product.server = server.url
        (tmp_path / "flash.bin").write_bytes(flash(product))
        (tmp_path / "flash.bin.config.py").write_text(config.render(product.device))
        product.offer(2, NEW)
        line = f"sim fleet {tmp_path}/flash.bin -n 3 --server {server.url} --until 2 --json"
        done = Runner(capsys, monkeypatch)(line)
    assert done.code == 0, done.err
    assert [row["release"] for row in json.loads(done.out)["devices"]] == [2, 2, 2]
