"""The NOR flash model: what erase, program and a power cut do to the bytes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from sekisho_sim import flash as nor
from sekisho_sim.flash import Flash, MemPart, Op, PowerCutError

FF = b"\xff"


def test_programming_only_clears_bits() -> None:
    flash = Flash.blank(8192)
    flash.program(10, b"\xf0")
    flash.program(10, b"\x3c")
    assert flash.read(9, 3) == b"\xff\x30\xff"


def test_erase_sets_one_sector_and_no_neighbour() -> None:
    flash = Flash(bytearray(3 * 4096))
    flash.erase(4096)
    assert flash.read(0, 3 * 4096) == bytes(4096) + FF * 4096 + bytes(4096)


@pytest.mark.parametrize(("address", "length", "number"), [(1, 4096, 0x102), (0, 100, 0x104), (8192, 4096, 0x104)])
def test_erase_refuses_what_the_driver_refuses(address: int, length: int, number: int) -> None:
    with pytest.raises(OSError, match="ESP_ERR_INVALID") as refused:
        Flash.blank(8192).erase(address, length)
    assert refused.value.errno == -number


def test_every_operation_is_counted_and_logged_with_its_data() -> None:
    flash = Flash.blank(8192)
    flash.program(5, b"abc")
    flash.erase(4096)
    assert flash.log == [Op("program", 5, 3, b"abc"), Op("erase", 4096, 4096)]
    assert (flash.count, flash.erases, flash.programs, flash.programmed) == (2, 1, 1, 3)


def test_flash_in_a_file_is_shared(tmp_path: Path) -> None:
    path = tmp_path / "flash.bin"
    path.write_bytes(FF * 8192)
    one, other = Flash.open(path), Flash.open(path)
    one.program(100, b"seen")
    assert other.read(100, 4) == b"seen"


def test_part_is_a_window_that_cannot_reach_its_neighbours() -> None:
    flash = Flash.blank(4 * 4096)
    part = MemPart(4096, flash, 4096)
    part.program(0, b"in")
    part.erase(0)
    assert [op.address for op in flash.log] == [4096, 4096]
    with pytest.raises(OSError, match="SIZE"):
        part.program(4095, b"ab")
    with pytest.raises(OSError, match="ESP_ERR"):
        part.erase(1)
    with pytest.raises(OSError, match="ARG"):
        part.read(-1, bytearray(1))


def test_part_reads_into_the_buffer_it_is_given() -> None:
    part = MemPart(8192)
    part.program(4096, b"hello")
    buffer = bytearray(7)
    part.read(4096, buffer)
    assert buffer == b"hello\xff\xff"


def test_cut_leaves_the_operation_undone_and_those_before_done() -> None:
    flash = Flash.blank(8192)
    flash.cut_at = 1
    flash.program(0, b"first")
    with pytest.raises(PowerCutError):
        flash.program(8, b"second")
    assert flash.read(0, 16) == b"first" + FF * 11


def test_there_are_at_least_eleven_torn_shapes_of_both_kinds() -> None:
    assert len(nor.SHAPES) >= 11
    assert len(nor.PROGRAM_SHAPES) >= 5
    assert len(nor.ERASE_SHAPES) >= 5


@pytest.mark.parametrize("shape", nor.PROGRAM_SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_torn_program_never_sets_a_bit_nor_clears_a_foreign_one(shape: str, seed: int) -> None:
    rng = random.Random(seed)
    old, data = rng.randbytes(700), rng.randbytes(700)
    op = Op("program", 200, 700, data)
    whole = op.result(old)
    left = nor.torn(old, op, shape, seed)
    assert all(n & ~o == 0 for o, n in zip(old, left, strict=True)), "a 0 became 1"
    assert all(w & ~n == 0 for w, n in zip(whole, left, strict=True)), "a bit went that was not to be programmed"


@pytest.mark.parametrize("shape", nor.PROGRAM_SHAPES)
def test_torn_program_completes_pages_in_order(shape: str) -> None:
    old, data = FF * 1000, bytes(1000)
    op = Op("program", 100, 1000, data)
    for seed in range(6):
        left = nor.torn(old, op, shape, seed)
        pages = [left[a:b] for a, b in nor.pages_of(op)]
        states = ["done" if not any(p) else "old" if p == FF * len(p) else "torn" for p in pages]
        assert states == sorted(states, key=["done", "torn", "old"].index)
        assert states.count("torn") <= 1


def test_pages_are_cut_at_multiples_of_256_of_the_chip() -> None:
    assert nor.pages_of(Op("program", 250, 10, bytes(10))) == [(0, 6), (6, 10)]
    assert nor.pages_of(Op("program", 256, 256, bytes(256))) == [(0, 256)]
    assert nor.pages_of(Op("program", 0, 4, bytes(4))) == [(0, 4)]


def test_shapes_do_what_their_names_say() -> None:
    op = Op("program", 0, 8, bytes(8))
    old = FF * 8
    assert nor.torn(old, op, "program-low-half") == bytes(4) + FF * 4
    assert nor.torn(old, op, "program-high-half") == FF * 4 + bytes(4)
    assert nor.torn(old, op, "program-first-word") == bytes(4) + FF * 4
    assert nor.torn(old, op, "program-none") == old
    assert nor.torn(old, op, "program-done") == bytes(8)
    few = int.from_bytes(nor.torn(old, op, "program-all-but-few-bits", 3), "big").bit_count()
    assert 1 <= few <= 3
    assert int.from_bytes(nor.torn(old, op, "program-one-bit", 3), "big").bit_count() == 63
    long = Op("program", 0, 300, bytes(300))
    assert nor.torn(FF * 300, long, "program-none") == bytes(256) + FF * 44, "seed 0 cuts at the page boundary"
    erase, dirty = Op("erase", 0, 4096), bytes(4096)
    assert nor.torn(dirty, erase, "erase-first-half") == FF * 2048 + bytes(2048)
    left = nor.torn(dirty, erase, "erase-few-zero-bits-left", 1)
    assert int.from_bytes(left, "big").bit_count() ^ 0 >= 1
    assert 1 <= 4096 * 8 - int.from_bytes(left, "big").bit_count() <= 8


def test_shapes_are_pure() -> None:
    op = Op("program", 100, 600, random.Random(1).randbytes(600))
    for shape in nor.PROGRAM_SHAPES:
        assert nor.torn(FF * 600, op, shape, 5) == nor.torn(FF * 600, op, shape, 5)


def test_shape_of_the_other_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        nor.torn(FF * 4, Op("program", 0, 4, bytes(4)), "erase-done")


def test_replay_of_the_log_gives_the_flash() -> None:
    base = random.Random(2).randbytes(16384)
    flash = Flash(bytearray(base))
    flash.erase(0, 8192)
    flash.program(4000, b"across the sectors" * 20)
    flash.program(4001, b"\x01")
    assert nor.replay(base, flash.log) == flash.buffer
    assert nor.decode_ops(nor.encode_ops(flash.log)) == flash.log
    assert nor.decode_ops(nor.encode_ops(flash.log)[:-1]) == flash.log[:-1]


def test_cut_states_hold_every_boundary_and_reproduce_by_their_id() -> None:
    base = FF * 8192
    ops = [Op("program", 0, 300, bytes(300)), Op("erase", 0, 4096), Op("program", 8, 4, b"abcd")]
    states = dict(nor.cut_states(base, ops, seeds=(0, 1), unique=False))
    for count in range(4):
        assert states[str(count)] == nor.replay(base, ops[:count])
    number, shape, seed = ["1", "erase-random-bits", "1"]
    again = nor.replay(base, ops[: int(number)])
    nor.tear(again, ops[int(number)], shape, int(seed))
    assert states["1:erase-random-bits:1"] == again
    assert len(states) == 4 + 2 * (10 + 9 + 10)
    unique = list(nor.cut_states(base, ops, seeds=(0, 1)))
    assert len({state for _, state in unique}) == len(unique) < len(states)
