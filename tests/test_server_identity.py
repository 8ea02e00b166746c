"""What the embedded server carries for a device's own security functions, and how an identity ends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import ddi_sites
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from helpers.cli import Runner
from helpers.keys import ISSUED, YEAR, make_keyset, signer
from helpers.site import Product, consoles, firmware, run
from sekisho import devicekey, eventlog, orders, values, wipe
from sekisho_tools import cose
from sekisho_tools import report as desk_report
from sekisho_tools.errors import ToolError
from sekisho_tools.fleet import leave_order, reports
from server_fixtures import PASSWORD, Device, Site, ask, basic, running
from test_report import Device as Whole

DEVICE = bytes(range(16))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("server")) as found:
        yield found


class Key:
    """A device key, as `devicekey.DeviceKey` signs."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self.public = self._key.public_key().public_bytes_raw()

    def sign1(self, payload: bytes) -> bytes:
        protected = cose.encode({1: -19})
        signature = self._key.sign(cose.sign1_input(protected, payload))
        return b"\xd2" + cose.encode([protected, {4: cose.key_id(self.public)}, payload, signature])


class Log:
    number, hash = 7, bytes(32)


def last_words(key: Key, action: int) -> bytes:
    return wipe.statement(key, DEVICE, ISSUED, action, bytes(8), [Log.number, Log.hash], wipe.PROMISED)


def keyed(site: Site, name: str) -> tuple[Device, Key]:
    """A device that the server knows by a token and by its key."""
    device, key = site.device(name), Key()
    site.api.call("PUT", f"/targets/{name}", {"publicKey": key.public.hex()})
    return device, key


def hand_in(device: Device, body: bytes) -> str:
    answer = device.ask("/reports", "POST", body, Content_Type="application/cose")
    assert answer.status == 201
    return str(answer.json["verdict"])


# -- the end of a device ------------------------------------------------------------------------------------------


@pytest.mark.requirement("HLC07", "STS14")
def test_a_decommissioned_device_is_refused_for_good(site: Site) -> None:
    device, key = keyed(site, "retired-1")
    device.poll()
    site.assign(device, site.release())
    waiting = site.api.call("POST", "/sekisho/enrolments", {"controllerId": "retired-1"})["token"]
    site.api.call("POST", "/targets/retired-1/decommission", {"why": "water damage"})
    assert device.ask("").status == 401
    assert device.ask("/enrol", "POST", {"token": waiting}).status == 401  # an open invitation is void
    assert device.state()["updateStatus"] == "decommissioned"
    assert [one["active"] for one in site.api.everything("/targets/retired-1/actions")] == [False]
    answer = ask(f"{site.url}/rest/v1/targets/retired-1/assignedDS", "POST", {"id": 1}, basic("op"))
    assert answer.status == 409
    body = {"name": "all", "distributionSetId": 1, "targetFilterQuery": "controllerid==retired-*"}
    assert ask(f"{site.url}/rest/v1/rollouts", "POST", body, basic("op")).status == 400  # it matches no device
    # Neither the id nor the key comes back, not even when the device is deleted.
    site.api.call("DELETE", "/targets/retired-1")
    for again in ({"controllerId": "retired-1"}, {"controllerId": "other", "publicKey": key.public.hex()}):
        answer = ask(f"{site.url}/rest/v1/targets", "POST", [again], basic("op"))
        assert (answer.status, "decommissioned" in answer.json["message"]) == (409, True)
    anyone = site.api.call("POST", "/sekisho/enrolments", {})["token"]
    url = f"{site.url}/DEFAULT/controller/v1"
    assert ask(f"{url}/retired-1/enrol", "POST", {"token": anyone}).status == 401
    assert ask(f"{url}/other/enrol", "POST", {"token": anyone, "publicKey": key.public.hex()}).status == 409
    assert ask(f"{url}/other/enrol", "POST", {"token": anyone}).status == 201  # the token was not spent on that


def test_a_gateway_cannot_speak_for_a_decommissioned_device(site: Site) -> None:
    token = "a gateway token of tests"
    modes = {"authentication.gatewaytoken.enabled": True, "authentication.gatewaytoken.key": token}
    site.api.call("PUT", "/system/configs", modes)
    headers = {"Authorization": f"GatewayToken {token}"}
    home = f"{site.url}/DEFAULT/controller/v1/retired-2"
    assert ask(home, headers=headers).status == 200
    site.api.call("POST", "/targets/retired-2/decommission", {"why": "sold"})
    assert ask(home, headers=headers).status == 403
    site.api.call("DELETE", "/targets/retired-2")
    assert ask(home, headers=headers).status == 409
    site.api.call("PUT", "/system/configs/authentication.gatewaytoken.enabled", {"value": False})


@pytest.mark.requirement("HLC07")
def test_the_last_signed_statement_of_a_device_retires_it(site: Site) -> None:
    device, key = keyed(site, "retired-3")
    assert hand_in(device, last_words(key, orders.DECOMMISSION)) == "verified"
    assert device.ask("").status == 401
    assert device.state()["updateStatus"] == "decommissioned"
    assert site.api.call("GET", "/targets/retired-3/reports")[0]["verdict"] == "verified"


@pytest.mark.parametrize("action", [orders.WIPE, orders.TRANSFER])
def test_a_wiped_device_must_enrol_anew(site: Site, action: int) -> None:
    name = f"wiped-{action}"
    device, key = keyed(site, name)
    assert hand_in(device, last_words(key, action)) == "verified"
    assert device.ask("").status == 401  # copies of its old secrets are worthless
    token = site.api.call("POST", "/sekisho/enrolments", {"controllerId": name})["token"]
    made = device.ask("/enrol", "POST", {"token": token}).json
    assert Device(site, name, {"Authorization": f"TargetToken {made['securityToken']}"}).poll()


def test_nobody_else_can_say_a_devices_last_words(site: Site) -> None:
    device, key = keyed(site, "alive")
    other = Key()
    good = last_words(key, orders.DECOMMISSION)
    for body in (
        last_words(other, orders.DECOMMISSION),
        good[:-1] + bytes([good[-1] ^ 1]),
        last_words(key, 99),
        key.sign1(b"\xa0"),
        key.sign1(cose.encode({265: "tag:sekisho,2026:wipe-1", -70001: 6})),
        key.sign1(b"no cbor"),
    ):
        assert hand_in(device, body) == "invalid"
    unknown = site.device("no-key")
    assert hand_in(unknown, good) != "verified"
    assert device.ask("").status == unknown.ask("").status == 200


def test_only_admins_decommission(site: Site) -> None:
    site.device("kept")
    url = f"{site.url}/rest/v1/targets/kept/decommission"
    assert ask(url, "POST", {"why": "no"}, basic("op")).status == 403
    assert ask(url, "POST", {}, basic("admin")).status == 400
    assert ask(url.replace("kept", "nobody"), "POST", {"why": "x"}, basic("admin")).status == 404


# -- orders -------------------------------------------------------------------------------------------------------


def order(counter: int = 1) -> bytes:
    members = {1: 1, 2: DEVICE, 4: ISSUED + YEAR, 5: {"poll": 60}, 6: counter}
    return cose.sign1(cose.encode(members), signer("operator"), attached=True)


@pytest.mark.requirement("UPD11")
def test_an_operator_order_waits_for_its_device(site: Site, tmp_path: Path) -> None:
    device = site.device("ordered")
    assert "order" not in device.poll()["_links"]
    assert device.ask("/order").status == 404
    url = f"{site.url}/rest/v1/targets/ordered/order"
    for one in (order(1), order(2)):
        assert ask(url, "PUT", one, basic("op") | {"Content-Type": "application/cose"}).status == 204
    link = device.link("order")
    assert link
    answer = device.ask(link)
    assert (answer.status, answer.body) == (200, order(2))  # the newer one took the place of the older
    assert device.ask(link, If_None_Match=answer.headers["etag"]).status == 304
    found = site.api.call("GET", "/targets/ordered/order")
    assert (found["action"], found["sha256"]) == ("settings", hashlib.sha256(order(2)).hexdigest())
    assert site.device("somebody-else").ask("/order").status == 404
    site.api.call("DELETE", "/targets/ordered/order")
    assert "order" not in device.poll()["_links"]


@pytest.mark.parametrize("body", [b"", b"nonsense", bytes(2049), cose.encode({1: 1}), b"\xd2\x84"])
def test_only_signed_orders_are_carried(site: Site, body: bytes) -> None:
    site.device("strict") if "strict" not in str(site.api.call("GET", "/targets?limit=500")) else None
    url = f"{site.url}/rest/v1/targets/strict/order"
    assert ask(url, "PUT", body, basic("op") | {"Content-Type": "application/cose"}).status == 400
    assert ask(url, "PUT", order(), basic("view") | {"Content-Type": "application/cose"}).status == 403
    assert ask(url, "GET", None, basic("view")).status == 403  # an order may hold passphrases


@pytest.mark.requirement("UPD11", "SSS05", "SSS07")
def test_orders_go_out_and_reports_come_in_over_the_device_api(tmp_path: Path) -> None:
    """The agent on a simulated device: an operator's order, then a report that answers the operator's nonce."""
    with ddi_sites.running("embedded", tmp_path / "server") as fleet:
        product = Product(tmp_path, server=fleet.url, keys=make_keyset(operators=1))
        application = 'import sekisho\nasync def main():\n    print("device", sekisho.engine().port.device.hex())\n'
        product.personalities.default = product.personality(application=application)
        product.settings = fleet.device()
        name = str(product.settings["controller"])
        world = product.factory(firmware("old", 60_000))
        device = consoles(run(world, "nothing new")).partition("device ")[2].split()[0]

        def give(number: int, counter: int, argument: object) -> None:
            members = {1: number, 2: bytes.fromhex(device), 4: ISSUED + YEAR, 5: argument, 6: counter}
            document = cose.sign1(cose.encode(members), signer("operator"), attached=True)
            leave_order(fleet.api, name, document)

        fleet.api.close()
        give(orders.ACTIONS["settings"][0], 1, {"poll": 45})
        assert "order obeyed" in consoles(run(world, "nothing new"))
        assert "order" not in consoles(run(world, "nothing new"))  # once
        nonce = b"asked by alice"
        fleet.api.close()
        give(orders.ACTIONS["report"][0], 2, nonce)
        console = consoles(run(world, "sekisho: report sent", seconds=120))
        assert "order obeyed" in console
        _, document = next(reports(fleet.api, name))
        found = desk_report.parse(document)
        assert found.device.hex == device
        assert found.claims[10] == nonce
        assert [one[1] for one in found.results] == [orders.ACTIONS["report"][0], orders.ACTIONS["settings"][0]]
        assert fleet.call("GET", f"/targets/{name}/reports")[0]["verdict"] == "unverified"  # the key is not known here


# -- reports ------------------------------------------------------------------------------------------------------


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Whole:
    """A whole device with engine, settings, log and key."""
    for module, attribute in ((values, "KEPT"), (eventlog, "PATH"), (devicekey, "PATH")):
        monkeypatch.setattr(module, attribute, str(tmp_path / module.__name__))
    return Whole()


@pytest.mark.requirement("UPD09", "SSS05", "SSS07")
def test_signed_reports_are_judged_shown_and_handed_on(
    site: Site, whole: Whole, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = site.device("reporter")
    assert hand_in(device, whole.report()) == "unverified"  # nobody has told the server its key
    site.api.call("PUT", "/targets/reporter", {"publicKey": whole.key.public.hex()})
    document = whole.report(b"\x0a\x0b")
    assert hand_in(device, document) == "verified"
    assert hand_in(device, document[:-1] + bytes([document[-1] ^ 1])) == "invalid"
    run = Runner(capsys, monkeypatch)
    for name, value in (("SERVER", site.url), ("USER", "view"), ("PASSWORD", PASSWORD)):
        monkeypatch.setenv(f"SEKISHO_{name}", value)
    assert run(f"devices reports reporter --to {tmp_path}/got").code == 0
    files = {path.read_bytes(): path for path in (tmp_path / "got").iterdir()}
    assert len(files) == 3
    checked = run(f"report verify {files[document]} --device-key {whole.key.public.hex()} --nonce 0a0b --json")
    assert json.loads(checked.out)["good"]


# -- the command line ---------------------------------------------------------------------------------------------


@pytest.mark.requirement("HLC05")
def test_inviting_ordering_and_ending_by_command_line(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Runner(capsys, monkeypatch)
    for name, value in (("SERVER", site.url), ("USER", "admin"), ("PASSWORD", PASSWORD)):
        monkeypatch.setenv(f"SEKISHO_{name}", value)
    token = run("devices invite cli-1 --valid 2h --note box-3").out.strip()
    home = f"{site.url}/DEFAULT/controller/v1/cli-1"
    made = ask(f"{home}/enrol", "POST", {"token": token}).json
    device = Device(site, "cli-1", {"Authorization": f"TargetToken {made['securityToken']}"})
    assert device.poll()
    assert json.loads(run("devices invite --json").out)["token"] != token
    assert run("devices invite --valid soon").error == "USAGE"
    (tmp_path / "o.cose").write_bytes(order())
    assert run(f"devices order {tmp_path}/o.cose cli-1").out == "left for cli-1\n"
    assert device.ask("/order").body == order()
    assert run(f"devices order {tmp_path}/o.cose nobody").error == "NOT_FOUND"
    assert run("devices decommission cli-1 --why scrapped").code == 0
    assert device.ask("").status == 401
    assert run(f"devices order {tmp_path}/o.cose cli-1").error == "CONFLICT"


# -- what is forgotten --------------------------------------------------------------------------------------------


def test_old_history_goes_when_its_days_are_over(tmp_path: Path) -> None:
    with running(tmp_path) as site:
        device, release = site.device("d"), [site.release() for _ in range(3)]
        for number in release:
            site.assign(device, number)
            device.feedback(device.order()["id"])
        late = site.device("late")
        body = {"name": "r", "distributionSetId": release[0], "targetFilterQuery": "controllerid==late"}
        body["errorCondition"] = {"expression": "100"}
        rollout = site.api.call("POST", "/rollouts", body)["id"]
        site.api.call("POST", f"/rollouts/{rollout}/start")
        late.feedback(late.order()["id"], finished="failure")
        site.work()
        assert site.api.call("GET", f"/rollouts/{rollout}")["status"] == "finished"
        site.clock.pass_seconds(31 * 86400)
        site.work()
        assert site.api.call("GET", "/actions")["total"] == 4  # kept for ever unless somebody says otherwise
        site.api.call("PUT", "/system/configs/sekisho.history.days", {"value": 30})
        site.clock.pass_seconds(3601)
        site.work()
        assert site.api.call("GET", "/rollouts")["total"] == 0
        left = site.api.call("GET", "/actions")["content"]
        assert [one["_links"]["target"]["name"] for one in left] == ["d"]
        assert site.api.call("GET", "/targets/d/installedDS")["id"] == release[2]
        assert device.poll()["_links"]["installedBase"]  # the last success stays
        with pytest.raises(ToolError):
            site.api.call("PUT", "/system/configs/sekisho.history.days", {"value": -1})
