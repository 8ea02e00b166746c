"""Runs the commands that a page of the documentation shows: what the page says is what is tested.

In a page, lines of a code block that begin with ``$ `` are commands (continued with a backslash). A comment that reads
``<!-- drill: NAME -->``, invisible to readers, is where the test does or checks something. ``$NAME`` stands for a value
that the reader finds out; the test tells it through `Stage.values`. ``export NAME=VALUE`` counts for all commands after
it; ``sekisho serve``, which would never end, is `Stage.serve`'s.
"""

from __future__ import annotations

import io
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sekisho_tools import cli

REPO = Path(__file__).parents[2]
PASSPHRASE = "seven words that nobody has written down"
PLAIN = ("cp", "rm", "mkdir", "mv")
"""Commands besides `sekisho` that a page may use."""


@dataclass(frozen=True)
class Item:
    """One step of a page: a command line, or the name of something the test does."""

    kind: str
    text: str


def items(page: Path) -> Iterator[Item]:
    """The steps of *page* in order."""
    block = False
    text = page.read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            block = not block
        command = re.match(r"\s*\$ (.+)", line)
        mark = re.match(r"<!-- drill: ([a-z-]+) -->", line)
        if block and command:
            yield Item("command", re.sub(r"\s+", " ", command[1]).strip())
        elif mark:
            yield Item("drill", mark[1])
    assert not block, f"{page.name} has a code block without an end"


class _Terminal(io.StringIO):
    """A person who answers yes."""

    def isatty(self) -> bool:
        return True


@dataclass
class Stage:
    """A directory in which pages are played. *values* replace ``$NAME``, *changes* (text -> text) adapt command lines,
    lines that begin with one of *skip* are left out, *serve* takes those that start a server."""

    directory: Path
    monkeypatch: pytest.MonkeyPatch
    values: dict[str, str] = field(default_factory=dict)
    changes: Mapping[str, str] = field(default_factory=dict)
    skip: tuple[str, ...] = ()
    serve: Callable[[str], None] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)

    def run(self, line: str) -> str:
        """Run one command line; a failure is a failure of the test. Returns what it printed."""
        if self.skip and line.startswith(self.skip):
            return ""
        for old, new in self.changes.items():
            line = line.replace(old, new)
        words = []
        for one in shlex.split(line):
            word = re.sub(r"\$([A-Z]+)", lambda match: self.values[match[1]], one)
            globs = "*" in word and "=" not in word
            globbed = sorted(self.directory.glob(word)) if globs else []
            found = [str(path.relative_to(self.directory)) for path in globbed]
            assert found or not globs, f"{word} names nothing"
            words += found or [word]
        self.ran.append(line)
        if words[0] in PLAIN:
            subprocess.run(words, cwd=self.directory, check=True)
            return ""
        if words[0] == "export":
            self.environment |= dict(word.split("=", 1) for word in words[1:])
            return ""
        assert words[0] == "sekisho", f"a page may not run {words[0]}"
        if words[1] == "serve" and self.serve:
            self.serve(line)
            return ""
        out, errors = io.StringIO(), io.StringIO()
        with self.monkeypatch.context() as patch:
            patch.chdir(self.directory)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            patch.setattr("getpass.getpass", lambda *_: PASSPHRASE)
            patch.setattr("sys.stdin", _Terminal("y\n" * 20))
            patch.setattr("sys.stdout", out)
            patch.setattr("sys.stderr", errors)
            code = cli.run(words[1:])
        assert code == 0, f"{line}\n{out.getvalue()}{errors.getvalue()}"
        return out.getvalue()

    def play(self, page: Path, drill: Mapping[str, Callable[[], None]] | None = None) -> None:
        """Run everything that *page* shows, and *drill* where it says so; every step of the drill must occur."""
        left = dict(drill or {})
        for item in items(page):
            if item.kind == "command":
                self.run(item.text)
            elif drill is not None:
                left.pop(item.text)()
        assert not left, f"{page.name} does not mention {', '.join(left)}"
