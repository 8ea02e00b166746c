"""Runs `sekisho` command lines inside the test process."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass

import pytest
from sekisho_tools import cli


@dataclass
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The reason code on stderr, or nothing."""
        for line in self.err.splitlines():
            if line.startswith("error["):
                return line.split("[")[1].split("]")[0]
        return ""


class Runner:
    """Call it with a command line; *lines* arrive on the descriptor of ``--passphrase-fd``, *answer* on stdin."""

    def __init__(self, capture: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capture = capture
        self._monkeypatch = monkeypatch

    def __call__(self, line: str, *lines: str, answer: str = "") -> Result:
        arguments = line.split()
        reader = -1
        if lines:
            reader, writer = os.pipe()
            os.write(writer, "\n".join(lines).encode() + b"\n")
            os.close(writer)
            arguments += ["--passphrase-fd", str(reader)]
        self._monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        code = cli.run(arguments)
        if lines:
            os.close(reader)
        out, err = self._capture.readouterr()
        return Result(code, out, err)
