"""Flash and board as memory that the host has mapped into this process: costs no heap of the device."""

import struct

import uctypes
from _sim_layout import BLANK

flash = board = blank = None


def attach(flash_at, flash_size, board_at, board_size, _host, _flash_path, _board_path):
    global flash, board, blank
    flash = memoryview(uctypes.bytearray_at(flash_at, flash_size))
    board = memoryview(uctypes.bytearray_at(board_at, board_size))
    blank = board[BLANK : BLANK + 4096]


def get(at):
    return struct.unpack_from("<I", board, at)[0]


def put(at, value):
    struct.pack_into("<I", board, at, value)


def get64(at):
    return struct.unpack_from("<Q", board, at)[0]


def put64(at, value):
    struct.pack_into("<Q", board, at, value)


def peek(at, length):
    return bytes(board[at : at + length])


def poke(at, data):
    board[at : at + len(data)] = data


def flash_size():
    return len(flash)


def load(at, view):
    view[:] = flash[at : at + len(view)]


def clear_bits(at, view):
    n = len(view)
    for i in range(0, n, 256):
        k = min(256, n - i)
        old, new = flash[at + i : at + i + k], view[i : i + k]
        if old == blank[:k]:
            old[:] = new
        else:
            for j in range(k):
                old[j] &= new[j]


def fill(at):
    flash[at : at + 4096] = blank
