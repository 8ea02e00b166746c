"""How a device process is started: forked from one that has MicroPython loaded, or as an ordinary command."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import select
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from sekisho_tools.errors import ToolError


@dataclass(frozen=True)
class Spec:
    """One start: MicroPython's arguments (*maps* become addresses in them), files to share, import path, console."""

    argv: Sequence[str]
    maps: Sequence[Path]
    path: Path
    console: Path


class Driver(Protocol):
    """Starts one device process at a time. *shares_memory*: whether `Spec.maps` are mapped into it."""

    shares_memory: bool

    def start(self, spec: Spec) -> None:
        """Start the process."""

    def wait(self, also: int, seconds: float) -> tuple[int | None, bool]:
        """Wait for its end, for input on descriptor *also*, or *seconds*: (wait status or None, whether input)."""

    def kill(self) -> int:
        """End it now, as SIGKILL does; returns the wait status."""

    def close(self) -> None:
        """Give back what the driver holds."""


class ForkDriver:
    """Forks from a helper process that has loaded the MicroPython wheel: 0.6 ms a start."""

    shares_memory = True
    cpu = 0.0
    """Seconds of processor time that device processes have used."""

    def __init__(self) -> None:
        found = importlib.util.find_spec("micropython_run")
        if found is None or found.origin is None:
            raise ToolError("MICROPYTHON", "The simulator needs a MicroPython: pip install 'sekisho[sim]'.")
        zygote = Path(__file__).with_name("zygote.py")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(zygote), str(Path(found.origin).parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the host; a device must not see it
            bufsize=0,
        )
        assert self._process.stdin
        assert self._process.stdout
        self._ask, self._answer = self._process.stdin.fileno(), self._process.stdout.fileno()

    def start(self, spec: Spec) -> None:
        """Start the process."""
        line = json.dumps(
            {
                "argv": list(spec.argv),
                "maps": [str(path) for path in spec.maps],
                "path": str(spec.path),
                "console": str(spec.console),
            }
        )
        os.write(self._ask, line.encode() + b"\n")

    def wait(self, also: int, seconds: float) -> tuple[int | None, bool]:
        """See `Driver.wait`."""
        ready, _, _ = select.select([self._answer, also], [], [], seconds)
        return (self._status() if self._answer in ready else None), also in ready

    def kill(self) -> int:
        """See `Driver.kill`."""
        os.write(self._ask, b"kill\n")
        return self._status()

    def _status(self) -> int:
        line = os.read(self._answer, 64)
        if not line:
            raise ToolError("MICROPYTHON", "The process that device processes are forked from has died.")
        status, used = line.split()
        self.cpu += int(used) / 1e6
        return int(status)

    def close(self) -> None:
        """End the helper process."""
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait(10)
        if self._process.stdout:
            self._process.stdout.close()


class ProcessDriver:
    """Starts *command*, any MicroPython Unix port; slower, and flash goes through files."""

    shares_memory = False

    def __init__(self, command: str) -> None:
        found = shutil.which(command)
        if found is None:
            raise ToolError("MICROPYTHON", f"There is no MicroPython {command!r}; set SEKISHO_MICROPYTHON to one.")
        self._command = found
        self._process: subprocess.Popen[bytes] | None = None
        self._ended, self._end = os.pipe()

    def start(self, spec: Spec) -> None:
        """Start the process."""
        with spec.console.open("wb") as console:
            self._process = process = subprocess.Popen(
                [self._command, *spec.argv[1:]],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={**os.environ, "MICROPYPATH": str(spec.path), "TZ": "UTC"},
                start_new_session=True,
                preexec_fn=_no_core,
            )

        def watch() -> None:
            process.wait()
            os.write(self._end, b"x")

        threading.Thread(target=watch, daemon=True).start()

    def wait(self, also: int, seconds: float) -> tuple[int | None, bool]:
        """See `Driver.wait`."""
        ready, _, _ = select.select([self._ended, also], [], [], seconds)
        return (self._status() if self._ended in ready else None), also in ready

    def kill(self) -> int:
        """See `Driver.kill`."""
        assert self._process
        self._process.kill()
        return self._status()

    def _status(self) -> int:
        os.read(self._ended, 1)
        assert self._process
        code = self._process.wait()
        return -code if code < 0 else code << 8

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._ended)
        os.close(self._end)


def _no_core() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def default_driver() -> Driver:
    """The forking driver, or the plain one for the MicroPython that SEKISHO_MICROPYTHON names."""
    command = os.environ.get("SEKISHO_MICROPYTHON")
    return ProcessDriver(command) if command else ForkDriver()


class Managed:
    """Mixin: use as a context manager, `close` at the end."""

    def close(self) -> None:
        """Give back what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
