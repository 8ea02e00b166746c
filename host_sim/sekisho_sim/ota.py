"""The running app's side of otadata: ESP-IDF's `esp_ota_ops.c`, which `esp32.Partition` calls.

On a chip this is C code; here the device asks the host for it. Each write is an erase and a program, logged and
cuttable like any other. Quirks kept: re-selecting, the choice of entry, and that marking valid acts on the *active*
entry, whichever slot runs.
"""

from __future__ import annotations

from sekisho_tools import imagefile
from sekisho_tools.errors import ToolError
from sekisho_tools.imagefile import Chip
from sekisho_tools.layout import Layout, Partition

from .bootloader import NEW, UNDEFINED, VALID, Entry, active_entry, read_entries
from .flash import SECTOR, Flash


class EspError(Exception):
    """An `esp_err_t` other than ESP_OK: *code* and the *name* that MicroPython shows."""

    def __init__(self, code: int, name: str) -> None:
        super().__init__(name)
        self.code = code
        self.name = name


def _write(flash: Flash, otadata: Partition, number: int, entry: Entry) -> None:
    flash.erase(otadata.offset + number * SECTOR)
    flash.program(otadata.offset + number * SECTOR, entry.encode())


def set_boot(flash: Flash, table: Layout, part: Partition, chip: Chip, *, rollback: bool = True) -> None:
    """`esp_ota_set_boot_partition`: verify the image in *part*, then let otadata select it."""
    try:
        with memoryview(flash.buffer)[part.offset : part.end] as data:
            imagefile.verify(data, chip, address=part.offset, loading=False)
    except ToolError:
        raise EspError(0x1503, "ESP_ERR_OTA_VALIDATE_FAILED") from None
    otadata = table.otadata
    if part.type != 0:
        raise EspError(0x102, "ESP_ERR_INVALID_ARG")
    if otadata is None:
        raise EspError(0x105, "ESP_ERR_NOT_FOUND")
    if part.subtype == 0:
        flash.erase(otadata.offset, otadata.size)
        return
    slots = table.ota
    slot = part.subtype - 0x10
    if not 0 <= slot < len(slots):
        raise EspError(0x102, "ESP_ERR_INVALID_ARG")
    entries = read_entries(flash, otadata)
    active = active_entry(entries)
    state = NEW if rollback else UNDEFINED
    if active < 0:
        _write(flash, otadata, 0, Entry.make(slot + 1, state))
        return
    seq = entries[active].seq
    if (seq - 1) % len(slots) == slot:
        _write(flash, otadata, active, Entry.make(seq, state))
        return
    new = (slot + 1) % len(slots)
    while new < seq or new == 0:
        new += len(slots)
    _write(flash, otadata, 1 - active, Entry.make(new, state))


def mark_valid(flash: Flash, table: Layout) -> None:
    """`esp_ota_mark_app_valid_cancel_rollback`: make the active entry VALID."""
    otadata = table.otadata
    if otadata is None:
        raise EspError(0x105, "ESP_ERR_NOT_FOUND")
    entries = read_entries(flash, otadata)
    active = active_entry(entries)
    if active < 0 or not table.ota:
        raise EspError(-1, "ESP_FAIL")
    if entries[active].state != VALID:
        _write(flash, otadata, active, Entry(entries[active].seq, VALID, entries[active].crc))


def next_update(table: Layout, address: int) -> Partition:
    """`esp_ota_get_next_update_partition`: the ota slot after the one at *address*, wrapping to the lowest."""
    slots = table.ota
    if not slots:
        raise EspError(0x105, "ESP_ERR_NOT_FOUND")
    for number, slot in enumerate(slots):
        if slot.offset == address:
            return slots[(number + 1) % len(slots)]
    return slots[0]
