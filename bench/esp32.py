"""What a verification and a signature cost on an ESP32, without one: instructions, partly counted, partly modelled.

``PYTHONPATH=tools:host_sim:tests python -m bench.esp32``. The machine code (`ed25519_native`, `sha512_native`) is what
mpy-cross emits for Xtensa, run and counted by tests/helpers/xtensa.py. Operations on big integers cost what they did
on the official ESP32 firmware v1.26.1 (16-bit digits), scaled by their digits; a bytecode costs 25, a call into machine
code 500. CPython runs the rest of the module, so its bytecodes stand in for MicroPython's.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / room) for room in ("tools", "host_sim", "tests")]

from helpers.xtensa import Chip, read_mpy  # noqa: E402
from sekisho_tools import device_code  # noqa: E402  (makes the device packages importable)
from sekisho_tools.measure import compile_module  # noqa: E402

ed25519, sha512 = import_module("sekisho_boot.ed25519"), import_module("sekisho_boot.sha512")
signing = import_module("sekisho.signing")

BYTECODE, CALL = 25, 500
ENGINE = device_code.BOOT / "sekisho_boot"


def _digits(x: int) -> int:
    return max(1, (abs(int(x)).bit_length() + 15) // 16)


def _cost(name: str, x: int, y: int, result: int) -> float:
    """Instructions of one operation; of 255 bits: product 4,500, its `%` 10,500, sum 600, shift 800, mask 1,100."""
    n, m = _digits(x), _digits(y)
    if max(abs(int(v)).bit_length() for v in (x, y, result)) <= 30:
        return BYTECODE
    if name == "mul":
        return 600 + 15.2 * n * m
    if name in ("mod", "divmod"):
        return 900 + (n - m + 1) * (60 + 32 * m) if n >= m else 700
    if name in ("rshift", "lshift"):
        return 450 + 11 * max(n, _digits(result))
    return (450 + 20 * max(n, m)) if name in ("and", "or") else (400 + 12.5 * max(n, m))


class Counted(int):
    """An integer whose operations cost what they cost on an ESP32."""

    spent = 0.0


def _count(name: str, method: str) -> None:
    plain = getattr(int, method)

    def operation(self: int, other: int) -> Any:
        result = plain(self, other)
        if result is NotImplemented:
            return result
        parts = result if isinstance(result, tuple) else (result,)
        Counted.spent += _cost(name, self, other, parts[0])
        made = tuple(Counted(part) for part in parts)
        return made if isinstance(result, tuple) else made[0]

    setattr(Counted, method, operation)


for _name in ("add", "sub", "mul", "mod", "and", "or", "rshift", "lshift", "divmod"):
    _count(_name, f"__{_name}__")
    _count(_name, f"__r{_name}__")


class Machine:
    """Both native modules on the chip, put in place of the portable code of this process."""

    def __init__(self) -> None:
        self.calls = self.bytecodes = self.points = 0
        self.numbers = [0] * 50
        self.known: dict[bytes, int] = {}
        self.room = bytearray(2000)
        self.job: list[Any] = [b"", 0, 0]
        self.field = self._chip("ed25519_native", _room=self.room, _low=bytearray(40), _job=self.job)
        self.hash = self._chip("sha512_native", _k=bytearray(640), _w=bytearray(192))
        self.hash.call(0, bytes(sha512._K))
        source = (ENGINE / "ed25519_native.py").read_text().replace("import micropython\n", "")
        source = re.sub(r"@micropython\.viper\ndef .*?\n\n\n", "", source, flags=re.S)
        names: dict[str, Any] = {"__name__": "ed25519_native"}
        exec(compile(source, str(ENGINE / "ed25519_native.py"), "exec"), names)  # noqa: S102
        names.update(_number=self.numbers.__getitem__, run=self._run, load=self._load)
        ed25519.joint, ed25519.power, signing.joint = names["joint"], names["power"], names["joint"]
        sha512.compress = self._compress
        ed25519.int = signing.int = Counted
        signing.P, signing.L = Counted(signing.P), Counted(signing.L)
        for name in ("P", "L", "_M", "_D", "_D2", "_SQRT_M1"):
            setattr(ed25519, name, Counted(getattr(ed25519, name)))

    @staticmethod
    def _chip(name: str, **names: object) -> Chip:
        with tempfile.TemporaryDirectory() as directory:
            target = Path(directory) / "out.mpy"
            compile_module(ENGINE / f"{name}.py", target, "xtensawin")
            return Chip(read_mpy(target), names)

    def _run(self, program: bytes, entry: int) -> None:
        """What the machine code does, on whole numbers; how many instructions does not depend on them."""
        self.calls += 1
        numbers = self.numbers
        for at in range(0, len(program), 4):
            which, result, left, right = program[at : at + 4]
            x, y = (numbers[i + entry - 128 if i & 128 else i] for i in (left, right))
            numbers[result] = (x * y, x + y, x - y)[which] % (2**255 - 19)
        if program not in self.known:
            self.job[:] = program, len(program), 0 if entry < 18 else 18
            before = self.field.executed
            self.field.call(1)
            self.known[program] = self.field.executed - before
        self.points += self.known[program]

    def _load(self, number: int, data: bytes, at: int, count: int) -> None:
        self.calls += 1
        before = self.field.executed
        self.field.call(0, number, bytes(data), at, count)
        self.points += self.field.executed - before
        for i in range(count):
            self.numbers[number + i] = int.from_bytes(data[at + 32 * i : at + 32 * i + 32], "little")

    def _compress(self, state: bytearray, block: bytearray) -> None:
        self.calls += 1
        self.hash.call(1, state, bytes(block))

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "call" and not frame.f_code.co_filename.startswith((str(ENGINE), str(device_code.LIB))):
            return None
        frame.f_trace_opcodes = True
        self.bytecodes += event == "opcode"
        return self._trace

    def measure(self, work: Callable[[], object]) -> dict[str, float]:
        """Millions of instructions of *work* by kind."""
        Counted.spent, self.calls, self.bytecodes, self.points = 0.0, 0, 0, 0
        hashed = self.hash.executed
        sys.settrace(self._trace)
        try:
            done = work()
        finally:
            sys.settrace(None)
        assert done
        parts = {
            "points (counted)": self.points,
            "SHA-512 (counted)": self.hash.executed - hashed,
            "big integers (modelled)": Counted.spent,
            "bytecode and calls (modelled)": self.bytecodes * BYTECODE + self.calls * CALL,
        }
        return {name: value / 1e6 for name, value in {**parts, "together": sum(parts.values())}.items()}


def figures(size: int = 512) -> dict[str, dict[str, float]]:
    """The costs of a verification by an unknown key, by a recent one, and of a signature, in millions."""
    machine = Machine()
    seed, message = bytes(range(32)), bytes(i & 255 for i in range(size))
    public = signing.public_key(seed)
    signature = signing.sign(seed, message, public)
    ed25519._recent.clear()

    def verify() -> object:
        return ed25519.verify(public, message, signature)

    return {
        "verify, unknown key": machine.measure(verify),
        "verify, recent key": machine.measure(verify),
        "sign": machine.measure(lambda: signing.sign(seed, message, public)),
    }


def main() -> int:
    """Print them."""
    for name, parts in figures().items():
        print(f"\n{name}, message of 512 bytes, ESP32: millions of instructions")
        for part, value in parts.items():
            print(f"  {part:32}{value:6.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
