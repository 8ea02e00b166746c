"""The secure component: everything that uses secrets goes through one interface, and another one fits in its place."""

from __future__ import annotations

import asyncio
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from helpers.keys import signer
from sekisho import devicekey, efuse, issued, payload, report, secure
from sekisho_boot import cose as device_cose
from sekisho_boot import reasons
from sekisho_boot.reasons import Refused
from sekisho_tools import config, strict_cbor
from sekisho_tools import report as desk_report
from sekisho_tools.device_code import LIB
from sekisho_tools.errors import ToolError
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
    assert payload._unwrap(slot, keywrap.aes_key_wrap(bytes(16), content)) == content
    assert element.asked == ["unwrap"]
    assert not hasattr(slot, "_key")


def test_a_component_of_another_algorithm_says_so_in_what_it_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    private = ec.generate_private_key(ec.SECP256R1())

    class Atecc(Element):
        ALGORITHM = -9

        def public(self) -> bytes:
            numbers = private.public_key().public_numbers()
            return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")

        def sign(self, message: bytes) -> bytes:
            r, s = utils.decode_dss_signature(private.sign(bytes(message), ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    key = devicekey.DeviceKey(Atecc(None))
    parts = strict_cbor.loads(key.sign1(b"claims")).value
    assert strict_cbor.loads(parts[0]) == {1: -9}
    assert parts[1] == {4: device_cose.key_id(key.public)}
    signature = utils.encode_dss_signature(int.from_bytes(parts[3][:32], "big"), int.from_bytes(parts[3][32:], "big"))
    signed = strict_cbor_signed(parts[0], parts[2])
    private.public_key().verify(signature, signed, ec.ECDSA(hashes.SHA256()))


def strict_cbor_signed(protected: bytes, content: bytes) -> bytes:
    import cbor2

    return cbor2.dumps(["Signature1", protected, b"", content])


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
