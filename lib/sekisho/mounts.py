"""Mounts the file systems after the engine has run: `vfs` and the application image read-only, `data` at /data.

A partition that is blank, damaged or of another kind is left alone and named in `problems`; it is never formatted, and
the device goes on without it.
"""

import sys

import vfs
from esp32 import Partition

problems: list = []


class _Verified:
    """The first *size* bytes of a partition, for reading: what lies behind them nobody has hashed."""

    def __init__(self, part, size: int) -> None:
        self.part, self.size, self.info = part, size, part.info

    def readblocks(self, block: int, buf, off: int = 0) -> None:
        if (block << 12) + off + len(buf) > self.size:
            raise OSError(5)  # EIO
        self.part.readblocks(block, buf, off)

    def writeblocks(self, *_) -> None:
        raise OSError(30)  # EROFS

    def ioctl(self, op: int, _: int) -> int:
        return self.size >> 12 if op == 4 else 4096 if op == 5 else 0  # number and size of blocks


def _attach(part, path: str) -> bool:
    try:
        vfs.mount(vfs.VfsLfs2(part), path, readonly=path != "/data")  # type: ignore[abstract]
        return True
    except Exception as error:  # whatever a damaged file system makes of itself, the start goes on
        problems.append(part.info()[4])
        print("sekisho: cannot mount %s at %s (%r)" % (part.info()[4], path, error))
        return False


def _blank(part) -> bool:
    head = bytearray(256)
    part.readblocks(0, head, 0)
    return head == b"\xff" * 256


def _obey_wipe(stock: bool) -> None:
    from . import started_port

    port = started_port()
    if not port:
        return
    head = bytearray(4)
    for sector in (12, 13):  # record.SECTORS; a device that never got an order need not load the code for it
        port.part.read(sector << 12, head)
        if head != b"\xff\xff\xff\xff":
            try:
                from . import record, wipe
            except ImportError:
                if not stock:
                    raise
                return  # a small stock image has neither orders nor this
            if record.Record(port.part).get(record.LIFE):
                wipe.at_start(port, stock)
            return


def mount(app=None, stock: bool = False) -> list:
    """Mounts what is there; *app* is the engine's (part, size) of the verified application image or None.

    stock: the official firmware has mounted `vfs` for writing already; it is mounted again without.
    Returns the labels of the partitions that could not be mounted. Where an order to wipe the device is not done yet,
    or its life is over, nothing is mounted and this does not return (see `wipe`).
    """
    _obey_wipe(stock)
    found = {part.info()[4]: part for part in Partition.find(Partition.TYPE_DATA)}
    root = found.get("vfs")
    if root and (stock or not _blank(root)):
        if stock:
            vfs.umount("/")
        _attach(root, "/")
    if "data" in found:
        _attach(found["data"], "/data")
    if app:
        for part in Partition.find(Partition.TYPE_DATA, 0x41):
            _, _, address, size, _, _ = part.info()
            # a partition that is verified to its end needs nothing in front of it, which would be slower
            if address == app[0].address and _attach(part if size == app[1] else _Verified(part, app[1]), "/app"):
                sys.path.append("/app")
    return problems
