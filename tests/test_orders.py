"""Operator orders: who may give them, to whom, once, in order, and what a power cut makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import powercut, release
from helpers.cli import Runner
from helpers.desk import CLASS, VENDOR, Desk, ResetError, Up, fetch, firmware
from helpers.keys import ISSUED, YEAR, make_keyset, signer
from helpers.site import Product
from sekisho import orders, policy, record, values
from sekisho.orders import Orders
from sekisho_boot import reasons
from sekisho_boot.ledger import LOCK
from sekisho_boot.reasons import Refused
from sekisho_sim.flash import cut_states
from sekisho_tools import cose, keys, keyset
from sekisho_tools import order as desk_orders

DEVICE = bytes(15) + b"\x07"
OLD, NEW = firmware("old"), firmware("new")
FACTORY = release.make(1, {0: OLD}, vendor=VENDOR, product=CLASS)
UPDATE = release.make(2, {0: NEW}, vendor=VENDOR, product=CLASS)
MANIFEST = bytes(range(32))


class Bench:
    """A device that trusts three operators: all rights, settings only, all rights for another class."""

    def __init__(self, folder: Path, **members: Any) -> None:
        self.folder = folder
        operators = (
            keyset.OperatorKey(signer("operator", 0).public_key),
            keyset.OperatorKey(signer("operator", 1).public_key, (orders.SETTINGS,)),
            keyset.OperatorKey(signer("operator", 2).public_key, classes=(bytes(16),)),
        )
        self.desk = Desk(keys=make_keyset(operators=0, **members).next(version=1))
        made = make_keyset(**members)
        self.desk = Desk(keys=made.next(version=1, operators=operators))
        self.desk.factory(FACTORY, OLD)
        self.events: list[tuple[int, int, bytes]] = []
        self.start()

    def start(self) -> Orders:
        self.up: Up = self.desk.power_on()
        self.engine = self.up.engine
        self.part = self.up.port.part
        self.settings = values.Settings()
        self.orders = Orders(
            self.engine, record.Record(self.part), self.settings, lambda *event: self.events.append(event)
        )
        return self.orders

    def order(self, action: str, counter: int | None = 1, *, key: int | Any = 0, **changes: Any) -> bytes:
        """A signed order to this device; *changes* by member number, as _4=...; None leaves one out."""
        members: dict[int, Any] = {1: orders.ACTIONS[action][0], 2: DEVICE, 4: ISSUED + YEAR, 6: counter, 7: "why"}
        members.update({int(name[1:]): value for name, value in changes.items()})
        payload = cose.encode({number: value for number, value in members.items() if value is not None})
        return cose.sign1(payload, signer("operator", key) if isinstance(key, int) else key, attached=True)

    def refusal(self, document: bytes) -> str:
        before = self.desk.snapshot()
        with pytest.raises(Refused) as caught:
            self.orders.obey(document)
        assert self.desk.snapshot() == before, "a refused order changed something"
        return reasons.name(caught.value.code)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(values, "KEPT", str(tmp_path / "settings"))
    return Bench(tmp_path)  # type: ignore[return-value]


@pytest.mark.requirement("STS05")
def test_an_operator_changes_settings(bench: Bench) -> None:
    assert bench.orders.obey(bench.order("settings", _5={"poll": 600, "groups": ["north"]})) == 0
    assert values.Settings().get("poll") == 600
    assert bench.events[-1][:2] == (0, orders.SETTINGS)
    assert bench.orders.record.get(record.RESULTS)[0][1:3] == [orders.SETTINGS, 0]


@pytest.mark.requirement("STS05", "UPE03", "UPE04")
@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("KEY_RIGHTS", {"key": 1, "action": "wipe"}),
        ("KEY_RIGHTS", {"key": 1, "action": "approve", "_5": MANIFEST}),
        ("KEY_RIGHTS", {"key": 2}),
        ("KEY_UNKNOWN", {"key": signer("operator", 9)}),
        ("KEY_UNKNOWN", {"key": signer("release", 0)}),
        ("KEY_UNKNOWN", {"key": signer("root", 0)}),
        ("PERMIT", {"_2": bytes(16)}),
        ("PERMIT", {"_2": [1, bytes(16)]}),
        ("PERMIT", {"_2": [2, "north"]}),
        ("PERMIT", {"_2": [3, CLASS]}),
        ("PERMIT", {"_2": []}),
        ("PERMIT", {"_2": "x"}),
        ("PERMIT", {"_2": None}),
        ("PERMIT_EXPIRED", {"_4": ISSUED}),
        ("PERMIT_EXPIRED", {"_4": 1}),
        ("PERMIT", {"_4": None}),
        ("PERMIT", {"_4": 0}),
        ("PERMIT", {"_4": 1 << 63}),
        ("PERMIT", {"_4": "later"}),
        ("PERMIT", {"_6": None}),
        ("PERMIT", {"_6": True}),
        ("PERMIT", {"_6": -1}),
        ("PERMIT", {"_3": 5}),
        ("PERMIT", {"_3": 5, "_6": None}),
        ("PERMIT", {"_1": 99}),
        ("PERMIT", {"_1": None}),
        ("PERMIT", {"_7": 5}),
        ("PERMIT", {"_8": 5}),
        ("LIMIT", {"_7": "x" * 2048}),
        ("LIMIT", {"_5": [[[[[[[1]]]]]]]}),
    ],
)
def test_what_is_not_obeyed(bench: Bench, reason: str, changes: dict[str, Any]) -> None:
    action = changes.pop("action", "settings")
    assert bench.refusal(bench.order(action, **{"_5": {"poll": 600}, **changes})) == reason
    assert bench.settings.get("poll") == values.POLL
    assert bench.events[-1][0] == getattr(reasons, reason)


def test_an_order_by_a_revoked_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "KEPT", str(tmp_path / "settings"))
    bench = Bench(tmp_path)
    document = bench.order("restore")
    newer = bench.desk.keys.next(operators=(), revoked_keys=(signer("operator", 0).key_id,))
    bench.engine.accept_keyset(newer.document)
    assert bench.refusal(document) == "KEY_REVOKED"


@pytest.mark.parametrize("at", range(0, 160, 3))
def test_no_changed_byte_is_obeyed(bench: Bench, at: int) -> None:
    document = bytearray(bench.order("settings", _5={"poll": 600}))
    at = min(at, len(document) - 1)
    document[at] ^= 1
    with pytest.raises(Refused):
        bench.orders.obey(bytes(document))
    assert bench.settings.get("poll") == values.POLL


@pytest.mark.parametrize("junk", [b"", b"\xd2", b"\xd2\x84", bytes(100), b"\xff" * 3000, b"\xd2\x84\x40\xa0\xf6\x40"])
def test_junk_is_refused_by_name(bench: Bench, junk: bytes) -> None:
    assert bench.refusal(junk) in ("CBOR", "COSE", "LIMIT", "PERMIT")


def test_an_order_is_obeyed_once_and_older_ones_never_after_it(bench: Bench) -> None:
    first = bench.order("settings", 5, _5={"poll": 600})
    assert bench.orders.obey(first) == 0
    events = len(bench.events)
    assert bench.refusal(first) == "ORDER_REPLAY"
    assert len(bench.events) == events  # the same file was found again
    bench.start()
    assert bench.refusal(first) == "ORDER_REPLAY"
    assert bench.refusal(bench.order("settings", 4, _5={"poll": 700})) == "ORDER_REPLAY"
    assert bench.orders.obey(bench.order("settings", 1, key=1, _5={"poll": 800})) == 0  # each key counts for itself
    assert bench.orders.obey(bench.order("settings", 6, _5={"poll": 900})) == 0
    assert values.Settings().get("poll") == 900


def test_a_counter_serves_one_order_and_no_other(bench: Bench) -> None:
    assert bench.orders.obey(bench.order("settings", 5, _5={"poll": 600})) == 0
    assert bench.refusal(bench.order("settings", 5, _5={"poll": 700})) == "ORDER_REPLAY"
    assert bench.orders.obey(bench.order("settings", 6, _5={"poll": 700})) == 0


def test_a_device_remembers_32_signers_and_no_more(bench: Bench) -> None:
    others = [[bytes([number]) * 8, 1] for number in range(orders.MAX_SIGNERS)]
    bench.orders.record.update({record.COUNTERS: others})
    assert bench.refusal(bench.order("settings", _5={"poll": 600})) == "LIMIT"
    bench.orders.record.update({record.COUNTERS: others[1:]})
    assert bench.orders.obey(bench.order("settings", _5={"poll": 600})) == 0
    assert len(bench.orders.record.get(record.COUNTERS)) == orders.MAX_SIGNERS


def test_a_refused_argument_is_a_result_and_its_counter_is_used_up(bench: Bench) -> None:
    document = bench.order("settings", 5, _5={"poll": 1})
    assert reasons.name(bench.orders.obey(document)) == "SETTING"
    assert bench.orders.record.get(record.RESULTS)[0][2] == reasons.SETTING
    assert bench.refusal(document) == "ORDER_REPLAY"
    for number, (action, argument) in enumerate(
        [
            ("approve", b"short"),
            ("approve", None),
            ("postpone", MANIFEST),
            ("postpone", [MANIFEST, "x"]),
            ("report", bytes(65)),
            ("wipe", b"x"),
            ("transfer", 5),
            ("settings", None),
            ("restore", 1),
        ],
        start=6,
    ):
        assert reasons.name(bench.orders.obey(bench.order(action, number, _5=argument))) == "PERMIT", action
    assert record.Record(bench.part).get(record.LIFE) is None


def test_classes_and_groups_are_addressed(bench: Bench) -> None:
    assert bench.orders.obey(bench.order("settings", 1, _2=[1, CLASS], _5={"groups": ["north"]})) == 0
    assert bench.orders.obey(bench.order("settings", 2, _2=[2, "north"], _5={"poll": 600})) == 0
    assert bench.refusal(bench.order("settings", 3, _2=[2, "south"], _5={"poll": 600})) == "PERMIT"


def test_a_nonce_serves_one_order_to_one_device(bench: Bench) -> None:
    nonce = bench.engine.nonce()
    for bad in (nonce + 1, 1):
        assert bench.refusal(bench.order("settings", None, _3=bad, _5={"poll": 600})) == "PERMIT"
    assert bench.refusal(bench.order("settings", None, _2=[1, CLASS], _3=nonce, _5={"poll": 600})) == "PERMIT"
    assert bench.orders.obey(bench.order("settings", None, _3=nonce, _5={"poll": 600})) == 0
    again = bench.order("settings", None, _3=nonce, _5={"poll": 700})
    assert bench.refusal(again) == "PERMIT"
    bench.start()
    assert bench.refusal(again) == "PERMIT"
    assert bench.engine.nonce() != nonce


@pytest.mark.requirement("STS06")
def test_restore_takes_the_secure_defaults_of_the_key_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "KEPT", str(tmp_path / "settings"))
    bench = Bench(tmp_path, settings={"poll": 900, "lockout_tries": 3})
    assert bench.orders.obey(bench.order("settings", 1, _5={"poll": 60, "interfaces": ["repl"]})) == 0
    assert bench.orders.obey(bench.order("restore", 2)) == 0
    restored = values.Settings()
    assert [restored.get(name) for name in ("poll", "interfaces", "lockout_tries")] == [900, [], 3]


@pytest.mark.requirement("UPD11", "UPE04", "UPE06")
def test_decisions_by_order_outrank_those_made_at_the_device(bench: Bench) -> None:
    kept = bench.orders.record
    assert kept.decide(MANIFEST, policy.APPROVE, 0, values.ADMIN)
    assert bench.orders.obey(bench.order("refuse", 1, _5=MANIFEST)) == 0
    assert not kept.decide(MANIFEST, policy.APPROVE, 0, values.ADMIN)
    assert record.Record(bench.part).decision(MANIFEST) == (policy.REFUSE, 0, values.ORDER)
    assert bench.orders.obey(bench.order("postpone", 2, _5=[MANIFEST, ISSUED])) == 0
    assert bench.orders.obey(bench.order("approve", 3, _5=MANIFEST)) == 0
    assert record.Record(bench.part).decision(MANIFEST) == (policy.APPROVE, 0, values.ORDER)
    assert bench.orders.obey(bench.order("settings", 4, _5={"held": ["update_enabled"]})) == 0
    with pytest.raises(Refused):
        bench.settings.change({"update_enabled": False}, values.ADMIN)


@pytest.mark.requirement("UPE03", "UPE02")
def test_a_rollback_is_judged_by_the_engine_and_its_result_kept(bench: Bench) -> None:
    fetch(bench.engine, UPDATE.envelope, UPDATE.payloads)
    bench.start()
    assert bench.engine.confirm() == 0
    bench.start()
    nonce = bench.engine.nonce()
    wrong = bench.order("rollback", None, _3=nonce, _5=MANIFEST)
    assert reasons.name(bench.orders.obey(wrong)) == "PERMIT_TARGET"
    assert bench.refusal(bench.order("rollback", 9, _5=FACTORY.plan.digest)) == "PERMIT"
    with pytest.raises(ResetError):
        bench.orders.obey(bench.order("rollback", None, _3=nonce, _5=FACTORY.plan.digest))
    bench.start()
    assert (bench.up.running, bench.up.decision.trial) == (0, True)
    assert bench.orders.record.get(record.RESULTS)[0][1:3] == [orders.ROLLBACK, 0]


def test_only_an_order_unlocks_and_only_once(bench: Bench) -> None:
    bench.engine.ledger.append(LOCK, 1)
    bench.start()
    with pytest.raises(Refused):
        bench.engine.accept(UPDATE.envelope)
    nonce = bench.engine.nonce()
    assert bench.refusal(bench.order("unlock", None, key=1, _3=nonce, _5=b"")) == "KEY_RIGHTS"
    assert bench.refusal(bench.order("unlock", 5, _5=b"")) == "PERMIT"
    with pytest.raises(Refused):  # the right number at the wrong door
        bench.engine.rollback(bench.order("unlock", None, _3=nonce, _5=b""))
    document = bench.order("unlock", None, _3=nonce, _5=b"")
    assert bench.orders.obey(document) == 0
    bench.start()
    assert not bench.engine.status()["locked"]
    bench.engine.accept(UPDATE.envelope)
    bench.engine.ledger.append(LOCK, 1)
    bench.orders.record.update({record.RESULTS: None})
    assert bench.refusal(document) == "PERMIT"


@pytest.mark.parametrize("action", ["wipe", "transfer", "decommission"])
def test_wipe_orders_are_kept_for_the_next_start(bench: Bench, action: str) -> None:
    assert bench.orders.obey(bench.order(action)) == 0
    assert bench.orders.restart
    assert record.Record(bench.part).get(record.LIFE) == [record.WIPING, orders.ACTIONS[action][0]]


# -- power cuts --------------------------------------------------------------------------------------------------------


def test_a_cut_at_any_flash_state_leaves_an_order_not_begun_or_obeyed_once(bench: Bench) -> None:
    document = bench.order("approve", 7, _5=MANIFEST)
    base = bench.desk.snapshot()
    bench.desk.flash.log.clear()
    assert bench.orders.obey(document) == 0
    outcomes = set()
    for name, state in cut_states(base, bench.desk.ops(), seeds=(0, 1)):
        bench.desk.restore(state)
        bench.start().resume()
        kept = bench.orders.record
        assert not kept.lost, name
        assert kept.get(record.PENDING) is None, name
        if kept.get(record.COUNTERS):
            assert kept.decision(MANIFEST) == (policy.APPROVE, 0, 3), name
            assert bench.refusal(document) == "ORDER_REPLAY", name
            outcomes.add("obeyed")
        else:
            assert bench.orders.obey(document) == 0, name
            outcomes.add("not begun")
        again = record.Record(bench.part)  # and what was acted upon stays
        assert again.values == bench.orders.record.values, name
    assert outcomes == {"obeyed", "not begun"}


def test_an_order_that_never_ends_is_given_up_with_a_reason(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class PowerCutError(BaseException):
        pass

    def dies(*_: Any) -> None:
        raise PowerCutError

    monkeypatch.setattr(values.Settings, "change", dies)
    with pytest.raises(PowerCutError):
        bench.orders.obey(bench.order("settings", 1, _5={"poll": 600}))
    for _ in range(2):
        bench.start()
        with pytest.raises(PowerCutError):
            bench.orders.resume()
    bench.start().resume()
    assert reasons.name(bench.orders.record.get(record.RESULTS)[0][2]) == "ENGINE_FAULT"
    bench.start().resume()


def test_a_record_that_cannot_be_read_lets_only_an_order_with_a_nonce_in(bench: Bench) -> None:
    assert bench.orders.obey(bench.order("restore", 5)) == 0
    for sector in record.SECTORS:
        at = bench.desk.layout["sekisho"].offset + sector * 4096 + 20
        bench.desk.flash.buffer[at] ^= 0xFF
    bench.start()
    assert bench.orders.record.lost
    assert bench.refusal(bench.order("restore", 6)) == "ORDER_REPLAY"
    assert bench.orders.obey(bench.order("restore", None, _3=bench.engine.nonce())) == 0
    assert not bench.start().record.lost
    assert bench.orders.obey(bench.order("restore", 6)) == 0


ON_DEVICE = """
import gc
import sekisho
from sekisho.record import Record, COUNTERS, RESULTS
from sekisho.orders import Orders
from sekisho.values import Settings
from sekisho_boot.reasons import Refused, name
engine = sekisho.engine()
settings = Settings()
orders = Orders(engine, Record(engine.port.part), settings)
orders.resume()
gc.collect()
free = gc.mem_free()
print("before", settings.get("poll"))
try:
    print("obeyed", orders.obey({document!r}))
except Refused as refused:
    print("refused", name(refused.code))
print("poll", Settings().get("poll"), [r[2] for r in orders.record.get(RESULTS, [])])
"""


def test_cuts_on_the_simulated_device_with_its_file_system(tmp_path: Path) -> None:
    """Settings lie on littlefs, the order in the device record: the two never disagree for longer than a start."""
    product = Product(tmp_path, server="http://old", keys=make_keyset(operators=1))
    members = {1: 1, 2: [1, product.device.classes[0]], 4: ISSUED + YEAR, 5: {"poll": 600}, 6: 1}
    document = cose.sign1(cose.encode(members), signer("operator"), attached=True)
    ends = set()
    for name, console in powercut.consoles(product, ON_DEVICE.format(document=document), of=80):
        assert "poll 600 [0]" in console, (name, console)
        ends.add("refused ORDER_REPLAY" in console)
    assert ends == {True, False}


# -- the desk ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sekisho(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(capsys, monkeypatch)


def test_an_order_is_created_signed_inspected_and_sent(sekisho: Runner, bench: Bench, tmp_path: Path) -> None:
    made = keys.generate("op", tmp_path, "operator", "development")
    other = keys.generate("rel", tmp_path, "release", "development")
    device = "00000000-0000-0000-0000-000000000007"
    draft, signed = tmp_path / "draft", tmp_path / "order.cose"
    line = f"order create settings poll=600 --device {device} --expires 30d --reason quiet --out {draft}"
    assert sekisho(line).code == 0
    assert sekisho(f"order sign {draft} --key {other.private} --out {signed}").error == "KEY_ROLE"
    assert sekisho(f"order sign {draft} --key {made.private} --out {signed}").code == 0
    assert "order settings" in (tmp_path / "signing-log.jsonl").read_text()
    shown = sekisho(f"order inspect {signed}").out
    assert "poll = 600" in shown
    assert f"device {device}" in shown
    operator = keyset.OperatorKey(made.statement.public_key, (orders.SETTINGS,))
    key_set = tmp_path / "keyset.cose"
    key_set.write_bytes(bench.desk.keys.next(operators=(operator,)).document)
    assert "has the right" in sekisho(f"order inspect {signed} --key-set {key_set}").out
    key_set.write_bytes(bench.desk.keys.document)
    assert sekisho(f"order inspect {signed} --key-set {key_set}").error == "KEY_UNKNOWN"
    assert sekisho(f"order send {signed} --site {tmp_path} --device {device}").code == 0
    assert (tmp_path / "orders" / f"{device}.cose").read_bytes() == signed.read_bytes()
    assert sekisho(f"order send {draft} --site {tmp_path} --device {device}").error == "COSE"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("dance --group a", "ORDER"),
        ("restore", "ORDER"),
        ("restore --group a --class 00000000-0000-0000-0000-000000000007", "ORDER"),
        ("restore extra --group a", "ORDER"),
        ("settings poll=1 --group a", "SETTING"),
        ("settings poll --group a", "SETTING"),
        ("approve 00 --group a", "ORDER"),
        ("unlock --group a", "ORDER"),
        ("unlock --device 00000000-0000-0000-0000-000000000007", "ORDER"),
        ("restore --group a --expires never", "ORDER"),
        ("restore --group a --expires 1", "ORDER"),
        (f"postpone {MANIFEST.hex()} --group a", "ORDER"),
    ],
)
def test_orders_that_no_device_would_obey_are_not_made(sekisho: Runner, tmp_path: Path, line: str, error: str) -> None:
    assert sekisho(f"order create {line} --out {tmp_path / 'draft'}").error == error
    assert not (tmp_path / "draft").exists()


def test_what_the_desk_makes_the_device_obeys(bench: Bench) -> None:
    made = desk_orders.create(
        "interfaces",
        desk_orders.Address(group="north"),
        argument=["console"],
        now=ISSUED,
        reason="Wartung \u6771\u4eac",
    )
    bench.settings.change({"groups": ["north"]}, values.ORDER)
    document = cose.sign1(made.encode(), signer("operator"), attached=True)
    assert bench.orders.obey(document) == 0
    assert values.Settings().get("interfaces") == ["console"]
    results = [tuple(one) for one in bench.orders.record.get(record.RESULTS)]
    assert desk_orders.status(document, results).startswith("obeyed at")
