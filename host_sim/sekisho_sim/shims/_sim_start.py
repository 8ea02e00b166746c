"""What a chip has done before the first line of Python runs: puts the shims in place and starts the personality.

The frozen modules of a personality are .mpy files of the host, seen through a file system that takes the place of
``.frozen`` in the import search, wherever that stands in sys.path; their cost in heap, nothing on a chip, is kept
aside until each is imported (`_room`).
"""

import builtins
import gc
import io
import os
import struct
import sys

import _sim_dev
import vfs as _vfs
from _sim_layout import (
    COSTS,
    FREE,
    SHIM_COST,
    SPEED,
    STOP_BROKEN,
    STOP_IDLE,
    STOP_SOFT_RESET,
)

_MOUNT = "/.frozen"
_HIDDEN = ("argparse", "ffi", "termios", "uasyncio", "jni", "btree", "platform")
_OFFICIAL = ("ssl", "mip", "requests", "ntptime")  # frozen into official firmware, not into ours (firmware/manifest.py)
_SHIMS = ("sys", "vfs", "os", "time", "esp32", "machine", "network", "socket", "ntptime", "cryptolib")

_import = builtins.__import__
_system = getattr(os, "system", None)  # the device's own `os` has none
_path = sys.path
_modules = sys.modules
_room = {}  # path of a frozen module -> list as large as loading it will be
_tops = set()  # first parts of the names of frozen modules
_tree = None  # file system with the personality's .mpy files
_measured = None  # path -> bytes, during a calibration
_ours = False  # firmware of our own manifest, not official


def _restore():
    for i in range(len(_path)):
        if _path[i] == _MOUNT:
            _path[i] = ".frozen"


class _Loading(io.IOBase):
    """A .mpy file while it is read into a module, which is not yet run then.

    On a chip frozen code is not loaded. Here the garbage of loading would lie among what stays and tear the heap apart,
    so it is collected before and after; the garbage a module makes when it runs is the device's own affair. A
    calibration run notes what loading took and does not run the module.
    """

    def __init__(self, path):
        self._path = path
        self._file = _tree.open(path, "rb")
        gc.collect()
        self._before = gc.mem_alloc()

    def readinto(self, buf):
        return self._file.readinto(buf)

    def ioctl(self, request, arg):
        if request == 4:
            self._file.close()
            gc.collect()
            if _measured is not None:
                _measured[self._path] = gc.mem_alloc() - self._before
                raise ValueError("measured")
        elif request == 11:
            return 255  # bytes that the reader may ask for at once
        return 0


class _Frozen:
    def mount(self, readonly, mkfs):
        pass

    def umount(self):
        pass

    def stat(self, path):
        return _tree.stat(path)

    def open(self, path, mode):
        _restore()
        room = _room.pop(path, None)
        if room is not None:
            room.clear()  # gives its memory back at once
        return _Loading(path)


def _shadowed(top, upto):
    """Whether a directory before ``.frozen`` has a module of this name."""
    for i in range(upto):
        base = _path[i] + "/" + top if _path[i] else top
        for end in ("", ".py", ".mpy"):
            try:
                _os.stat(base + end)
                return True
            except OSError:
                pass
    return False


def _hook(name, *rest):
    top = name.split(".", 1)[0]
    if top in _modules or (len(rest) == 4 and rest[3]):
        return _import(name, *rest)
    if top in _HIDDEN or (_ours and top in _OFFICIAL):
        raise ImportError("no module named '%s'" % name)
    if top in _tops and ".frozen" in _path:
        at = _path.index(".frozen")
        if not _shadowed(top, at):
            _path[at] = _MOUNT
            try:
                return _import(name, *rest)
            finally:
                _restore()
    return _import(name, *rest)


def _read_costs(allocate):
    port = _sim_dev.port
    at = COSTS + 2
    for _ in range(struct.unpack("<H", port.peek(COSTS, 2))[0]):
        cost, n = struct.unpack("<IB", port.peek(at, 5))
        path = str(port.peek(at + 5, n), "utf-8")
        at += 5 + n
        _tops.add(path[1:].split("/", 1)[0].split(".", 1)[0])
        if allocate:
            _room[path] = [None] * (cost // 8)
        else:
            _room[path] = []


def _run(name):
    """Runs a frozen script as ``__main__``, as `pyexec_frozen_module` does; False if there is none."""
    if "/" + name + ".mpy" not in _room:
        return False
    _hook(name, None, None, False, 0)
    _modules.pop(name, None)
    return True


def _stage(script):
    """One step of the start-up order (ports/esp32/main.c, shared/runtime/pyexec.c); False if an exception ended it."""
    try:
        script()
        return True
    except SystemExit:
        if script is not _boot:  # nobody looks at what came of _boot.py
            _sim_dev.die(STOP_SOFT_RESET)
    except BaseException as e:
        sys.print_exception(e)
    return False


def _exists(path):
    try:
        return not _os.stat(path)[0] & 0x4000
    except OSError:
        return False


def _script(name):
    def run():
        if not _run(name) and _exists(name + ".py"):
            builtins.execfile(name + ".py", {"__name__": "__main__"})

    return run


def _boot():
    _run("_boot")


def _stock_boot():
    """MicroPython's own ``_boot.py`` and ``inisetup.py``."""
    from esp32 import Partition

    part = Partition.find(Partition.TYPE_DATA, label="vfs") or Partition.find(Partition.TYPE_DATA, label="ffat")
    if not part:
        return
    part = part[0]
    try:
        _vfs.mount(part, "/")
    except OSError:
        head = bytearray(4096)
        part.readblocks(0, head)
        if any(b != 0xFF for b in head):
            while True:
                print("The filesystem appears to be corrupted. If you had important data there, you")
                print("may want to make a flash snapshot to try to recover it.")
                _modules["time"].sleep(3)
        _vfs.VfsLfs2.mkfs(part)
        _vfs.mount(part, "/")
        with open("boot.py", "w") as f:
            f.write("# This file is executed on every boot (including wake-boot from deepsleep)\n")


def go(base, port, addresses, rpc, tree, flash, board, stock, calibrate, warm):
    """Never returns. *base* is the heap in use before this module was loaded."""
    global _tree, _measured, _os, _ours
    try:
        root = _vfs.VfsPosix("/")
        port.attach(*addresses, root, flash, board)
        _sim_dev.port, _sim_dev.host, _sim_dev.rpc_path = port, root, rpc
        _tree = _vfs.VfsPosix(tree)
        shims = [(name, __import__("_sim_" + name)) for name in ("sys", "vfs", "os")]
        # The others are built on each other, in this order.
        for name in _SHIMS[3:] + (("select", "_asyncio") if port.get(SPEED) != 1 else ()):
            module = __import__("_sim_" + name)
            _modules[name] = module
        for name, module in shims:
            _modules[name] = module
        _os = _modules["os"]
        for name in list(_modules):
            if name.startswith("_sim_"):
                del _modules[name]
        _vfs.umount("/")
        _vfs.mount(_Frozen(), _MOUNT)
        _path[:] = ["", ".frozen", "/lib"]
        builtins.__import__ = _hook
        _read_costs(not calibrate)
        gc.collect()
        if calibrate:
            port.put(SHIM_COST, gc.mem_alloc() - base)
            _calibrate(port)
            _sim_dev.die(STOP_IDLE)
        free = gc.mem_free()
        if warm:
            _at_first_touch(port, free)
        else:
            port.put(FREE, free)
    except BaseException as e:
        sys.print_exception(e)
        _sim_dev.die(STOP_BROKEN)
    _ours = not stock
    _stage(_stock_boot if stock else _boot)
    if _stage(_script("boot")):
        _stage(_script("main"))
    _sim_dev.die(STOP_IDLE)


def _at_first_touch(port, free):
    """Lets the process be forked (zygote.py) when the device first touches its world; nothing happens in a cold one."""
    names = ("get", "put", "get64", "put64", "peek", "poke", "load", "clear_bits", "fill")
    kept = [(name, getattr(port, name)) for name in names]

    def touch(call):
        def first(*args):
            for name, function in kept:
                setattr(port, name, function)
            _system("")
            port.put(FREE, free)
            return call(*args)

        return first

    for name, function in kept:
        setattr(port, name, touch(function))


def _calibrate(port):
    global _measured
    _measured = {}
    at = COSTS + 2
    for _ in range(struct.unpack("<H", port.peek(COSTS, 2))[0]):
        n = port.peek(at + 4, 1)[0]
        path = str(port.peek(at + 5, n), "utf-8")
        _measured[path] = 0
        _path[:] = [_MOUNT + path.rsplit("/", 1)[0] if path.count("/") > 1 else _MOUNT]
        name = path.rsplit("/", 1)[1][:-4]
        _modules.pop(name, None)
        try:
            _import(name)
        except ValueError:
            pass
        port.poke(at, struct.pack("<I", _measured[path]))
        at += 5 + n
