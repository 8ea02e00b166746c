"""The process that device processes are forked from. Run as a script, it imports next to nothing.

The MicroPython wheel is a CPython extension: a fork of a process that has loaded it is a fresh MicroPython in under a
millisecond, where starting the command takes twenty. Each line on standard input is a JSON object that starts one
device; the answer, when it has ended, is one line with its wait status and the processor
time it took in microseconds. A line ``kill`` in between ends it.
"""

import ctypes
import json
import mmap
import os
import resource
import select
import signal
import sys
import traceback
from typing import Any


def device(spec: dict[str, Any], run_main: Any) -> None:
    """Become the device: *spec* has ``argv``, ``maps`` (files to share), ``console`` and ``path``."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open(os.devnull, os.O_RDONLY)
    console = os.open(spec["console"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(console, 1)
    os.dup2(console, 2)
    addresses = []
    for name in spec["maps"]:
        handle = os.open(name, os.O_RDWR)
        size = os.fstat(handle).st_size
        shared = mmap.mmap(handle, size)
        view = (ctypes.c_char * size).from_buffer(shared)
        addresses += [ctypes.addressof(view), size]
        spec[name] = view  # keeps the mapping
    os.environ["MICROPYPATH"] = spec["path"]
    os.environ["TZ"] = "UTC"
    argv = [arg.replace("@ADDRESSES@", ", ".join(map(str, addresses))) for arg in spec["argv"]]
    os._exit(run_main(argv) & 0xFF)


def main() -> None:
    """Serve until standard input ends."""
    sys.path.append(sys.argv[1])
    from micropython_run import run_main  # type: ignore[import-not-found]

    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    buffer = b""
    while True:
        while b"\n" not in buffer:
            data = os.read(0, 65536)
            if not data:
                return
            buffer += data
        line, buffer = buffer.split(b"\n", 1)
        if line == b"kill":
            continue  # it had ended by itself in the meantime
        spec = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                device(spec, run_main)
            except BaseException:  # nothing of this may go on as a second zygote
                traceback.print_exc()
            finally:
                os._exit(127)
        status = None
        while status is None:
            ready, _, _ = select.select([0, wake_read], [], [])
            if 0 in ready:
                data = os.read(0, 65536)
                os.kill(pid, signal.SIGKILL)
                if not data:
                    return
            else:
                os.read(wake_read, 4096)
            done, code, used = os.wait4(pid, 0 if 0 in ready else os.WNOHANG)
            if done:
                status = code
        os.write(1, b"%d %d\n" % (status, 1e6 * (used.ru_utime + used.ru_stime)))


if __name__ == "__main__":
    main()
