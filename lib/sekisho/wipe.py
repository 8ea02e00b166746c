"""Wipe, transfer, decommission: one plan of every place where data can be, carried out before anything is mounted.

An order leaves the state in the device record (`record.LIFE`); from then on every start comes here first, and no
application and no agent runs until the plan is done: a power cut cannot leave a half-wiped device that works. Keys go
first, with the file system that holds them. Every sector is erased and read back; a start that is interrupted begins
the plan anew. docs/wipe.md says what stays.
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
PLACES = (
    "data: settings, device key, tokens, event log, application data",
    "nvs: what the factory and the Wi-Fi driver keep",
    "staged envelope and holding sector",
    "idle firmware slot",
    "application slots: the idle one; at the end of a device's life both",
    "vfs: files of the user, where the engine is frozen into the firmware",
    "RTC memory; all RAM with the restart",
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
    steps = [_whole(found[label]) for label in ("data", "nvs") if label in found]
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


def statement(key, device: bytes, now: int, action: int, order: bytes, log) -> bytes:
    """The last thing that a device signs with the key that is about to go: what it will do, by whose order, and the
    head of its event log."""
    ours = {1: action, 2: order, 3: [log.number, log.hash], 4: len(PLACES)}
    return key.sign1(encode({6: now, 256: b"\x01" + device, 265: "tag:sekisho,2026:wipe-1", -70001: ours}))


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
    _dead(life[0] == record.WIPING)


def _tries(life: list) -> int:
    return life[2] if len(life) > 2 else 0


def _go_on(port, kept: record.Record, life: list, stock: bool) -> None:
    action, tries = life[1], _tries(life)
    if tries >= MAX_TRIES:
        return
    kept.update({record.LIFE: [record.WIPING, action, tries + 1]})
    _end_update()
    print("sekisho: wiping")
    erase(plan(port, action, stock))
    _forget_rtc()
    if action != _DECOMMISSION:
        _format_data()
    over = [record.DECOMMISSIONED, action, 0] if action == _DECOMMISSION else None
    kept.update({record.LIFE: over, record.DECISIONS: None, record.WANTED: None, record.PENDING: None})
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


def _dead(failed: bool) -> None:
    """The declared dead state: says so, and sleeps until the power is switched off."""
    print("sekisho: the wipe cannot be completed" if failed else "sekisho: decommissioned")
    from machine import deepsleep

    while True:
        deepsleep()
