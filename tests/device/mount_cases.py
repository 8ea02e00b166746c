# Runs on MicroPython: mounts damaged littlefs images and reads the settings from them. Ends, or the test fails.
import gc
import json
import os
import random

import vfs

BLOCK = 4096


class Memory:
    def __init__(self, data):
        self.data = data

    def readblocks(self, n, buf, off=0):
        at = n * BLOCK + off
        buf[:] = self.data[at : at + len(buf)]

    def writeblocks(self, n, buf, off=0):
        raise OSError(30)

    def ioctl(self, op, arg):
        return {4: len(self.data) // BLOCK, 5: BLOCK}.get(op, 0)


def damage(data, seed):
    """One of: bytes flipped in a block in use, a block erased, a block copied over another, noise."""
    random.seed(seed)
    blocks = len(data) // BLOCK
    kind = seed % 4
    at = random.randrange(6) * BLOCK  # where a small file system has what it has
    if kind == 0:
        for _ in range(random.randrange(1, 9)):
            data[at + random.randrange(BLOCK >> random.randrange(8))] ^= 1 << random.randrange(8)
    elif kind == 1:
        data[at : at + BLOCK] = b"\xff" * BLOCK
    elif kind == 2:
        other = random.randrange(blocks) * BLOCK
        data[other : other + BLOCK] = data[at : at + BLOCK]
    else:
        for i in range(random.randrange(64)):
            data[at + i] = random.getrandbits(8)


def main(path, count):
    with open(path, "rb") as file:
        good = file.read()
    mounted = read = 0
    for seed in range(count):
        data = bytearray(good)
        damage(data, seed)
        gc.collect()
        try:
            vfs.mount(vfs.VfsLfs2(Memory(data)), "/data")
        except Exception:
            continue
        mounted += 1
        try:
            os.listdir("/data")
            with open("/data/sekisho.json") as file:
                json.load(file)
            read += 1
        except (OSError, ValueError):
            pass
        vfs.umount("/data")
    print(count, mounted, read)


class Writable(Memory):
    def writeblocks(self, n, buf, off=0):
        at = n * BLOCK + off
        self.data[at : at + len(buf)] = buf

    def ioctl(self, op, arg):
        if op == 6:
            self.data[arg * BLOCK : (arg + 1) * BLOCK] = b"\xff" * BLOCK
            return 0
        return Memory.ioctl(self, op, arg)


def write(path):
    """Writes one more file, as a device would."""
    with open(path, "rb") as file:
        data = bytearray(file.read())
    vfs.mount(vfs.VfsLfs2(Writable(data)), "/data")
    with open("/data/written", "w") as file:
        file.write("by the device")
    vfs.umount("/data")
    with open(path, "wb") as file:
        file.write(data)
