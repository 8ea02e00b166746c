# Runs on the Unix port of MicroPython: the engine, loaded from .mpy files, on a flash that lies in a file.
#
#   micropython -X heapsize=100k engine_run.py FLASH RUNNING WHAT DIRECTORY... LABEL=OFFSET:SIZE...
#
# WHAT: "start" imports the engine and opens the parts; "boot" then runs the engine once; "tight" too, collecting
# garbage more often than a device does; "hash" hashes 128 KiB; "bodies3" runs the bodies of the engine's modules three
# times more, from source, as frozen modules are run at every start.
# The last line says how it ended: "reset", or what the engine decided.
import sys

FLASH, RUNNING, WHAT = sys.argv[1:4]
labels = {}
sys.path[:] = [".frozen"]
for word in sys.argv[4:]:
    if "=" in word:
        label, place = word.split("=")
        labels[label] = [int(number) for number in place.split(":")]
    else:
        sys.path.append(word)

import gc  # noqa: E402

gc.threshold(4096)  # code that is loaded from files lies on the heap: garbage in between would tear it apart
for name in ("reasons", "cbor", "records", "sha512", "ed25519", "cose", "keyset", "suit", "ledger", "engine"):
    gc.collect()
    __import__("sekisho_boot." + name)
gc.collect()
import sekisho_config  # noqa: E402
from sekisho_boot import engine  # noqa: E402

flash = open(FLASH, "r+b")


class Reset(BaseException):
    pass


class Part:
    encrypted = False

    def __init__(self, at, size):
        self.at, self.size = at, size

    def read(self, off, buf):
        flash.seek(self.at + off)
        flash.readinto(buf)

    def program(self, off, buf):
        old = bytearray(len(buf))
        self.read(off, old)
        for i in range(len(buf)):
            old[i] &= buf[i]
        flash.seek(self.at + off)
        flash.write(old)

    def erase(self, sector):
        flash.seek(self.at + sector * 4096)
        for _ in range(16):
            flash.write(b"\xff" * 256)


class Port:
    config = sekisho_config
    vendor, classes, device = sekisho_config.VENDOR, sekisho_config.CLASSES, bytes(16)
    revision = 300
    running = int(RUNNING)

    def __init__(self):
        self.fw = [Part(*labels["ota_0"]), Part(*labels["ota_1"])]
        self.app = [Part(*labels[label]) for label in ("app_0", "app_1") if label in labels]
        self.part, self.otadata = Part(*labels["sekisho"]), Part(*labels["otadata"])

    def hardware_floor(self):
        return 0

    def now(self):
        return 0

    def watchdog(self, seconds):
        pass

    def reset(self):
        raise Reset


def bodies():
    for name in ("reasons", "cbor", "records", "sha512", "ed25519_table", "ed25519", "cose", "flash", "otadata") + (
        "image",
        "keyset",
        "suit",
        "ledger",
        "engine",
    ):
        with open(sys.path[-1] + "/sekisho_boot/" + name + ".py") as file:
            source = (
                file.read().replace("from . import", "from sekisho_boot import").replace("from .", "from sekisho_boot.")
            )
        code.append(compile(source, name, "exec"))


code = []
port = Port()
gc.threshold(16384 if WHAT in ("boot", "start") else 4096 if WHAT == "tight" else -1)  # 16384: as in _boot.py
said = "started"
if WHAT.startswith("bodies"):
    bodies()
    for _ in range(int(WHAT[6:])):
        for one in code:
            exec(one, {"__name__": "body"})
elif WHAT == "hash":
    engine._digest(port.fw[0], 0x20000)
elif WHAT in ("boot", "tight"):
    try:
        decision = engine.boot(port)
        said = "%s %s %d" % (decision.app and decision.app[1], decision.trial, decision.degraded)
    except Reset:
        said = "reset"
flash.close()
print(said)
