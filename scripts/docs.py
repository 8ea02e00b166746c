"""Writes the pages that are generated: docs/commands.md, docs/reasons.md and docs/settings.md from the code,
docs/threat-model.md from docs/threats.toml, docs/promises.md from docs/promises.toml and the tests' markers.

``--check`` writes nothing and fails when a page is not what the code says.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.update(TERMINAL_WIDTH="100", COLUMNS="100", NO_COLOR="1", TERM="dumb")

import typer
from sekisho_tools import cli, device_code
from typer.testing import CliRunner

ROOT = Path(__file__).parents[1]

COMMANDS_HEAD = """\
# Commands

What `--help` says, for every command (`make docs` writes this page). Errors are one line on stderr,
`error[CODE]: sentence`; [reasons.md](reasons.md) lists the codes that device and desk share. Exit codes: 0 done,
1 error, 2 wrong usage, 130 interrupted.
"""

REASONS_HEAD = """\
# Reason codes

Every refusal has a name. The engine, the agent, the tools and the server use these (`boot/sekisho_boot/reasons.py`;
`make docs` writes this page). *Permanent*: this manifest is dropped and not tried again. *Temporary*: it is held, the
answer may change. *Unproven*: the image may be good, but its trial could not show it; it is tried again later.

| code | name | class | meaning |
|---|---|---|---|
"""


THREATS_HEAD = """\
# Threat model

What can go wrong with the updates of a device, what stops it, which tests show that, and what is left. The threats are
those that table 2 of the CCDS guideline names, paraphrased, in its order (`docs/threats.toml` is the source of this
page, `make docs` writes it, and a threat without a test fails `make test`).

Attackers, from the weakest to the strongest: somebody on the network; somebody who runs or has broken into the update
server; somebody with one leaked release key; somebody with the board on the bench; somebody whose code already runs on
the device. The first three must not get anything installed that the root keys do not stand for. Against the fourth
there are the chip's eFuses ([efuses.md](efuses.md)). The fifth has won that device, and must not win another by it.

What is protected, in this order: that no image is chosen which was not verified; that a device always comes back with a
verified image; that old flaws do not return; that secrets of owner and maker stay theirs; that what a device says of
itself is true.
"""


PROMISES_HEAD = """\
# What the engine promises

Invariants and rules of the first update engine ([states](engine.md), [flash format](flash-format.md)), each with the
tests that try to break it: they carry its number or name as a marker, `invariant` or `rule`. `make docs` writes this
page from `docs/promises.toml` and those markers; it fails where a promise has no test, and where a marker names none.
The power-cut campaign judges the invariants from outside, at every flash state (`make powercut`).
"""


def leaves(group: typer.Typer | None = None) -> Iterator[tuple[str, ...]]:
    """The words of every command, groups before their members."""

    def walk(command: object, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield words
        for name, member in getattr(command, "commands", {}).items():
            if not member.hidden:
                yield from walk(member, (*words, name))

    yield from walk(typer.main.get_command(group or cli.app), ())


def help_text(words: tuple[str, ...]) -> str:
    """What `sekisho WORDS --help` prints on a terminal of 100 columns."""
    result = CliRunner().invoke(cli.app, [*words, "--help"], prog_name="sekisho")
    if result.exit_code:
        raise SystemExit(f"sekisho {' '.join(words)} --help failed: {result.output}")
    return "\n".join(line.rstrip() for line in result.stdout.strip("\n").splitlines())


def commands_page() -> str:
    """docs/commands.md."""
    parts = [COMMANDS_HEAD]
    for words in leaves():
        name = " ".join(("sekisho", *words))
        parts.append(f"## {name}\n\n```console\n$ {name} --help\n{help_text(words)}\n```\n")
    return "\n".join(parts)


def reasons_page() -> str:
    """docs/reasons.md, from the constants and their comments."""
    from sekisho_boot import reasons

    source = (device_code.BOOT / "sekisho_boot" / "reasons.py").read_text()
    rows = [
        f"| {code} | `{name}` | {reasons.kind(int(code))} | {meaning} |"
        for name, code, meaning in re.findall(r"^([A-Z_]+) = const\((\d+)\)  # (.*)$", source, re.MULTILINE)
    ]
    return REASONS_HEAD + "\n".join(rows) + "\n"


def settings_page() -> str:
    """docs/settings.md: its words up to the table are kept, the table comes from the schema."""
    from sekisho_tools import settings

    text = (ROOT / "docs" / "settings.md").read_text()
    head = text[: text.index(SETTINGS_MARK) + len(SETTINGS_MARK)]
    rows = []
    for one in settings.schema():
        secure = "kept" if one.kept else f"`{json.dumps(one.secure)}`"
        cells = (f"`{one.name}`", one.meaning, one.values, f"`{json.dumps(one.default)}`", secure, one.who, one.effect)
        rows.append("| " + " | ".join(cells) + " |")
    return head + "\n".join(rows) + "\n"


def threats_page() -> str:
    """docs/threat-model.md."""
    parts, stage = [THREATS_HEAD], ""
    for name, entry in tomllib.loads((ROOT / "docs" / "threats.toml").read_text()).items():
        if entry["stage"] != stage:
            stage = entry["stage"]
            parts.append(f"## {stage.capitalize()}\n")
        tests = "".join(f"  - `{test}`\n" for test in entry["tests"])
        left = f"* **left**: {entry['left']}\n" if entry["left"] else ""
        parts.append(
            f"### {entry['threat']}\n\n* id: {name}\n* **stopped by**: {entry['stopped']}\n"
            f"{left}* **shown by**:\n{tests}"
        )
    return "\n".join(parts)


def marked(directory: Path) -> dict[tuple[str, str], list[str]]:
    """(kind, id) of each marker `invariant` and `rule` -> tests that carry it, as path::name."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in sorted(directory.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            for mark in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Attribute):
                    for value in mark.args if mark.func.attr in ("invariant", "rule") else ():
                        name = f"{path.relative_to(directory.parent).as_posix()}::{node.name}"  # type: ignore[attr-defined]
                        found.setdefault((mark.func.attr, str(ast.literal_eval(value))), []).append(name)
    return found


def promises_page(directory: Path = ROOT / "tests") -> str:
    """docs/promises.md."""
    shown, parts = marked(directory), [PROMISES_HEAD]
    for kind, entries in tomllib.loads((ROOT / "docs" / "promises.toml").read_text()).items():
        parts.append(f"## {kind.capitalize()}s\n")
        for name, entry in entries.items():
            tests = shown.pop((kind, name), None)
            if not tests:
                raise SystemExit(f"error[PROMISE]: no test carries the marker of {kind} {name}.")
            lines = "".join(f"* `{test}`\n" for test in tests)
            parts.append(f"### {kind.capitalize()} {name}\n\n{entry['text']}\n\n{lines}")
    if shown:
        (kind, name), tests = shown.popitem()
        raise SystemExit(f"error[PROMISE]: {tests[0]} names {kind} {name}, which docs/promises.toml does not have.")
    return "\n".join(parts)


SETTINGS_MARK = "|---|---|---|---|---|---|---|\n"
PAGES: dict[str, Callable[[], str]] = {
    "docs/commands.md": commands_page,
    "docs/reasons.md": reasons_page,
    "docs/settings.md": settings_page,
    "docs/threat-model.md": threats_page,
    "docs/promises.md": promises_page,
}


def main() -> int:
    """Write the pages, or with ``--check`` compare them."""
    stale = []
    for name, page in PAGES.items():
        path, text = ROOT / name, page()
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text)
                print(f"wrote {name}")
    if stale and "--check" in sys.argv:
        print(f"error[DOCS]: {', '.join(stale)} is not what the code says; run make docs.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
