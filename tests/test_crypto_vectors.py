"""Every public vector, on CPython, on the MicroPython Unix port and (Ed25519, SHA-512) on the 32-bit npm build."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import crypto_vectors
import mp32
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from helpers import micropython
from sekisho_tools import device_code

HERE = Path(__file__).parent
SETS: dict[str, Callable[[], list[crypto_vectors.Case]]] = {
    name: getattr(crypto_vectors, name)
    for name in ("ed25519_known_answers", "ed25519_wycheproof", "sha512_nist", "key_wrap", "aes_ctr", "hmac_and_hkdf")
}


class _Ecb:
    """`cryptolib.aes` in ECB mode, for CPython; as on a chip, one object either encrypts or decrypts."""

    def __init__(self, key: bytes, mode: int) -> None:
        assert mode == 1
        assert len(key) in (16, 32)
        self._cipher = Cipher(algorithms.AES(key), modes.ECB())
        self._way = ""

    def _run(self, way: str, data: bytes, out: bytearray | None) -> bytes:
        assert self._way in ("", way)
        self._way = way
        result = getattr(self._cipher, way)().update(bytes(data))
        if out is not None:
            out[:] = result
        return result

    def encrypt(self, data: bytes, out: bytearray | None = None) -> bytes:
        return self._run("encryptor", data, out)

    def decrypt(self, data: bytes, out: bytearray | None = None) -> bytes:
        return self._run("decryptor", data, out)


@pytest.fixture
def _cryptolib(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("cryptolib")
    module.aes = _Ecb  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cryptolib", module)
    monkeypatch.delitem(sys.modules, "sekisho.ciphers", raising=False)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.usefixtures("_cryptolib")
def test_known_answers_hold_on_cpython(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from device import crypto_cases

    count = crypto_vectors.write(tmp_path / "cases.bin", SETS[name]())
    crypto_cases.run(str(tmp_path / "cases.bin"))
    assert capsys.readouterr().out == f"{count} cases hold\n"


@pytest.mark.parametrize("name", SETS)
def test_known_answers_hold_on_the_unix_port(name: str, tmp_path: Path) -> None:
    count = crypto_vectors.write(tmp_path / "cases.bin", SETS[name]())
    program = f"from device import crypto_cases; gc.threshold(-1); crypto_cases.run({str(tmp_path / 'cases.bin')!r})"
    assert micropython.run(program) == f"{count} cases hold\n"


@pytest.mark.parametrize("name", ["ed25519_known_answers", "ed25519_wycheproof", "sha512_nist"])
def test_known_answers_hold_on_32_bits(name: str, tmp_path: Path) -> None:
    mp32.require()
    count = crypto_vectors.write(tmp_path / "cases.bin", SETS[name]())
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / "crypto_cases.py").write_text((HERE / "device" / "crypto_cases.py").read_text())
    rooms = [device_code.BOOT, device_code.LIB, tmp_path]
    program = "from device import crypto_cases; cases = crypto_cases.Cases('/lib/cases.bin')"
    assert mp32.run(program, rooms, heap=2 * mp32.HEAP, repeat="more = cases.step(8)") == f"{count} cases hold\n"


def test_a_wrong_answer_is_noticed(tmp_path: Path) -> None:
    from device import crypto_cases

    kind, fields = crypto_vectors.sha512_nist()[7]
    crypto_vectors.write(tmp_path / "cases.bin", [(kind, (fields[0], crypto_vectors.flip(fields[1], 5)))])
    with pytest.raises(AssertionError, match="case 0"):
        crypto_cases.run(str(tmp_path / "cases.bin"))
