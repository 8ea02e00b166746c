"""Claims about device code (tests/device/*_cases.py), run here on CPython and on MicroPython with a small heap."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from device import claims

from helpers import micropython

CASES = Path(__file__).parents[1] / "device"


class Aes:
    """`cryptolib.aes` in ECB, which is all that device code uses."""

    def __init__(self, key: bytes, mode: int) -> None:
        assert mode == 1
        self._encrypt = Cipher(AES(bytes(key)), ECB()).encryptor()
        self._decrypt = Cipher(AES(bytes(key)), ECB()).decryptor()

    def encrypt(self, data: Any, out: Any = None) -> bytes:
        done = self._encrypt.update(bytes(data))
        if out is not None:
            out[:] = done
        return done

    def decrypt(self, data: Any) -> bytes:
        return self._decrypt.update(bytes(data))


def stand_in_for_cryptolib() -> None:
    """CPython has no `cryptolib`."""
    module: Any = types.ModuleType("cryptolib")
    module.aes = Aes
    sys.modules.setdefault("cryptolib", module)


def on_cpython(cases: str, *arguments: str) -> str:
    stand_in_for_cryptolib()
    importlib.import_module(f"device.{cases}")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        claims.main(cases, *arguments)
    return out.getvalue()


def on_micropython(cases: str, *arguments: str, heap: str = "100k") -> str:
    program = f"from device import claims; claims.main(*{(cases, *arguments)!r})"
    return micropython.run(program, heap=heap)


def names(cases: str) -> list[str]:
    """The claims of a module, by name."""
    return re.findall(r"^def (test_\w+)", (CASES / f"{cases}.py").read_text(), re.MULTILINE)


def check(run: Callable[..., str], cases: str, *arguments: str, **options: Any) -> None:
    """Every claim of *cases* holds."""
    printed = run(cases, *arguments, **options)
    good = re.findall(r"^ok (\w+)$", printed, re.MULTILINE)
    assert "FAIL" not in printed, printed
    assert good == sorted(names(cases)), printed


both = pytest.mark.parametrize("run", [on_cpython, on_micropython], ids=["cpython", "micropython"])
