"""The part of `bench_crypto` that runs inside MicroPython: times ours and the textbook side by side, in one run.

Prints ``name microseconds`` lines; every figure is the best of several runs, as other work on the machine only adds.
"""

import time

import textbook
from sekisho import signing
from sekisho_boot import ed25519
from sekisho_boot.sha512 import sha512

SEED = bytes(range(32))


def clear():
    """Forget recently used keys."""
    ed25519._recent.clear()


class Bench:
    """The figures, measured in turns, so that both sides see the same machine."""

    def __init__(self, size, rounds):
        message = bytes([i & 255 for i in range(size)])
        public = signing.public_key(SEED)
        signature = signing.sign(SEED, message, public)
        assert textbook.sign(SEED, message) == signature
        assert textbook.verify(public, message, signature)

        def unknown():
            clear()
            return ed25519.verify(public, message, signature)

        def known():
            clear()
            ed25519.verify(public, b"", signature)
            return lambda: ed25519.verify(public, message, signature)

        block = bytes(111)
        self.work = [
            ("textbook_verify", lambda: lambda: textbook.verify(public, message, signature)),
            ("verify_unknown_key", lambda: unknown),
            ("verify_recent_key", known),
            ("sign", lambda: lambda: signing.sign(SEED, message, public)),
            ("textbook_sign", lambda: lambda: textbook.sign(SEED, message)),
            ("textbook_sha512_block", lambda: lambda: textbook.sha512(block)),
            ("sha512_block", lambda: lambda: sha512(block)),
        ]
        self.best = {}
        self.left = [work for _ in range(rounds) for work in self.work]

    def step(self):
        """Measure one thing; False when all rounds are done, after printing.

        One at a time, since the 32-bit build collects garbage only in between. Its clock ticks in milliseconds.
        """
        name, prepare = self.left.pop(0)
        call = prepare()
        times = 20 if "block" in name else 2 if "textbook" in name else 5
        start = time.ticks_us()
        for _ in range(times):
            assert call()
        spent = time.ticks_diff(time.ticks_us(), start) / times
        self.best[name] = min(spent, self.best.get(name, spent))
        if not self.left:
            for name, _ in self.work:
                print(name, int(self.best[name]))
        return bool(self.left)
