"""Wipe, transfer, decommission: one plan of every place where data can be, carried out before anything is mounted.

An order leaves the state in the device record (`record.LIFE`); from then on every start comes here first, and no
application and no agent runs until the plan is done: a power cut cannot leave a half-wiped device that works. Content
keys go first, then the file system with everything else that is secret. Every sector is erased and read back; a start
that is interrupted begins the plan anew. docs/wipe.md says what stays, and what the last statement says.
"""

from micropython import const
from sekisho_boot import records
from sekisho_boot.flash import SECTOR, Part, is_blank
from sekisho_boot.ledger import FETCHING, READY, TRYING
from sekisho_boot.reasons import FLASH, HEALTH, NOTHING, Refused

from . import record
from .cbor import encode

MAX_TRIES = const(3)  # starts that may fail before the device stays dead

_WIPE = const(5)  # orders.WIPE and its kin: this runs before anything else and imports as little as it can
_DECOMMISSION = const(6)
_TRANSFER = const(12)
_ACTIONS = (_WIPE, _DECOMMISSION, _TRANSFER)

PROFILE = "tag:sekisho,2026:wipe-1"
PROMISED = const(1)  # what a statement says: it begins now, and nothing runs before it is done
DONE = const(2)  # it is done, and everything was read back
PLACES = (
    "nvs: what the factory gave, content keys among it, and what the Wi-Fi driver keeps",
    "data: settings, device key, tokens, event log, application data",
    "staged envelope and holding sector",
    "idle firmware slot",
    "application slots: the idle one; at the end of a device's life both",
    "vfs: files of the user, where the engine is frozen into the firmware",
    "RTC memory; RAM and PSRAM, as far as they are free",
)


def plan(port, action: int, stock: bool) -> list:
    """[(Part, first sector, number of sectors), ...] in the order in which they are erased."""
    from esp32 import Partition

    kind = Partition.TYPE_DATA
    labels = ("data", "nvs") if stock else ("data", "nvs", "vfs")  # in stock mode the engine itself lies on vfs
    found = {}
    for partition in Partition.find(kind):
        if partition.info()[4] in labels:
            found[partition.info()[4]] = Part(partition)
    steps = [_whole(found[label]) for label in ("nvs", "data") if label in found]
    steps.append((port.part, records.STAGED, 1))
    steps.append((port.part, records.HOLDING, 1))
    steps.append(_whole(port.fw[1 - port.running]))
    steps += [_whole(part) for part in _apps(port, action)]
    if "vfs" in found:
        steps.append(_whole(found["vfs"]))
    return steps


def _whole(part) -> tuple:
    return part, 0, part.size // SECTOR


def _apps(port, action: int) -> list:
    if action == _DECOMMISSION or not port.app:
        return port.app
    from . import engine

    pair = engine().state.pairs[port.running]
    return [part for slot, part in enumerate(port.app) if not pair or pair[0] != slot]


def erase(steps: list) -> None:
    """Erases and reads back; Refused(FLASH) for a sector that does not come out blank."""
    for part, first, count in steps:
        for sector in range(first, first + count):
            part.erase(sector)
    for part, first, count in steps:
        if not getattr(part, "encrypted", False):  # there erased flash does not read as ones
            for sector in range(first, first + count):
                if not is_blank(part, sector):
                    raise Refused(FLASH)


# -- the last statement --------------------------------------------------------------------------------


def order_of(kept) -> bytes:
    """How results name the order behind this wipe: the first 8 bytes of its SHA-256, b"" where it is not known."""
    for result in kept.get(record.RESULTS, ()):
        if result[1] in _ACTIONS and not result[2]:
            return result[0]
    return b""


def statement(key, device: bytes, now: int, action: int, order: bytes, head: list, state: int) -> bytes:
    """What a device signs with the key that goes (docs/wipe.md): PROMISED before the first erase, DONE after the last
    one was read back. head: number and hash of the last entry of its event log."""
    ours = {1: action, 2: order, 3: head, 4: len(PLACES), 5: state}
    return key.sign1(encode({6: now, 256: b"\x01" + device, 265: PROFILE, -70001: ours}))


def promise(kept, key, device: bytes, now: int, head: list):
    """Signs and keeps what an order of the device record has begun; None where that is done already."""
    order = order_of(kept)
    old = kept.get(record.STATEMENT)
    if old and old[0] == order:
        return None
    made = statement(key, device, now, kept.get(record.LIFE)[1], order, head, PROMISED)
    kept.update({record.STATEMENT: [order, PROMISED, made]})
    return made


def _witness(port, kept):
    """(key, head of the event log) before their place is erased; None where there is no key, or not any more."""
    import vfs
    from esp32 import Partition

    try:
        from . import engine, secure

        vfs.mount(vfs.VfsLfs2(Partition.find(Partition.TYPE_DATA, label="data")[0]), "/data", readonly=True)  # type: ignore[abstract]
        try:
            component = secure.component(port.config)
            if not component.kept():
                return None
            from . import eventlog
            from .devicekey import DeviceKey

            key = DeviceKey(component)
            log = eventlog.Log(port.device, lambda: (0, 0))
            head = [log.number, log.hash]
            promise(kept, key, port.device, engine().now(), head)
            return key, head
        finally:
            vfs.umount("/data")
    except Exception as error:  # a statement is worth much, and no reason to keep secrets
        print("sekisho: no statement (%r)" % error)
        return None


def _attest(port, kept, action: int, witness) -> dict:
    """What is changed in the device record once everything is erased: the statement that says so."""
    if witness is None:
        return {}  # the power went in between, and the key is gone: the promise stays
    from . import engine

    try:
        order = order_of(kept)
        made = statement(witness[0], port.device, engine().now(), action, order, witness[1], DONE)
        return {record.STATEMENT: [order, DONE, made]}
    except Exception as error:
        print("sekisho: no statement (%r)" % error)
        return {}


def _forget_key(port) -> None:
    """A component with keys of its own destroys them; those of software went with `data`."""
    from . import secure

    secure.component(port.config).forget()


def at_start(port, stock: bool = False) -> None:
    """Called at every start before anything is mounted. Comes back only where the device is in use."""
    kept = record.Record(port.part)
    life = kept.get(record.LIFE)
    if not life:
        return
    try:
        if life[0] == record.WIPING:
            _go_on(port, kept, life, stock)
    except Exception as error:  # whatever it is, nothing else may run now
        print("sekisho: the wipe failed (%r)" % error)
        if _tries(kept.get(record.LIFE)) < MAX_TRIES:
            port.reset()
    _dead(life[0] == record.WIPING, kept.get(record.STATEMENT))


def _tries(life: list) -> int:
    return life[2] if len(life) > 2 else 0


def _go_on(port, kept: record.Record, life: list, stock: bool) -> None:
    action, tries = life[1], _tries(life)
    if tries >= MAX_TRIES:
        return
    kept.update({record.LIFE: [record.WIPING, action, tries + 1]})
    _end_update()
    print("sekisho: wiping")
    witness = _witness(port, kept)
    erase(plan(port, action, stock))
    _forget_rtc()
    changes = _attest(port, kept, action, witness)
    _forget_key(port)
    if action != _DECOMMISSION:
        _format_data()
    changes[record.LIFE] = [record.DECOMMISSIONED, action, 0] if action == _DECOMMISSION else None
    for member in (record.DECISIONS, record.WANTED, record.PENDING):
        changes[member] = None
    kept.update(changes)
    witness = None  # the key was needed until here
    forget_ram()
    print("sekisho: wiped")
    port.reset()


def _end_update() -> None:
    """An update on the way is dropped; from a trial the device first returns to the image that was proved."""
    from . import engine

    current = engine()
    if current.state.phase == TRYING:
        current.fail(HEALTH)
    elif current.state.phase in (FETCHING, READY):
        current.abort(NOTHING)


def _format_data() -> None:
    """An empty file system for whoever has the device next. Nowhere else is one ever made on a device."""
    from esp32 import Partition
    from vfs import VfsLfs2

    for partition in Partition.find(Partition.TYPE_DATA, label="data"):
        VfsLfs2.mkfs(partition)  # type: ignore[attr-defined]


def _forget_rtc() -> None:
    from machine import RTC

    memory = RTC()
    size = len(memory.memory())
    memory.memory(bytes(size))
    memory.memory(b"")


def forget_ram() -> int:
    """Overwrites all memory that Python can get hold of, PSRAM too: what an application left there outlives a restart.
    Returns how many bytes that was."""
    import gc

    gc.collect()
    held: list = []
    size, total = 65536, 0
    while size >= 32:
        try:
            held.append(bytearray(size))  # which is zeros
            total += size
        except MemoryError:
            size //= 2
    held.clear()
    gc.collect()
    return total


def _dead(failed: bool, kept) -> None:
    """The declared dead state: says so, with its last statement, and sleeps until the power is switched off."""
    from binascii import b2a_base64

    print("sekisho: the wipe cannot be completed" if failed else "sekisho: decommissioned")
    if kept:
        print("sekisho: statement " + str(b2a_base64(kept[2]).strip(), "utf-8"))
    from machine import deepsleep

    while True:
        deepsleep()
