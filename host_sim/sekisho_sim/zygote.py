"""The process that device processes are forked from. Run as a script, it imports next to nothing.

The MicroPython wheel is a CPython extension: a fork of a process that has loaded it is a fresh MicroPython in under a
millisecond, where starting the command takes twenty. Each line on standard input is a JSON object that starts one
device; the answer, when it has ended, is one line with its wait status and the processor time it took in microseconds.
A line ``kill`` in between ends it.

With ``warm`` as second argument the first line is of the same form, and every device starts where that one first
touched its world: shims and frozen modules are loaded once. MicroPython has no fork, so its ``os.system``, which
devices do not have, is made to call back into this process, by way of the extension's entry for libc's ``system``.
"""

import ctypes
import json
import mmap
import os
import resource
import select
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from typing import Any

Spec = dict[str, Any]
"""``argv``, ``maps`` (files to share), ``console`` and ``path`` (where MicroPython imports from)."""


def console(spec: Spec) -> None:
    """Make the file that *spec* names the standard output and error."""
    handle = os.open(spec["console"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


def prepare(spec: Spec) -> tuple[list[str], list[int]]:
    """Share the files of *spec*; MicroPython's arguments, and address and size of each file in turn."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ["MICROPYPATH"] = spec["path"]
    os.environ["TZ"] = "UTC"
    addresses = []
    for name in spec["maps"]:
        handle = os.open(name, os.O_RDWR)
        size = os.fstat(handle).st_size
        shared = mmap.mmap(handle, size)
        view = (ctypes.c_char * size).from_buffer(shared)
        addresses += [ctypes.addressof(view), size]
        spec[name] = view  # keeps the mapping
    return [arg.replace("@ADDRESSES@", ", ".join(map(str, addresses))) for arg in spec["argv"]], addresses


class Server:
    """Forks a device for each line it is given, until standard input ends."""

    def __init__(self) -> None:
        self.ask, self.answer = os.dup(0), os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        self.buffer = b""
        self.owner = os.getpid()
        self.wake, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def line(self) -> bytes:
        """The next line of the host; ends the process when there is none."""
        while b"\n" not in self.buffer:
            data = os.read(self.ask, 65536)
            if not data:
                os._exit(0)
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line

    def serve(self) -> Spec:
        """Returns in each forked process, with what it is to become. One lives at a time, and none forks again."""
        if os.getpid() != self.owner:
            os._exit(125)
        while True:
            line = self.line()
            if line == b"kill":
                continue  # it had ended by itself in the meantime
            spec: Spec = json.loads(line)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return spec
            self.watch(pid)

    def watch(self, pid: int) -> None:
        """Wait for the end of a device, or end it when told to; tell how it ended."""
        while True:
            ready, _, _ = select.select([self.ask, self.wake], [], [])
            if self.ask in ready:
                data = os.read(self.ask, 65536)
                os.kill(pid, signal.SIGKILL)
                if not data:
                    os._exit(0)
            else:
                os.read(self.wake, 4096)
            done, status, used = os.wait4(pid, 0 if self.ask in ready else os.WNOHANG)
            if done:
                os.write(self.answer, b"%d %d\n" % (status, 1e6 * (used.ru_utime + used.ru_stime)))
                return


def hook_system(path: str, callback: Any) -> None:
    """Let the extension at *path* call *callback* where it calls libc's ``system``. OSError when it has no such entry.

    Its jump slot is found by the ELF section headers, as a debugger would, and written with the callback's address.
    """
    path = os.path.realpath(path)
    with open(path, "rb") as file:  # noqa: PTH123
        elf = file.read()
    if elf[:6] != b"\x7fELF\x02\x01":
        raise OSError("not a 64-bit ELF")
    (offset,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQIIQQ", elf, offset + i * size) for i in range(count)]

    def text(table: int, at: int) -> bytes:
        start = headers[table][4] + at
        return elf[start : elf.index(b"\0", start)]

    sections = {text(names, header[0]): header for header in headers}
    slots, symbols = sections[b".rela.plt"], sections[b".dynsym"]
    with open("/proc/self/maps") as maps:  # noqa: PTH123
        base = min(int(line.split("-")[0], 16) for line in maps if line.rstrip().endswith(path))
    libc = ctypes.CDLL(None)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for at in range(slots[4], slots[4] + slots[5], 24):
        where, info = struct.unpack_from("<QQ", elf, at)
        (name,) = struct.unpack_from("<I", elf, symbols[4] + (info >> 32) * 24)
        if text(symbols[6], name) == b"system":
            address = base + where
            if libc.mprotect(address & -mmap.PAGESIZE, 2 * mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE):
                raise OSError("mprotect")
            ctypes.c_void_p.from_address(address).value = ctypes.cast(callback, ctypes.c_void_p).value
            return
    raise OSError("no jump slot for system")


def checkpoint(server: Server, addresses: list[int], printed: int) -> Callable[[bytes], int]:
    """What MicroPython calls where devices are to start: returns in every device, never in the process itself."""
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    )  # fmt: skip
    said = b""

    def become(spec: Spec) -> None:
        console(spec)
        os.write(1, said)  # what was printed on the way here belongs to every device
        for name, address, size in zip(spec["maps"], addresses[::2], addresses[1::2], strict=True):
            handle = os.open(name, os.O_RDWR)
            fixed = mmap.MAP_SHARED | 0x10  # MAP_FIXED: this world's file where the first one's was
            if libc.mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, fixed, handle, 0) != address:
                raise OSError("mmap")
            os.close(handle)

    def here(_command: bytes) -> int:
        nonlocal said
        said = os.pread(printed, 1 << 20, 0)
        spec = server.serve()
        try:
            become(spec)
        except BaseException:
            traceback.print_exc()
            os._exit(127)
        return 0

    return here


def main() -> None:
    """Serve until standard input ends."""
    sys.path.append(sys.argv[1])
    import micropython_run  # type: ignore[import-not-found]

    server = Server()
    if sys.argv[2:] != ["warm"]:
        spec = server.serve()
        try:
            console(spec)
            argv, _ = prepare(spec)
            os._exit(micropython_run.run_main(argv) & 0xFF)
        except BaseException:  # nothing of this may go on as a second zygote
            traceback.print_exc()
        finally:
            os._exit(127)
    try:
        spec = json.loads(server.line())
        argv, addresses = prepare(spec)
        printed = os.memfd_create("printed")
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p)(checkpoint(server, addresses, printed))
        hook_system(micropython_run.__file__, callback)
        os._exit(micropython_run.run_main(argv) & 0xFF)
    except BaseException as error:
        os.write(server.answer, b"cannot: %r\n" % error)
    finally:
        os._exit(127)


if __name__ == "__main__":
    main()
