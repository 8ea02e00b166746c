# Stock mode: the official firmware has mounted the `vfs` partition and runs this file from it.
# Firmware with Sekisho frozen in has a copy too, so that no file of this name is ever run; there _boot.py was faster.
import sys

PACK = "/sekisho.pack"

if "sekisho_boot.engine" not in sys.modules:
    sys.path[:] = [
        ".frozen"
    ]  # nothing else for the engine: what is in files could stand in for hashlib, and takes time

    import gc

    import micropython
    import vfs

    class Pack:
        """All device code in one file, as a read-only file system: littlefs would give every module a block of 4 KiB,
        and fill `vfs` with air. Format: a line "<offset> <size> <path>" per module, an empty line, their contents.
        """

        def __init__(self):
            self.index = b"\n"  # as it is in the file: parsed it would take five times the memory
            with open(PACK, "rb") as file:
                line = file.readline()
                while len(line) > 1:
                    self.index += line
                    line = file.readline()
                self.base = file.tell()

        def mount(self, readonly, mkfs):
            pass

        def umount(self):
            pass

        def find(self, path):
            at = self.index.find(b" " + path[1:].encode() + b"\n")
            if at < 0:
                return None
            return [int(word) for word in self.index[self.index.rfind(b"\n", 0, at) + 1 : at].split()]

        def stat(self, path):
            found = self.find(path)
            if found:
                return (0x8000, 0, 0, 0, 0, 0, found[1], 0, 0, 0)
            if self.index.find(b" " + path[1:].encode() + b"/") >= 0:
                return (0x4000, 0, 0, 0, 0, 0, 0, 0, 0, 0)
            raise OSError(2)

        def open(self, path, mode):
            found = self.find(path)
            if not found or "r" not in mode:
                raise OSError(30 if found else 2)
            # Opened anew each time, since `vfs` is mounted again while this file system is in use. Nothing is copied:
            # the import reads what a .mpy says it has and does not ask for the end.
            file = open(PACK, "rb")  # noqa: SIM115 (whoever imports closes it)
            file.seek(self.base + found[0])
            return file

    gc.threshold(16384)  # as in _boot.py
    micropython.kbd_intr(-1)  # Ctrl-C must not stop the engine half-way
    port = decision = None
    try:
        vfs.mount(Pack(), "/pack")
        sys.path.insert(1, "/pack")
        gc.collect()
        import sekisho_config

        for name in ("reasons", "cbor", "records", "sha512", "ed25519", "cose", "keyset", "suit", "ledger", "engine"):
            gc.collect()  # code loaded from files lies on the heap: garbage in between would tear it apart
            __import__("sekisho_boot." + name)
        from sekisho_boot.engine import boot
        from sekisho_boot.port import Port

        gc.collect()
        port = Port(sekisho_config)
        decision = boot(port)
    except Exception as error:
        sys.print_exception(error)

    sys.path.append("/lib")
    try:
        gc.collect()
        import sekisho
        from sekisho.mounts import mount

        sekisho.started(port, decision)
        mount(decision and decision.app, stock=True)
    except Exception as error:
        sys.print_exception(error)
    micropython.kbd_intr(3)
