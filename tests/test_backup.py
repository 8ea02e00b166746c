"""Backups of the settings: by order, through every door, refused by name, and through a power cut."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from helpers import powercut
from helpers.claims import Aes
from helpers.cli import Runner
from helpers.keys import ISSUED, YEAR, make_keyset, signer
from helpers.site import Product
from sekisho import backup, card, courier, http, issued, orders, record, seal, store, values
from sekisho.cbor import encode
from sekisho_boot import reasons
from sekisho_tools import cose, events
from sekisho_tools import order as desk_orders
from sekisho_tools import settings as desk
from sekisho_tools.errors import ToolError
from sekisho_tools.server import reports as server_reports
from test_door import DEVICE, Device, _folder, code_of, device
from test_line import Cable, ask, cable

assert _folder
assert device
assert cable

KEK, KEY, PASSPHRASE = bytes(range(16)), bytes(range(50, 82)), "correct horse battery"
WRAPPED = [issued.Kek(KEK).id, aes_key_wrap(KEK, KEY)]


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device was issued a key-encryption key; AES is that of the desk, and few rounds keep the tests quick."""
    monkeypatch.setitem(sys.modules, "cryptolib", SimpleNamespace(aes=Aes))
    monkeypatch.setattr(issued, "load", lambda: {"kek": KEK})
    monkeypatch.setattr(seal, "ROUNDS", 16)
    monkeypatch.setattr(seal.seal, "__defaults__", (16,))


def order(action: str, argument: Any, counter: int = 1, attached: bytes = b"", **changes: Any) -> bytes:
    members = {1: orders.ACTIONS[action][0], 2: DEVICE, 4: ISSUED + YEAR, 5: argument, 6: counter}
    members.update({int(name[1:]): value for name, value in changes.items()})
    return cose.sign1(cose.encode(members), signer("operator"), attached=True) + attached


def put_back(sealed: bytes, counter: int = 2, key: Any = WRAPPED, **changes: Any) -> bytes:
    return order("put-back", [key, hashlib.sha256(sealed).digest()], counter, sealed, **changes)


def sealed_in(device: Device, key: Any = WRAPPED) -> bytes:
    """The backup that an order has the device make."""
    assert device.door.order(order("backup", key)) == 0
    return device.duties.backup_document()


def backups(device: Device) -> list[tuple[str, int]]:
    """(reason, value) of the events BACKUP."""
    found = events.verify(device.duties.log.export())
    return [(one.reason, one.value) for one in found if one.event == "BACKUP"]


@pytest.mark.requirement("STS10")
@pytest.mark.parametrize("key", [WRAPPED, PASSPHRASE], ids=["wrapped", "passphrase"])
def test_what_an_order_backed_up_another_order_puts_back_and_the_log_tells(device: Device, key: Any) -> None:
    device.duties.settings.change({"poll": 777, "groups": ["north"], "peer_key": "k" * 16}, values.ORDER)
    sealed = sealed_in(device, key)
    assert b"north" not in sealed
    assert desk.open_backup(sealed, KEY if key is WRAPPED else PASSPHRASE)["poll"] == 777
    device.duties.settings.change({"poll": 60, "groups": [], "peer_key": ""}, values.ORDER)
    assert device.door.order(put_back(sealed, key=key)) == 0
    kept = values.Settings()
    assert (kept.get("poll"), kept.get("groups"), kept.get("peer_key")) == (777, ["north"], "k" * 16)
    assert backups(device) == [("", backup.EXPORT), ("", backup.IMPORT)]
    assert store.load(backup.BROUGHT) is None
    assert code_of(device.door.order, put_back(sealed, key=key)) == "ORDER_REPLAY"


def changed(document: bytes, at: int) -> bytes:
    return document[:at] + bytes([document[at] ^ 1]) + document[at + 1 :]


def test_what_cannot_be_put_back_is_refused_by_name_and_changes_nothing(device: Device) -> None:
    sealed, before = sealed_in(device), values.Settings().all()
    newer = seal.seal(KEY, encode({"version": values.VERSION + 1, "device": DEVICE, "values": {"poll": 61}}))
    senseless = seal.seal(KEY, encode({"version": values.VERSION, "device": DEVICE, "values": {"poll": -1}}))
    other = [WRAPPED[0], aes_key_wrap(KEK, bytes(32))]
    stranger = [bytes(8), WRAPPED[1]]
    for counter, (document, key, reason) in enumerate((
        (sealed, other, "BACKUP"), (changed(sealed, 40), WRAPPED, "BACKUP"), (changed(sealed, 2), WRAPPED, "BACKUP"),
        (sealed[:-1], WRAPPED, "BACKUP"), (b"x", WRAPPED, "BACKUP"), (newer, WRAPPED, "SETTING"),
        (senseless, WRAPPED, "SETTING"), (sealed, stranger, "CONTENT_KEY"), (sealed, PASSPHRASE, "BACKUP"),
        (sealed, [WRAPPED[0], changed(WRAPPED[1], 3)], "CONTENT_KEY"), (sealed, 7, "BACKUP"),
    ), 10):  # fmt: skip
        assert reasons.name(device.door.order(put_back(document, counter, key))) == reason, counter
        assert backups(device)[-1] == (reason, backup.IMPORT)
        assert device.duties.record.get(record.RESULTS)[0][2] == getattr(reasons, reason)
    assert values.Settings().all() == before
    short = order("backup", "too short", 50)
    assert reasons.name(device.door.order(short)) == "LIMIT"
    assert backups(device)[-1] == ("LIMIT", backup.EXPORT)


def test_an_order_without_what_it_names_or_with_more_is_not_obeyed_and_spends_nothing(device: Device) -> None:
    sealed = sealed_in(device)
    whole = put_back(sealed, 20)
    bare = whole[: -len(sealed)]
    before = device.desk.snapshot()
    for document, reason in (
        (bare, "BACKUP"), (changed(whole, len(whole) - 1), "BACKUP"), (bare + sealed[:-1], "BACKUP"),
        (order("settings", {"poll": 60}, 21) + sealed, "COSE"), (order("backup", WRAPPED, 21) + b"\0", "COSE"),
        (bare + bytes(orders.MAX_ATTACHED + 1), "LIMIT"), (order("put-back", b"x", 22, sealed), "PERMIT"),
        (put_back(sealed, 23, _2=bytes(16)), "PERMIT"), (put_back(sealed, 24, _4=1), "PERMIT_EXPIRED"),
    ):  # fmt: skip
        assert code_of(device.door.order, document) == reason
    assert device.desk.snapshot() == before
    assert device.door.order(whole) == 0


def test_another_device_gets_the_settings_and_not_the_name_and_token_of_this_one(device: Device) -> None:
    mine = {"poll": 99, "controller": "lamp-1", "token": "secret-1"}
    own, foreign = ({"version": values.VERSION, "device": one, "values": mine} for one in (DEVICE, bytes(16)))
    device.duties.settings.change({"controller": "lamp-2", "token": "secret-2"}, values.ORDER)
    device.duties.put_back(KEY, seal.seal(KEY, encode(foreign)), values.ORDER)
    kept = values.Settings()
    assert (kept.get("poll"), kept.get("controller"), kept.get("token")) == (99, "lamp-2", "secret-2")
    device.duties.put_back(KEY, seal.seal(KEY, encode(own)), values.ORDER)
    assert values.Settings().get("controller") == "lamp-1"


def test_a_person_at_the_console_puts_back_only_what_an_administrator_may_change(device: Device) -> None:
    device.duties.settings.change({"groups": ["north"], "poll": 70}, values.ORDER)
    sealed = device.duties.backup(PASSPHRASE)
    device.duties.settings.change({"groups": ["south"], "poll": 60}, values.ORDER)
    device.duties.put_back(PASSPHRASE, sealed, values.ADMIN, device.agent)
    assert device.duties.settings.get("groups") == ["south"]
    assert device.agent.every == 70
    assert backups(device) == [("", 0), ("", 1)]


ON_DEVICE = """
import sekisho
from sekisho import backup, eventlog
from sekisho.record import Record, PENDING, RESULTS
from sekisho.orders import Orders
from sekisho.values import Settings
from sekisho_boot.reasons import Refused, name
engine = sekisho.engine()
settings = Settings()
log = eventlog.Log(engine.port.device, lambda: (0, 0))
orders = Orders(engine, Record(engine.port.part), settings)
orders.backups = backup.Keeper(settings, engine.port.device, log)
orders.resume()
try:
    print("obeyed", orders.obey({document!r}))
except Refused as refused:
    print("refused", name(refused.code))
kept = Settings()
print("kept", kept.get("poll"), kept.get("utc_offset"), [r[2] for r in orders.record.get(RESULTS, [])])
print("rest", orders.record.get(PENDING), backup.store.load(backup.BROUGHT))
"""


@pytest.mark.requirement("STS10")
def test_a_cut_at_any_flash_state_puts_all_of_a_backup_back_or_nothing_and_the_order_ends_once(tmp_path: Path) -> None:
    """Order and results lie in the device record, the backup and the settings on littlefs."""
    product = Product(tmp_path, server="http://old", keys=make_keyset(operators=1))
    content = {"version": values.VERSION, "device": b"", "values": {"poll": 777, "utc_offset": 60}}
    sealed = seal.seal(PASSPHRASE, encode(content), 16)
    document = put_back(sealed, key=PASSPHRASE, _2=[1, product.device.classes[0]])
    ends = set()
    for name, console in powercut.consoles(product, ON_DEVICE.format(document=document), of=60):
        assert "kept 777 60 [0]" in console, (name, console)
        assert "rest None None" in console, (name, console)
        ends.add("refused ORDER_REPLAY" in console)
    assert ends == {True, False}


# -- doors ---------------------------------------------------------------------------------------------------------


def test_a_card_takes_a_backup_away_and_brings_one(device: Device, tmp_path: Path) -> None:
    folder = tmp_path / "card"
    folder.mkdir()
    device.duties.settings.change({"poll": 777}, values.ORDER)
    reader = card.Card(device.door, str(folder))
    (folder / "save.cose").write_bytes(order("backup", WRAPPED))
    asyncio.run(reader.visit())
    sealed = (folder / "save.cose.backup").read_bytes()
    assert desk.open_backup(sealed, KEY)["poll"] == 777
    device.duties.settings.change({"poll": 60}, values.ORDER)
    (folder / "load.cose").write_bytes(put_back(sealed))
    asyncio.run(reader.visit())
    assert (folder / "load.cose.result").read_text().startswith("OBEYED")
    assert values.Settings().get("poll") == 777


def test_the_serial_line_gives_a_backup_only_after_an_order_of_its_own_and_brings_one(cable: Cable) -> None:
    cable.device.duties.settings.change({"poll": 777}, values.ORDER)
    with ask(cable) as talk:
        with pytest.raises(ToolError, match="KEY_RIGHTS"):
            talk.read(4)
        talk.order(order("backup", WRAPPED))
        sealed = talk.read(4)
        with pytest.raises(ToolError, match="KEY_RIGHTS"):
            talk.read(2)
        assert desk.open_backup(sealed, KEY)["poll"] == 777
        cable.device.duties.settings.change({"poll": 60}, values.ORDER)
        talk.order(put_back(sealed))
    assert values.Settings().get("poll") == 777


class Server:
    """What `courier` needs of an agent."""

    def __init__(self, device: Device, status: int = 0) -> None:
        self.duties, self.takes, self.reports = device.duties, True, "/reports"
        self.server, self.ca = "https://updates.example", b"a certificate"
        self.status = status
        self.got: list[bytes] = []
        self.said: list[str] = []
        self.say = self.said.append

    async def send(self, method: str, url: str, body: bytes = b"", kind: str = "") -> bytes:
        assert (method, url, kind) == ("POST", "/reports", "application/cose")
        if self.status:
            raise http.Failed(reasons.SERVER, "no", 0, self.status)
        self.got.append(body)
        return b""


def test_a_server_gets_a_backup_once_signed_by_the_device_and_knows_it(device: Device) -> None:
    sealed = sealed_in(device)
    server = Server(device)
    asyncio.run(courier.hand_in(server))
    asyncio.run(courier.hand_in(server))
    (document,) = server.got
    assert server.said == ["sekisho: backup sent"]
    public = device.duties._key().public
    assert server_reports.verdict(document, public) == server_reports.VERIFIED
    assert server_reports.verdict(changed(document, 60), public) == server_reports.INVALID
    assert "sealed" in server_reports.shown(document, public)[0]["backup"]
    assert desk.sealed(document) == sealed
    assert desk.open_backup(document, KEY)["poll"] == device.duties.settings.get("poll")
    device.start()
    asyncio.run(courier.hand_in(other := Server(device)))
    assert not other.got, "and not again after a restart"


def test_a_server_that_takes_none_leaves_the_backup_for_another_way(device: Device) -> None:
    sealed_in(device)
    server = Server(device, 404)
    asyncio.run(courier.hand_in(server))
    assert not server.takes
    assert device.duties.backup_document()
    device.start()
    asyncio.run(courier.hand_in(other := Server(device)))
    assert len(other.got) == 1


# -- the desk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sekisho(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(capsys, monkeypatch)


def test_what_the_desk_makes_the_device_obeys(device: Device, sekisho: Runner, tmp_path: Path) -> None:
    device.duties.settings.change({"poll": 777}, values.ORDER)
    (tmp_path / "lamp.kek").write_bytes(KEK)
    (tmp_path / "lamp.kek").chmod(0o600)
    where = f"--device {'-'.join(['00000000', '0000', '0000', '0000', '000000000007'])} --counter"
    key = f"--backup-key {tmp_path}/lamp.bkey --kek {tmp_path}/lamp.kek"
    assert (
        sekisho(f"order create backup {where} 1 --backup-key {tmp_path}/lamp.bkey --out {tmp_path}/b").error == "ORDER"
    )
    made = sekisho(f"order create backup {where} 1 {key} --out {tmp_path}/b")
    assert made.code == 0, made
    assert "wrapped for" in sekisho(f"order inspect {tmp_path}/b").out
    document = desk_orders.sign((tmp_path / "b").read_bytes(), statement_signer())
    assert device.door.order(document) == 0
    (tmp_path / "lamp.backup").write_bytes(device.duties.backup_document())
    shown = sekisho(f"settings open {tmp_path}/lamp.backup --key {tmp_path}/lamp.bkey")
    assert json.loads(shown.out)["poll"] == 777
    device.duties.settings.change({"poll": 60}, values.ORDER)
    assert sekisho(f"order create put-back {where} 2 {key} --out {tmp_path}/p").error == "ORDER"
    made = sekisho(f"order create put-back {where} 2 {key} --attach {tmp_path}/lamp.backup --out {tmp_path}/p")
    assert made.code == 0, made
    with pytest.raises(ToolError, match="ORDER"):
        desk_orders.sign((tmp_path / "p").read_bytes(), statement_signer())
    document = desk_orders.sign(
        (tmp_path / "p").read_bytes(), statement_signer(), attachment=(tmp_path / "lamp.backup").read_bytes()
    )
    (tmp_path / "p.cose").write_bytes(document)
    assert sekisho(f"order inspect {tmp_path}/p.cose").code == 0
    assert device.door.order(document) == 0
    assert values.Settings().get("poll") == 777
    assert server_reports.order_in(document) == "put-back"


def statement_signer() -> Any:
    made: Any = signer("operator")
    made.statement = SimpleNamespace(role="operator", environment="release", label="desk", key_id=made.key_id)
    return made
