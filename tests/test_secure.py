"""The secure component: everything that uses secrets goes through one interface, and another one fits in its place."""

from __future__ import annotations

import asyncio
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.asymmetric import ed25519
from helpers.element import P256
from helpers.keys import signer
from sekisho import devicekey, efuse, issued, payload, report, secure
from sekisho import wipe as device_wipe
from sekisho_boot import cose as device_cose
from sekisho_boot import reasons
from sekisho_boot.reasons import Refused
from sekisho_tools import config, cose, strict_cbor, wipe
from sekisho_tools import issued as issued_desk
from sekisho_tools import report as desk_report
from sekisho_tools.device_code import LIB
from sekisho_tools.errors import ToolError
from sekisho_tools.server import reports as server_reports
from test_door import Device, _folder, device

assert _folder
assert device


class Element(secure.Software):
    """A component with opaque keys: neither the device key nor a key-encryption key can be read out of it, and its
    counter is its own, as in an ATECC608 or behind the HMAC peripheral."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.__private = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
        self.__counter = 3
        self.asked: list[str] = []

    def public(self) -> bytes:
        return self.__private.public_key().public_bytes_raw()

    def made(self) -> bool:
        return False

    def sign(self, message: bytes) -> bytes:
        self.asked.append("sign")
        return self.__private.sign(bytes(message))

    def random(self, size: int) -> bytes:
        self.asked.append("random")
        return b"\x42" * size

    def keks(self) -> list[Any]:
        element = self

        class Slot:
            id = issued.Kek(bytes(16)).id

            def unwrap(self, wrapped: bytes) -> bytes:
                element.asked.append("unwrap")
                return keywrap.aes_key_unwrap(bytes(16), wrapped)

        return [Slot()]

    def counter(self) -> int:
        return self.__counter

    def advance(self, target: int) -> int:
        self.asked.append("advance")
        self.__counter = max(self.__counter, target)
        return self.__counter

    def state(self) -> dict[int, bool]:
        return {1: True, 2: True, 3: True, 4: True}


@pytest.fixture
def element(monkeypatch: pytest.MonkeyPatch) -> Element:
    """The product of a test chose its own component."""
    made = Element(None)
    product: Any = types.ModuleType("our_element")
    product.Component = lambda config: made
    monkeypatch.setitem(sys.modules, "our_element", product)
    chosen: Any = types.ModuleType("sekisho_config")
    chosen.SECURE, chosen.CHIP = "our_element", 0
    monkeypatch.setitem(sys.modules, "sekisho_config", chosen)
    return made


@pytest.mark.requirement("UPE12", "UPE16")
def test_a_component_with_opaque_keys_signs_reports_without_any_change(element: Element, device: Device) -> None:
    device.desk.config.SECURE = "our_element"
    made = asyncio.run(device.duties.reporter.make(devicekey.DeviceKey(), b"nonce"))
    verdict = desk_report.verify(made, element.public(), nonce=b"nonce")
    assert not any("signature" in finding.text for finding in verdict.findings)
    assert verdict.report.ours[report.HARDWARE] == {1: True, 2: True, 3: True, 4: True}
    assert element.asked == ["sign"]
    assert not list(Path(devicekey.PATH).parent.glob("sekisho.devicekey*")), "no seed was kept in flash"


@pytest.mark.requirement("UPE12", "STS07")
def test_a_component_with_opaque_keys_opens_encrypted_payloads(element: Element) -> None:
    (slot,) = payload.device_keys()
    content = bytes(range(16))
    assert payload._unwrap(slot, keywrap.aes_key_wrap(bytes(16), content), 16) == content
    assert element.asked == ["unwrap"]
    assert not hasattr(slot, "_key")


@pytest.mark.parametrize("algorithm", [-7, -9], ids=["ES256", "ESP256"])
@pytest.mark.requirement("UPE12")
def test_reports_of_a_p256_component_are_believed_at_the_desk_and_at_the_server(device: Device, algorithm: int) -> None:
    key = devicekey.DeviceKey(P256(algorithm))
    made = asyncio.run(device.duties.reporter.make(key, b"nonce"))
    parts = strict_cbor.loads(made).value
    assert strict_cbor.loads(parts[0]) == {1: algorithm}
    assert parts[1] == {4: device_cose.key_id(key.public)}
    assert desk_report.verify(made, key.public, nonce=b"nonce").report.device.bytes == device.engine.port.device
    assert server_reports.verdict(made, key.public) == server_reports.VERIFIED
    other = devicekey.DeviceKey(P256(algorithm))
    changed = made[:-1] + bytes([made[-1] ^ 1])
    for document, public in ((changed, key.public), (made, other.public), (made, key.public[:32])):
        with pytest.raises(ToolError, match=r"SIGNATURE|KEY_UNKNOWN"):
            desk_report.verify(document, public)
        assert server_reports.verdict(document, public) == server_reports.INVALID


def test_the_type_of_a_device_key_says_how_it_is_checked_and_not_the_document() -> None:
    edwards, curve = ed25519.Ed25519PrivateKey.generate(), P256()
    public = edwards.public_key().public_bytes_raw()
    assert cose.verify_by_device(public, b"x", edwards.sign(b"x"), -19)
    assert cose.verify_by_device(curve.public(), b"x", curve.sign(b"x"), -7)
    assert not cose.verify_by_device(public, b"x", edwards.sign(b"x"), -9)
    assert not cose.verify_by_device(curve.public(), b"x", curve.sign(b"x"), -19)
    assert not cose.verify_by_device(curve.public(), b"y", curve.sign(b"x"))
    assert not cose.verify_by_device(curve.public(), b"x", bytes(64))
    for wrong in (b"", bytes(33), bytes(64), curve.public()[:-1] + bytes([curve.public()[-1] ^ 1])):
        with pytest.raises(ToolError, match="KEY_FORMAT"):
            cose.device_key_type(wrong)
        assert not server_reports.usable(wrong)
    assert server_reports.usable(curve.public())


@pytest.mark.requirement("UPE12", "HLC07")
def test_the_last_statement_of_a_p256_component_is_believed() -> None:
    key = devicekey.DeviceKey(P256())
    made = device_wipe.statement(key, bytes(16), 1_767_225_600, 6, bytes(8), [7, bytes(32)], device_wipe.DONE)
    assert wipe.verify(made, key.public).done
    assert server_reports.last_words(made, key.public) == "decommission"
    with pytest.raises(ToolError, match="SIGNATURE"):
        wipe.verify(made[:-1] + bytes([made[-1] ^ 1]), key.public)


def test_an_issuing_record_says_which_type_of_key_its_device_has(tmp_path: Path) -> None:
    public = P256().public()
    record = issued_desk.IssuingRecord(
        "5d0be3f0-0000-4000-8000-000000000001", None, "lamp", "acme.example", "c", "release", public.hex(),
        "00" * 32, 1, "b", 1, "2026-01-01T00:00:00+00:00", key_type=cose.P256,
    )  # fmt: skip
    (tmp_path / "record.json").write_text(record.to_json())
    assert issued_desk.read_record(tmp_path) == record
    (tmp_path / "record.json").write_text(record.to_json().replace('"P-256"', '"Ed25519"'))
    with pytest.raises(ToolError, match="RECORD"):
        issued_desk.read_record(tmp_path)


@pytest.mark.requirement("UPE16")
def test_the_floor_is_raised_in_the_counter_of_the_component(element: Element) -> None:
    class Image:
        size = 4096

        def read(self, off: int, buf: Any) -> None:
            buf[:] = bytes(len(buf))

    floors = []

    class Port:
        running, fw = 0, [Image(), Image()]
        config = SimpleNamespace(EFUSE_FLOOR=True, CHIP=0)

    class Engine:
        port = Port
        state = SimpleNamespace(phase=0, degraded=0, chosen=0)

        def keyset(self) -> Any:
            return SimpleNamespace(hw_floor=5)

    from sekisho_boot import image

    image.secure_version, kept = lambda part: 4, image.secure_version
    try:
        floors.append(efuse.raise_floor(Engine(), element))
    finally:
        image.secure_version = kept
    assert floors == [4]
    assert element.asked == ["advance"]


@pytest.mark.requirement("UPE12")
def test_the_component_is_the_one_that_the_product_chose() -> None:
    def chosen(**members: Any) -> Any:
        return secure.component(SimpleNamespace(CHIP=0, **members))

    assert type(chosen()) is secure.Esp32
    assert type(chosen(SECURE="esp32")) is secure.Esp32
    assert type(chosen(SECURE="software")) is secure.Software
    with pytest.raises(ImportError):
        chosen(SECURE="no_such_module_of_a_product")


def test_software_keeps_its_key_verifies_as_the_engine_does_and_counts_nothing(device: Device) -> None:
    one = secure.Software(None)
    assert one.made()
    again = secure.Software(None)
    assert (again.public(), again.made()) == (one.public(), False)
    signature = again.sign(b"message")
    assert one.verify(one.public(), b"message", signature)
    assert not one.verify(one.public(), b"messagf", signature)
    assert not one.verify(signer("root", 0).public_key, b"message", signature)
    for call in (one.counter, lambda: one.advance(1)):
        with pytest.raises(Refused) as caught:
            call()
        assert reasons.name(caught.value.code) == "NOTHING"
    assert one.state() is None
    assert len(one.random(33)) == 33
    one.forget()
    assert secure.Software(None).public() != again.public()
    assert device


@pytest.mark.requirement("UPE16")
def test_the_esp32_back_end_burns_only_where_the_product_opted_in(monkeypatch: pytest.MonkeyPatch) -> None:
    from test_efuse_floor import Registers

    registers = Registers()
    machine: Any = types.ModuleType("machine")
    machine.mem32 = registers
    monkeypatch.setitem(sys.modules, "machine", machine)
    careful = secure.Esp32(SimpleNamespace(CHIP=0))
    with pytest.raises(Refused):
        careful.advance(2)
    assert registers.fuses.burns == 0
    opted = secure.Esp32(SimpleNamespace(CHIP=0, EFUSE_FLOOR=True))
    assert (opted.counter(), opted.advance(2), opted.counter(), opted.advance(1)) == (0, 2, 2, 2)
    assert opted.state() == {1: False, 2: False, 3: False, 4: False}
    with pytest.raises(Refused):
        secure.Esp32(SimpleNamespace(CHIP=9, EFUSE_FLOOR=True)).counter()


def test_nothing_else_in_the_library_touches_seeds_or_efuse_registers() -> None:
    """Who needs a secret asks the component; whoever is added to this list must have a reason."""
    allowed = {"secure.py", "devicekey.py", "efuse.py", "hardware.py", "signing.py", "ciphers.py", "issued.py"}
    for path in sorted((LIB / "sekisho").glob("*.py")):
        text = path.read_text()
        for word in ("mem32", "from .signing", "from .ciphers import unwrap", "ciphers.unwrap"):
            assert word not in text or path.name in allowed, (path.name, word)


def test_a_configuration_names_only_what_there_is() -> None:
    from helpers.keys import make_keyset

    document = make_keyset().document
    made = config.make("example.com", ["lamp"], document, "esp32", interfaces=["serial"], hardware=["secure-boot"],
                       secure="our_element")  # fmt: skip
    module: dict[str, Any] = {}
    exec(config.render(made), module)
    assert (module["INTERFACES"], module["HARDWARE"], module["SECURE"]) == (
        ("serial",),
        ("secure-boot",),
        "our_element",
    )
    for wrong in ({"interfaces": ["telnet"]}, {"hardware": ["luck"]}, {"secure": "not a name"}):
        with pytest.raises(ToolError):
            config.render(config.make("example.com", ["lamp"], document, "esp32", **wrong))  # type: ignore[arg-type]
