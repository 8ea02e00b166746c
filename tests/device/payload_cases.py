# Runs on CPython and on MicroPython: packed payloads against what the desk made of them.
import gc
import sys
from hashlib import sha256

from sekisho import payload
from sekisho.issued import Kek
from sekisho_boot.reasons import Refused, name


class Target:
    def __init__(self, component, digest, size, uri):
        self.component, self.digest, self.size, self.uri = component, digest, size, uri


class Plan:
    def __init__(self, targets):
        self.targets = targets


class Anything:  # a key set without a policy
    def allows(self, part, algorithm):
        return True


def read(path):
    with open(path, "rb") as file:
        return file.read()


def unpack(form, data, size, start, piece):
    """(the image from *start* on, or the reason of the refusal)."""
    out = bytearray()

    def write(offset, view):
        assert offset == start + len(out)
        assert len(view) == payload.SECTOR or offset + len(view) == size
        out.extend(view)

    gc.collect()
    try:
        unpacker = payload.Unpacker(form, size, start, write)
        view = memoryview(bytearray(data))
        for at in range(0, len(view), piece):
            unpacker.feed(view[at : at + piece])
        unpacker.done()
    except Refused as refused:
        return name(refused.code)
    return sha256(out).digest()


def main(folder, case):
    if sys.implementation.name == "micropython":
        gc.threshold(-1)
    envelope, image = read(folder + "/envelope"), read(folder + "/image")
    plan = Plan([Target(0, sha256(image).digest(), len(image), None)])
    keks = [Kek(read(folder + "/kek"))]
    forms = payload.offers(envelope, plan)[0]
    print("forms", [(f.uri[:9], f.size, f.compressed, f.encryption is not None) for f in forms])
    form = payload.choose(forms, keks, Anything())
    packed = read(folder + "/" + (sha256_hex(form.digest) if form.digest else "image"))
    if case == "good":
        for start, piece in ((0, 4096), (0, 100), (0, 1), (8192, 4096), (12288, 1000)):
            if piece == 1 and len(packed) > 100000:
                continue
            got = unpack(form, packed, len(image), start, piece)
            print(start, piece, got == sha256(memoryview(image)[start:]).digest() or got)
    elif case == "bad":
        print("short", unpack(form, packed[:-1], len(image), 0, 4096))
        print("long", unpack(form, packed + b"\0", len(image), 0, 4096))
        for place in (0, 1, 2, len(packed) // 2, len(packed) - 1):
            bad = bytearray(packed)
            bad[place] ^= 16
            print(place, unpack(form, bad, len(image), 0, 4096) in ("IMAGE_DIGEST", "IMAGE_SIZE", "LIMIT"))
        print("doubled", unpack(form, packed + packed, len(image), 0, 4096))
        print("smaller", unpack(form, packed, len(image) - 1, 0, 4096))
        print("larger", unpack(form, packed, len(image) + 1, 0, 4096))
    elif case == "noise":
        seen = {}
        block = sha256(packed).digest()
        for number in range(60):
            bad = bytearray(packed[:6000])
            at = 2
            for _ in range(1 + number % 5):
                block = sha256(block).digest()
                at = (at + block[0] * 20 + block[1]) % 5900 + 2
                bad[at : at + 1 + block[2] % 32] = block[: 1 + block[2] % 32]
            form.size = len(bad)
            form.digest = sha256(bad).digest()
            result = unpack(form, bad, len(image), 0, 1 + block[3] * 16)
            seen[result if isinstance(result, str) else "taken"] = True
        print("noise", sorted(seen))
    elif case == "memory":
        out = [0]

        def write(offset, view):
            out[0] = offset + len(view)

        gc.collect()
        before = gc.mem_alloc()
        unpacker = payload.Unpacker(form, len(image), 0, write)
        view = memoryview(bytearray(4096))
        most = 0
        for at in range(0, len(packed), 4096):
            size = min(4096, len(packed) - at)
            view[:size] = memoryview(packed)[at : at + size]
            unpacker.feed(view[:size])
            gc.collect()
            most = max(most, gc.mem_alloc() - before)
        unpacker.done()
        print("memory", most)


def sha256_hex(digest):
    from binascii import hexlify

    return str(hexlify(digest), "utf-8")


def refused(folder):
    try:
        return payload.choose(
            payload.offers(read(folder + "/envelope"), Plan([Target(0, b"", 9, None)]))[0], [], Anything()
        )
    except Refused as refusal:
        print(name(refusal.code))
