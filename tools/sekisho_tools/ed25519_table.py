"""Multiples of the base point of Curve25519 in the form that `sekisho_boot.ed25519` reads.

``python -m sekisho_tools.ed25519_table`` prints boot/sekisho_boot/ed25519_table.py.
"""

from __future__ import annotations

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
BASE_Y = 4 * pow(5, -1, P) % P
CHUNK = 64
"""Bits of the scalar that one row of the table serves."""
ROWS, COLUMNS = 4, 8
"""Rows: [2^(64 i)]; columns: the odd multiples 1, 3, ... 15 (five-bit windows)."""

Point = tuple[int, int]


def add(p: Point, q: Point) -> Point:
    """The sum of two affine points (RFC 8032 section 5.1.4)."""
    (x1, y1), (x2, y2) = p, q
    k = D * x1 * x2 * y1 * y2 % P
    return (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P


def times(k: int, p: Point) -> Point:
    """k times an affine point, k >= 0."""
    out = (0, 1)
    while k:
        if k & 1:
            out = add(out, p)
        p, k = add(p, p), k >> 1
    return out


def base_point() -> Point:
    """The base point B: y = 4/5, x even."""
    x = pow((BASE_Y**2 - 1) * pow(D * BASE_Y**2 + 1, -1, P), (P + 3) // 8, P)
    if (x * x * (D * BASE_Y**2 + 1) - (BASE_Y**2 - 1)) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    return (P - x if x & 1 else x), BASE_Y


def entry(p: Point) -> bytes:
    """One table entry: y - x, y + x and 2dxy, 32 bytes each, little-endian."""
    x, y = p
    return b"".join((v % P).to_bytes(32, "little") for v in (y - x, y + x, 2 * D * x * y))


def rows(p: Point) -> list[bytes]:
    """The table of a point: ROWS rows of COLUMNS entries."""
    out = []
    for _ in range(ROWS):
        odd, double = p, add(p, p)
        row = b""
        for _ in range(COLUMNS):
            row += entry(odd)
            odd = add(odd, double)
        out.append(row)
        p = times(1 << CHUNK, p)
    return out


def module() -> str:
    """The source of boot/sekisho_boot/ed25519_table.py."""
    lines = [
        '"""1, 3, ... 15 times [2^0]B, [2^64]B, [2^128]B and [2^192]B for `ed25519`, a point a line: y-x, y+x, 2dxy.',
        "",
        "Printed by `python -m sekisho_tools.ed25519_table`; a test compares.",
        '"""',
        "",
        "# fmt: off",
        "BASE = (",
    ]
    data = b"".join(rows(base_point()))
    for at in range(0, len(data), 96):
        lines.append('    b"' + "".join(f"\\x{c:02x}" for c in data[at : at + 96]) + '"')
    return "\n".join([*lines, ")", ""])


if __name__ == "__main__":
    print(module(), end="")
