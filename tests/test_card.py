"""Files on a card: key sets, orders and releases are taken once, and what became of them is written beside them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from pathlib import Path

import pytest
from helpers import release
from helpers.cli import Runner
from helpers.desk import CLASS, VENDOR
from sekisho import card, orders, record, values
from sekisho_boot.ledger import FETCHING, READY
from sekisho_tools import report as desk_report
from test_door import NEW, UPDATE, Device, _folder, device

assert _folder
assert device


class Inserted:
    """A card in a device."""

    def __init__(self, device: Device, folder: Path) -> None:
        self.device = device
        self.folder = folder
        (folder / "payload").mkdir(parents=True)
        self.insert()

    def insert(self) -> None:
        self.card = self.device.agent.card = card.Card(self.device.door, str(self.folder))

    def put(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)

    def payload(self, content: bytes) -> None:
        self.put("payload/" + hashlib.sha256(content).hexdigest(), content)

    def visit(self) -> None:
        asyncio.run(self.card.visit())

    def result(self, name: str) -> str:
        return (self.folder / f"{name}.result").read_text().split()[0]


@pytest.fixture
def inserted(device: Device, tmp_path: Path) -> Inserted:
    return Inserted(device, tmp_path / "card")


@pytest.mark.requirement("STS05")
def test_an_order_on_a_card_is_obeyed_once_and_its_result_written_beside_it(inserted: Inserted) -> None:
    inserted.put("poll.cose", inserted.device.order("settings", 5, _5={"poll": 600}))
    inserted.put("wrong.cose", inserted.device.order("settings", 6, _2=bytes(16), _5={"poll": 700}))
    inserted.put("bad-value.cose", inserted.device.order("settings", 7, _5={"poll": 1}))
    inserted.visit()
    assert values.Settings().get("poll") == 600
    assert [inserted.result(name) for name in ("poll.cose", "wrong.cose", "bad-value.cose")] == [
        "OBEYED",
        "PERMIT",
        "SETTING",
    ]
    before, events = inserted.device.desk.snapshot(), inserted.device.events()
    inserted.visit()
    inserted.device.start()
    inserted.insert()
    inserted.visit()
    assert inserted.device.desk.snapshot() == before
    assert [one for one in inserted.device.events() if one.startswith("ORDER")] == [
        one for one in events if one.startswith("ORDER")
    ]


def test_orders_are_taken_as_they_were_given_whatever_their_names(inserted: Inserted) -> None:
    inserted.put("a.cose", inserted.device.order("settings", 9, _5={"poll": 900}))
    inserted.put("b.cose", inserted.device.order("settings", 8, _5={"poll": 800}))
    inserted.visit()
    assert values.Settings().get("poll") == 900
    assert (inserted.result("a.cose"), inserted.result("b.cose")) == ("OBEYED", "OBEYED")


def test_after_a_power_cut_the_result_comes_from_the_device_record(inserted: Inserted) -> None:
    inserted.put("poll.cose", inserted.device.order("settings", 5, _5={"poll": 600}))
    inserted.visit()
    (inserted.folder / "poll.cose.result").unlink()  # the power went before it was written
    inserted.device.start()
    inserted.insert()
    inserted.visit()
    assert inserted.result("poll.cose") == "OBEYED"


def test_an_order_that_was_refused_is_judged_again_under_a_newer_key_set(inserted: Inserted) -> None:
    from helpers.keys import ISSUED, YEAR, signer
    from sekisho_tools import cose, keyset

    newcomer = signer("operator", 7)
    members = {1: orders.SETTINGS, 2: bytes(15) + b"\x07", 4: ISSUED + YEAR, 5: {"poll": 600}, 6: 1}
    inserted.put("early.cose", cose.sign1(cose.encode(members), newcomer, attached=True))
    inserted.visit()
    assert inserted.result("early.cose") == "KEY_UNKNOWN"
    newer = inserted.device.desk.keys.next(operators=(keyset.OperatorKey(newcomer.public_key),))
    inserted.put("zz-keyset.cose", newer.document)  # taken first, whatever its name
    inserted.visit()
    assert inserted.result("early.cose") == "OBEYED"
    assert inserted.result("zz-keyset.cose") == "OBEYED"


@pytest.mark.requirement("UPE01", "UPE11")
def test_the_highest_release_of_a_card_is_installed(inserted: Inserted) -> None:
    third = release.make(3, {0: NEW}, vendor=VENDOR, product=CLASS)
    inserted.put("a.suit", UPDATE.envelope)
    inserted.put("b.suit", third.envelope)
    inserted.put("other-product.suit", release.make(9, {0: NEW}, vendor=VENDOR, product=bytes(16)).envelope)
    inserted.payload(NEW)
    inserted.visit()
    assert inserted.result("b.suit") == "STAGED"
    assert inserted.result("other-product.suit") == "CLASS"
    assert inserted.device.phase() == READY
    inserted.device.start()
    assert inserted.device.engine.confirm() == 0
    inserted.device.start()
    inserted.insert()
    inserted.visit()
    assert inserted.device.engine.status()["counters"][0] == 3
    assert inserted.result("b.suit") == "INSTALLED"


def test_without_its_payload_nothing_of_a_release_begins(inserted: Inserted) -> None:
    inserted.put("a.suit", UPDATE.envelope)
    before = inserted.device.desk.snapshot()
    inserted.visit()
    assert inserted.result("a.suit") == "MISSING"
    inserted.put("payload/" + hashlib.sha256(NEW).hexdigest(), NEW[:-1])
    inserted.visit()
    assert inserted.result("a.suit") == "IMAGE_SIZE"
    assert inserted.device.desk.snapshot() == before


def test_a_card_pulled_out_in_the_middle_goes_on_where_it_was(
    inserted: Inserted, monkeypatch: pytest.MonkeyPatch
) -> None:
    inserted.put("a.suit", UPDATE.envelope)
    inserted.payload(NEW)
    put = inserted.device.door.put
    taken: list[int] = []

    def pulled(component: int, data: bytes) -> None:
        if len(taken) == 2:
            shutil.rmtree(inserted.folder)
            raise OSError(5)
        taken.append(len(data))
        put(component, data)

    monkeypatch.setattr(inserted.device.door, "put", pulled)
    inserted.visit()
    assert inserted.device.phase() == FETCHING
    inserted.visit()  # no card, no harm
    monkeypatch.undo()
    (inserted.folder / "payload").mkdir(parents=True)
    inserted.put("a.suit", UPDATE.envelope)
    inserted.payload(NEW)
    inserted.visit()
    assert inserted.device.phase() == READY


def test_junk_on_a_card_is_named_bounded_and_does_no_harm(inserted: Inserted) -> None:
    inserted.put("big.cose", bytes(9000))
    inserted.put("junk.cose", b"\xd2junk")
    inserted.put("empty.cose", b"")
    inserted.put("big.suit", bytes(13_000))
    inserted.put("junk.suit", os.urandom(300))
    (inserted.folder / "folder.cose").mkdir()
    for number in range(100):
        inserted.put(f"z{number:03}.cose", b"junk")
    before = inserted.device.desk.snapshot()
    inserted.visit()
    assert inserted.result("big.cose") == "LIMIT"
    assert inserted.result("big.suit") == "LIMIT"
    assert inserted.device.desk.snapshot() == before
    assert len(list(inserted.folder.glob("*.result"))) <= card.MAX_FILES + card.MAX_RELEASES


@pytest.mark.requirement("SSS05")
def test_an_order_for_a_report_finds_report_and_log_on_the_card(inserted: Inserted) -> None:
    inserted.put("report.cose", inserted.device.order("report", 5, _5=b"\x07"))
    inserted.visit()
    assert not (inserted.folder / "report.cose.report").exists()
    asyncio.run(inserted.device.duties._report())
    inserted.visit()
    document = (inserted.folder / "report.cose.report").read_bytes()
    told = desk_report.parse(document)
    assert told.device.bytes == bytes(15) + b"\x07"
    assert (inserted.folder / "report.cose.log").read_bytes() == inserted.device.duties.log.export()
    assert inserted.device.duties.record.get(record.WANTED) is None


def test_a_card_is_written_at_the_desk(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    for name, content in (("lamp.suit", b"suit"), ("lamp.bin", b"bin"), ("keyset.cose", b"keys")):
        (tmp_path / name).write_bytes(content)
    sekisho = Runner(capsys, monkeypatch)
    told = sekisho(f"update card {tmp_path}/lamp.suit {tmp_path}/lamp.bin {tmp_path}/keyset.cose --to {tmp_path}/sd")
    assert told.code == 0
    found = {path.relative_to(tmp_path / "sd").as_posix() for path in (tmp_path / "sd").rglob("*") if path.is_file()}
    assert found == {"lamp.suit", "keyset.cose", "payload/" + hashlib.sha256(b"bin").hexdigest()}


def test_a_simulated_device_without_network_is_updated_and_ordered_from_its_card(tmp_path: Path) -> None:
    from helpers import site
    from helpers.keys import ISSUED, YEAR, make_keyset, signer
    from helpers.site import Product, consoles, run
    from sekisho_tools import cose
    from test_door import put_files

    product = Product(tmp_path, settings={"wifi": [], "server": ""}, keys=make_keyset(operators=1))
    app = "import sekisho\nasync def main():\n    sekisho.folder('/data')\n"
    product.personalities.default = product.personality(application=app)
    new = site.firmware("new", 12_000)
    product.offer(2, new, application=app)
    members = {1: orders.SETTINGS, 2: [1, product.device.classes[0]], 4: ISSUED + YEAR, 5: {"poll": 600}, 6: 1}
    order = cose.sign1(cose.encode(members), signer("operator"), attached=True)
    world = product.factory(site.firmware("old", 20_000))
    put_files(
        world,
        {
            "poll.cose": order,
            "lamp.suit": product.release(2, new),
            "payload/" + hashlib.sha256(new).hexdigest(): new,
        },
    )
    console = consoles(run(world, "sekisho: confirmed"))
    assert console.count("order obeyed") == 1
    assert "release 2 staged" in console
    assert "cannot be used" not in console
