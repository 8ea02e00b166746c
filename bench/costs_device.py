"""The part of `costs32` that runs inside MicroPython: what one operation takes, and each part of a verification.

Prints ``kind name microseconds``; each figure is the median of all rounds of processor time.
"""

import host  # tests/npm/run.mjs
import textbook
from sekisho import signing
from sekisho_boot import ed25519
from sekisho_boot.sha512 import sha512

TURNS = 3000
OPERATIONS = (
    ("nothing", "pass"),
    ("small + small", "q = s + 7"),
    ("255 * 255 bits", "q = a * b"),
    ("255 + 255 bits", "q = a + b"),
    ("510 % 255 bits", "q = c % p"),
    ("510 & 255 bits", "q = c & m"),
    ("510 >> 255", "q = c >> 255"),
    ("fold of 510 bits", "q = (c & m) + (c >> 255) * 19"),
    ("64 ^ 64 bits", "q = x ^ y"),
    ("128 >> 14", "q = z >> 14"),
)


def _loop(line):
    room = {}
    # The same frame around each operation; the lines are those above.
    exec("def loop(a, b, c, p, m, x, y, z, s):\n for _ in range({}):\n  {}\n".format(TURNS, line), room)  # noqa: S102, UP032
    return room["loop"]


class Costs:
    """All of it; `step` does one round and tells whether there is another."""

    def __init__(self, size, rounds):
        p = ed25519.P
        a = ed25519._D
        x = 0xFEDCBA9876543210
        values = a, a - 99, a * a, p, (1 << 255) - 1, x, x // 3, x << 64 | x, 5
        message = bytes([i & 255 for i in range(size)])
        seed = bytes(range(32))
        key = signing.public_key(seed)
        signature = signing.sign(seed, message, key)
        h = int.from_bytes(sha512(signature[:32], key, message), "little") % ed25519.L
        s = int.from_bytes(signature[32:], "little")
        u, _, _, v = ed25519.euclid(8 * ed25519.L, h, 128)
        point = ed25519.decompress(key)
        table = ed25519._multiples(point)

        def recode():
            todo = []
            ed25519._recode(todo, s * v % ed25519.L, 64, 5, 0)
            ed25519._recode(todo, u, 264, 4, 65)
            ed25519._recode(todo, v, 264, 4, 81)
            return todo

        todo = recode()
        tables = (ed25519.BASE,) * 4 + (table, table)

        def whole():
            ed25519._recent.clear()
            return ed25519.verify(key, message, signature)

        def operation(line):
            run = _loop(line)
            return lambda: run(*values)

        self.work = [("op", name, operation(line)) for name, line in OPERATIONS] + [
            ("part", "verification by an unknown key", whole),
            ("part", "hashing", lambda: sha512(signature[:32], key, message)),
            ("part", "square root of one point", lambda: ed25519.decompress(key)),
            ("part", "multiples of one point", lambda: ed25519._multiples(point)),
            ("part", "halving the scalars", lambda: ed25519.euclid(8 * ed25519.L, h, 128)),
            ("part", "recoding the scalars", recode),
            ("part", "doublings and additions", lambda: ed25519.joint(todo, tables)),
            ("part", "the textbook's verification", lambda: textbook.verify(key, message, signature)),
        ]
        self.times = [[] for _ in self.work]
        self.left = rounds

    def step(self):
        for index, (_, _, run) in enumerate(self.work):
            start = host.cpu()
            run()
            self.times[index].append(host.cpu() - start)
        self.left -= 1
        if self.left:
            return True
        for index, (kind, name, _) in enumerate(self.work):
            time = sorted(self.times[index])[len(self.times[index]) // 2]
            print(kind, name.replace(" ", "_"), time / (TURNS if kind == "op" else 1))
        return False
