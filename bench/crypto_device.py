"""The part of `bench_crypto` that runs inside MicroPython: measures ours and the textbook in turns, in one process.

Prints ``name ours textbook ratio`` lines. Times are microseconds of processor time, so that other work on the machine
counts for nothing; each figure is the median of all rounds, a ratio that of the ratios within one round.
"""

import textbook
from sekisho import signing
from sekisho_boot import ed25519
from sekisho_boot.sha512 import sha512

try:
    from time import clock  # Unix port

    def now():
        return clock() * 1e6
except ImportError:
    import host  # tests/npm/run.mjs

    now = host.cpu

SEED = bytes(range(32))


def median(values):
    return sorted(values)[len(values) // 2]


class Bench:
    """The figures; ``work`` has them as (name, ours, textbook, repetitions of ours for each of *times*)."""

    def __init__(self, size, rounds, times):
        message = bytes([i & 255 for i in range(size)])
        public = signing.public_key(SEED)
        signature = signing.sign(SEED, message, public)
        assert textbook.sign(SEED, message) == signature
        assert textbook.verify(public, message, signature)

        def unknown():
            ed25519._recent.clear()
            return ed25519.verify(public, message, signature)

        def recent():
            return ed25519.verify(public, message, signature)

        def verified():
            return textbook.verify(public, message, signature)

        block = bytes(111)
        self.work = [
            ("verify_unknown_key", unknown, verified, 1),
            ("verify_recent_key", recent, verified, 1),
            ("sign", lambda: signing.sign(SEED, message, public), lambda: textbook.sign(SEED, message), 1),
            ("sha512_block", lambda: sha512(block), lambda: textbook.sha512(block), 10),
        ]
        self.times = times
        self.seen = {}
        self.left = [(work, which) for _ in range(rounds) for work in self.work for which in (1, 2)]

    def step(self):
        """Measure one thing; False when all rounds are done, after printing.

        One at a time, since the 32-bit build collects garbage only in between.
        """
        work, which = self.left.pop(0)
        name = work[0]
        call = work[which]
        times = work[3] * (self.times if which == 1 else 1 + self.times // 10)
        start = now()
        for _ in range(times):
            assert call()
        self.seen.setdefault((name, which), []).append((now() - start) / times)
        if not self.left:
            for work in self.work:
                ours, other = self.seen[work[0], 1], self.seen[work[0], 2]
                ratios = [other[i] / max(ours[i], 1) for i in range(len(ours))]
                print(work[0], median(ours), median(other), median(ratios))
        return bool(self.left)
