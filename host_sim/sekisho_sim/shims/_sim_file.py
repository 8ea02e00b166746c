"""Flash and board as files: slower than `_sim_mem`, for a MicroPython process that can map no memory of the host."""

import struct

flash = board = None
size = 0


def attach(_flash_at, flash_size, _board_at, _board_size, host, flash_path, board_path):
    global flash, board, size
    size = flash_size
    flash = host.open(flash_path, "r+b")
    board = host.open(board_path, "r+b")


def peek(at, length):
    board.seek(at)
    return board.read(length)


def poke(at, data):
    board.seek(at)
    board.write(data)


def get(at):
    return struct.unpack("<I", peek(at, 4))[0]


def put(at, value):
    poke(at, struct.pack("<I", value))


def get64(at):
    return struct.unpack("<Q", peek(at, 8))[0]


def put64(at, value):
    poke(at, struct.pack("<Q", value))


def flash_size():
    return size


def load(at, view):
    flash.seek(at)
    flash.readinto(view)


def clear_bits(at, view):
    n = len(view)
    for i in range(0, n, 256):
        k = min(256, n - i)
        flash.seek(at + i)
        old = bytearray(flash.read(k))
        for j in range(k):
            old[j] &= view[i + j]
        flash.seek(at + i)
        flash.write(old)


def fill(at):
    flash.seek(at)
    flash.write(b"\xff" * 4096)
