# Stock mode: one file with all device code, as a read-only file system of its own.
#
# littlefs gives every file a block of 4 KiB. Forty modules would fill the 128 KiB of `vfs` with air, one pack does not.
# Format: a line "<size> <path>" per file, an empty line, then the contents in the same order.
import sys

import vfs

PACK = "/lib/sekisho.pack"


class Pack:
    def __init__(self, path) -> None:
        self.path = path
        self.files = {}
        with open(path, "rb") as file:
            at = 0
            while True:
                size, _, name = str(file.readline(), "utf-8").strip().partition(" ")
                if not size:
                    break
                self.files["/" + name] = (at, int(size))
                at += int(size)
            self.base = file.tell()

    def mount(self, readonly, mkfs) -> None:
        pass

    def umount(self) -> None:
        pass

    def stat(self, path):
        found = self.files.get(path)
        if found:
            return (0x8000, 0, 0, 0, 0, 0, found[1], 0, 0, 0)
        for name in self.files:
            if name.startswith(path + "/"):
                return (0x4000, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        raise OSError(2)

    def open(self, path, mode):
        found = self.files.get(path)
        if found is None or "r" not in mode:
            raise OSError(2 if found is None else 30)
        # Opened anew each time, since `vfs` is mounted again while this file system is in use. Nothing is copied: the
        # import reads what a .mpy says it has and does not ask for the end.
        file = open(self.path, "rb")  # noqa: SIM115 (whoever imports closes it)
        file.seek(self.base + found[0])
        return file


def mount() -> None:
    vfs.mount(Pack(PACK), "/pack")
    sys.path.insert(1, "/pack")
