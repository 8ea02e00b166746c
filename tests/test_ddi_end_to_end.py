"""Our agent on the simulated device against servers that speak hawkBit's device API: ours, and the real one if named.

What an operator orders, what the device does, and what the operator sees of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import ddi_sites
import pytest
from ddi_sites import Fleet
from helpers.keys import ISSUED, YEAR, make_keyset, signer
from helpers.site import Product, consoles, firmware, run
from sekisho import orders
from sekisho_boot.engine import MAX_ATTEMPTS, MAX_RUNS
from sekisho_sim.device import Limits, power_cycle
from sekisho_sim.personality import behaviour
from sekisho_sim.world import Network, World
from sekisho_tools import config, cose, report, wipe

OLD, NEW = firmware("old", 60_000), firmware("new", 150_000)
BREAKS = "import sekisho\nsekisho.on_health(lambda: False)\nasync def main():\n    print('application starts')\n"
NEW_YEAR = {"schedule": "0 0 3 1 1 ? *", "duration": "01:00:00", "timezone": "+00:00"}
"""A maintenance window that is shut when these tests run (but for an hour a year)."""
ENDED = ("finished", "error", "canceled")
TOLD = """
import sekisho
sekisho.on_notify(lambda event, release, reason: print('people hear:', event, release, reason))
async def main():
    pass
"""


ASKED = """
import asyncio
import sekisho
from sekisho import policy
heard = []
sekisho.on_notify(lambda event, release, reason: heard.append(release))
async def main():
    assert not sekisho.decide(policy.APPROVE)  # nothing is offered yet
    while not heard:
        await asyncio.sleep(1)
    await asyncio.sleep(5)
    print('the user agrees:', sekisho.decide(policy.APPROVE))
"""


@pytest.fixture(scope="module", params=ddi_sites.SITES)
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with ddi_sites.running(request.param, tmp_path_factory.mktemp("server")) as found:
        yield found


class Lamp:
    """A product, one device of it, and its target at the server."""

    def __init__(self, fleet: Fleet, folder: Path, **settings: object) -> None:
        self.fleet = fleet
        self.product = Product(folder, server=fleet.url)
        self.product.settings = fleet.device() | settings
        self.name = self.product.settings["controller"]
        self.sequence = 1

    def world(self, **options: int) -> World:
        return self.product.factory(OLD, **options)

    def order(self, payload: bytes = NEW, how: dict[str, object] | None = None, **modules: str) -> int:
        """Uploads a release with key set and payload, and assigns it; returns the action's id."""
        self.sequence += 1
        envelope = self.product.offer(self.sequence, payload, **modules)
        digest = hashlib.sha256(payload).hexdigest()
        files = (("lamp.suit", envelope), (digest, payload), ("keyset-1.cose", self.product.keys.document))
        return self.fleet.assign(self.name, self.fleet.release(*files), **(how or {}))


@pytest.fixture
def lamp(fleet: Fleet, tmp_path: Path) -> Lamp:
    return Lamp(fleet, tmp_path)


@pytest.mark.requirement("UPD01", "UPD04", "STS03", "UPD09")
def test_an_order_goes_from_assignment_to_confirmation(lamp: Lamp) -> None:
    action = lamp.order()
    world = lamp.world()
    console = consoles(run(world, "nothing new"))
    assert "release 2 staged" in console
    assert console.index("release 2, on trial") < console.index("sekisho: confirmed")
    assert lamp.fleet.ended(lamp.name, action) == "finished"
    target = lamp.fleet.call("GET", f"/targets/{lamp.name}")
    assert target["updateStatus"] == "in_sync"
    facts = lamp.fleet.call("GET", f"/targets/{lamp.name}/attributes")
    assert facts["fw_version"] == "2"
    assert facts["fw_digest"] == hashlib.sha256(NEW).hexdigest()
    assert (facts["keyset"], facts["state"], facts["last"]) == ("1", "ok", "2 confirmed")
    assert (facts["mode"], facts["protection"]) == ("development", "none")
    assert {"device_id", "class", "product", "chip", "agent", "app_version", "app_digest"} <= set(facts)
    told = lamp.fleet.history(lamp.name, action)
    for kind in ("download", "downloaded", "running", "finished"):
        assert kind in [entry[0] for entry in told], told
    assert [words[:14] for _, words in told if "Downloaded" in words] == ["Downloaded 25%", "Downloaded 75%"]


@pytest.mark.requirement("UPE14", "UPD09")
def test_a_stock_device_whose_application_breaks_down_tells_the_server_why(lamp: Lamp) -> None:
    world = lamp.product.stock("async def main():\n    raise OSError('no sensor')\n")
    assert "sekisho: safe state: application-broke" in consoles(run(world, "sekisho: NOTHING"))
    facts = lamp.fleet.call("GET", f"/targets/{lamp.name}/attributes")
    assert facts["state"] == "safe: application-broke"


@pytest.mark.requirement("UPE13", "UPE14", "UPE07", "UPD09")
def test_an_image_that_fails_its_health_check_is_reported_as_an_error(fleet: Fleet, tmp_path: Path) -> None:
    lamp = Lamp(fleet, tmp_path, notify=["failed", "available"])
    lamp.product.personalities.default = lamp.product.personality(application=TOLD)
    action = lamp.order(application=BREAKS)
    console = consoles(run(lamp.world(), "nothing new"))
    assert "release 2 failed: HEALTH" in console
    assert "people hear: available 2" in console
    assert "people hear: failed 2 HEALTH" in console
    assert fleet.ended(lamp.name, action) == "error"
    assert any("HEALTH" in words for _, words in fleet.history(lamp.name, action))
    assert fleet.call("GET", f"/targets/{lamp.name}")["updateStatus"] == "error"


@pytest.mark.requirement("UPE14", "UPD09")
@pytest.mark.parametrize(("name", "cause"), [("soft_resets", "soft-reset"), ("sleeps", "deep-sleep")])
def test_a_trial_that_the_bootloader_never_sees_end_is_ended_by_the_engine(lamp: Lamp, name: str, cause: str) -> None:
    """Neither is a restart that the bootloader counts, and the watchdog is armed anew each time."""
    action = lamp.order()
    made = behaviour(name).with_modules(sekisho_config=config.render(lamp.product.device))
    lamp.product.personalities.images[hashlib.sha256(NEW).hexdigest()] = made
    world = lamp.world()
    results = run(world, "nothing new", max_boots=60)
    causes = [result.cause for result in results if result.slot == "ota_1"]
    assert causes == ([cause] * MAX_RUNS + ["reset"]) * MAX_ATTEMPTS, consoles(results)
    assert results[-1].slot == "ota_0"
    assert "release 2 failed: ATTEMPTS" in consoles(results)
    assert lamp.fleet.ended(lamp.name, action) == "error"
    assert any("ATTEMPTS" in words for _, words in lamp.fleet.history(lamp.name, action))


def test_a_dead_access_point_during_the_trial_does_not_end_the_action(lamp: Lamp) -> None:
    action = lamp.order()
    world = lamp.world(speed=60)
    run(world, "release 2 staged")
    world.network = Network(ap=False)
    run(world, "release 2 failed: ATTEMPTS")
    world.network = Network()
    console = consoles(run(world, "nothing new"))
    assert (
        console.index("the trial met no network") < console.index("RETRY_LATER") < console.index("sekisho: confirmed")
    )
    assert lamp.fleet.ended(lamp.name, action) == "finished"
    assert "error" not in [kind for kind, _ in lamp.fleet.history(lamp.name, action)]


@pytest.mark.requirement("UPE06", "UPE07")
def test_a_person_is_asked_and_the_update_starts_when_they_agree(fleet: Fleet, tmp_path: Path) -> None:
    lamp = Lamp(fleet, tmp_path, update_start="user", notify=["available"], poll=3600)
    lamp.product.personalities.default = lamp.product.personality(application=ASKED)
    action = lamp.order()
    console = consoles(run(lamp.world(), "nothing new"))
    assert "APPROVAL" in console.split("the user agrees")[0]
    assert "staged" not in console.split("the user agrees")[0]
    assert "sekisho: confirmed" in console
    assert fleet.ended(lamp.name, action) == "finished"


@pytest.mark.requirement("UPD02")
@pytest.mark.parametrize("at", [60, 95])
def test_a_download_goes_on_after_a_power_cut_and_is_reported_once(lamp: Lamp, at: int) -> None:
    world = lamp.world()
    run(world, "nothing new")
    action = lamp.order()
    assert run(world, "staged", cut=at)[-1].cause == "cut"
    run(world, "nothing new")
    assert lamp.fleet.ended(lamp.name, action) == "finished"
    kinds = [entry[0] for entry in lamp.fleet.history(lamp.name, action)]
    assert kinds.count("finished") == 1


@pytest.mark.requirement("UPD05", "UPE08")
def test_outside_its_maintenance_window_a_device_fetches_but_does_not_install(lamp: Lamp) -> None:
    action = lamp.order(how={"maintenanceWindow": NEW_YEAR})
    console = consoles(run(lamp.world(), "sekisho: WINDOW"))
    assert "fetched" in console
    assert "staged" not in console
    assert lamp.fleet.action(lamp.name, action)["status"] not in ENDED


def test_an_operator_takes_an_order_back_before_it_is_installed(lamp: Lamp) -> None:
    lamp.fleet.call("GET", f"/targets/{lamp.name}")
    action = lamp.order(how={"maintenanceWindow": NEW_YEAR})
    world = lamp.world()
    run(world, "sekisho: WINDOW")
    lamp.fleet.call("DELETE", f"/targets/{lamp.name}/actions/{action}")
    assert f"action {action} cancelled" in consoles(run(world, "nothing new"))
    assert lamp.fleet.ended(lamp.name, action) == "canceled"
    second = lamp.order()
    run(world, "nothing new")
    assert lamp.fleet.ended(lamp.name, second) == "finished"


@pytest.mark.requirement("UPE06")
def test_a_device_confirms_by_its_settings_when_the_server_asks(fleet: Fleet, tmp_path: Path) -> None:
    fleet.setting("user.confirmation.flow.enabled", True)
    try:
        automatic, asks = Lamp(fleet, tmp_path / "a"), Lamp(fleet, tmp_path / "b", update_start="user")
        actions = [lamp.order() for lamp in (automatic, asks)]
        run(automatic.world(), "nothing new")
        assert fleet.ended(automatic.name, actions[0]) == "finished"
        assert "waits" in consoles(run(asks.world(), "sekisho: APPROVAL"))
        assert fleet.action(asks.name, actions[1])["status"] not in ENDED
    finally:
        fleet.setting("user.confirmation.flow.enabled", False)


def test_a_release_that_the_engine_refuses_is_reported_before_anything_is_fetched(lamp: Lamp) -> None:
    action = lamp.order()
    console = consoles(run(lamp.product.factory(OLD, sequence=5), "sekisho: SEQUENCE"))
    assert "fetched" not in console
    assert lamp.fleet.ended(lamp.name, action) == "error"
    assert any("SEQUENCE" in words for _, words in lamp.fleet.history(lamp.name, action))


def test_a_wrong_token_is_told_on_the_console_and_nothing_happens(fleet: Fleet, tmp_path: Path) -> None:
    lamp = Lamp(fleet, tmp_path, token="not-the-right-token-at-all-0000")
    lamp.order()
    console = consoles(run(lamp.world(), "HTTP 401"))
    assert "fetched" not in console


@pytest.mark.requirement("STS05", "SSS05", "SSS03", "STS08", "HLC07")
def test_orders_come_with_the_servers_actions_and_reports_and_statements_go_back(lamp: Lamp, tmp_path: Path) -> None:
    """A report with its nonce and the event log, and a last statement, over the device's own connection."""
    lamp.product.keys = make_keyset(operators=1)
    lamp.product.__post_init__()
    ids = "import sekisho\nasync def main():\n    print('key', sekisho.secure_key())\n"
    shows = ids.replace("sekisho.secure_key()", "__import__('sekisho.secure').secure.component().public().hex()")
    lamp.product.personalities.default = lamp.product.personality(application=shows)
    world = lamp.world()
    counter = 0

    def give(action: str, **argument: object) -> tuple[int, bytes]:
        nonlocal counter
        counter += 1
        members = {1: orders.ACTIONS[action][0], 2: [1, lamp.product.device.classes[0]], 4: ISSUED + YEAR, 6: counter}
        if argument:
            members[5] = argument["to"]
        document = cose.sign1(cose.encode(members), signer("operator"), attached=True)
        release = lamp.fleet.release((f"order-{action}.cose", document))
        return lamp.fleet.assign(lamp.name, release), document

    number, _ = give("settings", to={"poll": 31})
    console = consoles(run(world, "order obeyed"))
    public = bytes.fromhex(console.partition("key ")[2].split()[0])
    run(world, "sekisho: NOTHING")
    assert lamp.fleet.ended(lamp.name, number) == "finished"
    number, _ = give("settings", to={"poll": 1})
    run(world, "could not be done: SETTING")
    run(world, "sekisho: NOTHING")
    assert lamp.fleet.ended(lamp.name, number) == "error"
    if lamp.fleet.url == ddi_sites.HAWKBIT:
        return  # it takes no reports
    number, _ = give("report", to=b"\x0b\x0c")
    run(world, "sekisho: report sent", seconds=90)
    told = lamp.fleet.signed(lamp.name)
    verdict = report.verify(told[0], public, nonce=b"\x0b\x0c")
    assert verdict.report.ours[report.device.LOG][0] > 0
    assert "events" not in report.describe(verdict.report), "no certificate tells the device who the server is"
    assert not any("event log" in finding.text for finding in verdict.findings if finding.bad)
    number, document = give("decommission")
    console = consoles(run(world, "sekisho: decommissioned", seconds=90))
    assert lamp.fleet.ended(lamp.name, number) == "finished"
    statement = wipe.verify(lamp.fleet.signed(lamp.name)[0], public)
    assert (statement.action, statement.done) == ("decommission", False), "promised while there was a network"
    assert statement.order == orders.digest(document).hex()
    last = consoles(list(power_cycle(world, limits=Limits(20), max_boots=1)))
    assert wipe.verify(wipe.read((console + last).encode()), public).done
