"""The engine's otadata against the bootloader's own rules, on any two entries."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import assume, given, settings
from sekisho_boot import otadata, reasons
from sekisho_boot.reasons import Refused
from sekisho_sim import bootloader
from sekisho_sim.bootloader import Entry
from sekisho_sim.flash import SECTOR, Flash, MemPart, cut_states

SLOTS = st.integers(0, 1)
STATES = st.sampled_from([0, 1, 2, 3, 4, 0xFFFFFFFF])
SEQS = st.one_of(st.integers(1, 6), st.sampled_from([0x7FFFFFFF, 0xFFFFFFEF, 0xFFFFFFF0, 0xFFFFFFF1, 0xFFFFFFFE]))
ENTRIES = st.one_of(
    st.none(),
    st.builds(Entry.make, SEQS, STATES),
    st.builds(lambda seq, state: Entry(seq, state, bootloader.seq_crc(seq) ^ 1), SEQS, STATES),
)


def part_of(*entries: Entry | None) -> MemPart:
    flash = Flash.blank(2 * SECTOR)
    for index, entry in enumerate(entries):
        if entry:
            flash.buffer[index * SECTOR : index * SECTOR + 32] = entry.encode()
    return MemPart(2 * SECTOR, flash)


def read(part: MemPart) -> tuple[Entry, Entry]:
    return Entry.decode(part.flash.read(0, 32)), Entry.decode(part.flash.read(SECTOR, 32))


def chosen(part: MemPart) -> tuple[int, int]:
    """(slot, state) that the bootloader would select, (-1, -1) where it falls back to its own order."""
    entries = read(part)
    active = bootloader.active_entry(entries)
    return ((entries[active].seq - 1) % 2, entries[active].state) if active >= 0 else (-1, -1)


@settings(max_examples=300, deadline=None)
@given(ENTRIES, ENTRIES)
def test_reads_what_the_bootloader_reads(first, second):
    part = part_of(first, second)
    assert otadata.selected(part) == chosen(part)
    assert otadata.active(otadata.entries(part)) == bootloader.active_entry(read(part))


@pytest.mark.parametrize("seq", [0, 0xFFFFFFFF])
def test_a_sequence_that_selects_no_slot_is_no_entry(seq):
    part = part_of(Entry.make(seq, 2), None)
    assert otadata.entries(part) == [None, None]
    assert otadata.selected(part) == (-1, -1)


@settings(max_examples=200, deadline=None)
@given(ENTRIES, ENTRIES, SLOTS, st.sampled_from([otadata.NEW, otadata.VALID]))
def test_selecting_selects_and_a_cut_keeps_the_old_choice(first, second, slot, state):
    part = part_of(first, second)
    before, base = chosen(part), bytes(part.flash.buffer)
    otadata.select(part, slot, state)
    assert chosen(part) == (slot, state)
    high = [entry.seq for entry in (first, second) if entry and entry.valid]
    assume(max(high, default=0) <= 0xFFFFFFF0)  # above that nobody honest ever gets, and the table starts again
    ops = list(part.flash.log)
    active = bootloader.active_entry((first or Entry(0xFFFFFFFF, 0, 0), second or Entry(0xFFFFFFFF, 0, 0)))
    assert {op.address // SECTOR for op in ops} == {1 - active if active >= 0 else 0}
    written = (first, second)[ops[0].address // SECTOR]
    # A torn erase can turn ABORTED into a state that counts; the ledger decides then (the campaign cuts there).
    assume(not (written and written.crc_ok and written.dismissed))
    for _, cut in cut_states(base, ops[:1]):
        part.flash.buffer[:] = cut
        if before != (-1, -1):
            assert chosen(part) == before


@settings(max_examples=200, deadline=None)
@given(ENTRIES, ENTRIES, SLOTS)
def test_only_the_selected_slot_is_marked_valid_and_its_sequence_stays(first, second, slot):
    part = part_of(first, second)
    before, entries = chosen(part), read(part)
    part.flash.log.clear()
    if before[0] != slot:
        with pytest.raises(Refused) as caught:
            otadata.mark_valid(part, slot)
        assert caught.value.code == reasons.NOT_SELECTED
        assert part.flash.log == []
        return
    otadata.mark_valid(part, slot)
    assert chosen(part) == (slot, otadata.VALID)
    active = bootloader.active_entry(entries)
    assert read(part)[active].seq == entries[active].seq
    assert bool(part.flash.log) == (before[1] != otadata.VALID)


@settings(max_examples=200, deadline=None)
@given(ENTRIES, ENTRIES, SLOTS)
def test_after_normalising_one_entry_selects_the_slot_and_the_other_is_erased(first, second, slot):
    part = part_of(first, second)
    otadata.normalise(part, slot)
    assert chosen(part) == (slot, otadata.VALID)
    entries = read(part)
    other = 1 - bootloader.active_entry(entries)
    assert part.flash.read(other * SECTOR, SECTOR) == b"\xff" * SECTOR
    part.flash.log.clear()
    otadata.normalise(part, slot)
    assert part.flash.log == []  # nothing is written twice


def test_normalising_to_the_older_entry_only_erases_the_newer():
    part = part_of(Entry.make(1, otadata.VALID), Entry.make(2, otadata.PENDING))
    otadata.normalise(part, 0)
    assert [(op.kind, op.address) for op in part.flash.log] == [("erase", SECTOR)]
    assert read(part)[0] == Entry.make(1, otadata.VALID)


def test_what_does_not_read_back_is_refused():
    part = part_of()
    real = part.flash.program
    part.flash.program = lambda address, data: real(address, bytes([data[0] | 0]) + bytes(len(data) - 1))
    with pytest.raises(Refused) as caught:
        otadata.select(part, 1, otadata.NEW)
    assert caught.value.code == reasons.FLASH


def test_the_states_have_the_numbers_of_the_bootloader():
    own = otadata.NEW, otadata.PENDING, otadata.VALID, otadata.INVALID, otadata.ABORTED
    assert own == (bootloader.NEW, bootloader.PENDING, bootloader.VALID, bootloader.INVALID, bootloader.ABORTED)
    assert own == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("slot", [0, 1])
def test_an_empty_table_begins_with_the_lowest_number_of_the_slot(slot):
    part = part_of()
    otadata.select(part, slot, otadata.NEW)
    assert read(part)[0] == Entry.make(1 + slot, otadata.NEW)


@pytest.mark.parametrize("active", [0, 1])
@pytest.mark.parametrize("slot", [0, 1])
def test_numbers_that_run_out_begin_again_and_not_one_too_early(active, slot):
    def table(seq):
        entry = Entry.make(seq, otadata.VALID)
        return part_of(None, entry) if active else part_of(entry, None)

    last = table(0xFFFFFFF0)
    otadata.select(last, slot, otadata.NEW)
    assert read(last)[1 - active] == Entry.make(0xFFFFFFF1 + slot, otadata.NEW)
    over = table(0xFFFFFFF1)
    otadata.select(over, slot, otadata.NEW)
    assert read(over)[0] == Entry.make(1 + slot, otadata.NEW)
    assert bytes(over.flash.read(SECTOR, SECTOR)) == b"\xff" * SECTOR


def test_normalising_to_the_older_entry_of_either_sector_programs_nothing():
    for entries in (
        (Entry.make(1, otadata.VALID), Entry.make(2, otadata.NEW)),
        (Entry.make(2, otadata.NEW), Entry.make(1, otadata.VALID)),
    ):
        part = part_of(*entries)
        otadata.normalise(part, 0)
        assert [op.kind for op in part.flash.log] == ["erase"]
        assert chosen(part) == (0, otadata.VALID)
