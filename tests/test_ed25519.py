"""Ed25519: the acceptance table (decision 0003), hostile input, bounds, memory, agreement with `cryptography`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from helpers import micropython
from hypothesis import given, settings
from hypothesis import strategies as st
from sekisho import signing
from sekisho.crypto_error import CryptoError
from sekisho_boot import ed25519
from sekisho_tools import ed25519_table as curve

P, L = ed25519.P, ed25519.L


def encode(p: curve.Point) -> bytes:
    return (p[1] | (p[0] & 1) << 255).to_bytes(32, "little")


def torsion() -> list[curve.Point]:
    """The eight points of small order, the neutral element first."""
    y = 2
    while True:
        ratio = (y * y - 1) * pow(curve.D * y * y + 1, -1, P) % P
        x = pow(ratio, (P + 3) // 8, P)
        if x * x % P != ratio:
            x = x * pow(2, (P - 1) // 4, P) % P
        point = curve.times(L, (x, y))
        if x * x % P == ratio and curve.times(4, point) != (0, 1):
            return [curve.times(i, point) for i in range(8)]
        y += 1


def challenge(r: bytes, public: bytes, message: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % L


def reference(a: curve.Point, r: curve.Point, s: int, h: int) -> bool:
    """The plain cofactorless equation in affine coordinates: [S]B = R + [h]A."""
    return curve.times(s, curve.base_point()) == curve.add(r, curve.times(h, a))


def openssl(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True


@pytest.fixture
def verify() -> object:
    """`ed25519.verify`, each time with a key that it has not seen."""

    def unknown(public: bytes, message: bytes, signature: bytes) -> bool:
        ed25519._recent.clear()
        return ed25519.verify(public, message, signature)

    return unknown


@pytest.fixture
def signed() -> tuple[bytes, bytes, bytes]:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    return key.public_key().public_bytes_raw(), b"message", key.sign(b"message")


def test_refuses_s_of_l_and_more(verify, signed) -> None:
    public, message, signature = signed
    s = int.from_bytes(signature[32:], "little")
    assert verify(public, message, signature)
    for more in range(1, 16):
        if s + more * L < 1 << 256:
            assert not verify(public, message, signature[:32] + (s + more * L).to_bytes(32, "little"))
    for s in (L, L - 1, L + 1, (1 << 256) - 1):
        assert not verify(public, message, signature[:32] + s.to_bytes(32, "little"))


def test_refuses_every_small_order_key_and_r(verify, signed) -> None:
    public, message, _ = signed
    encodings = {encode(p) for p in torsion()}
    encodings |= {bytes([*e[:31], e[31] ^ 128]) for e in encodings}  # x = 0 with the sign bit set
    assert len(encodings) == 8 + 2
    for small in encodings:
        for s in (0, 1):
            # A of small order: for some messages these satisfy the equation.
            r = encode(curve.times(s, curve.base_point()) if s else (0, 1))
            for n in range(16):
                assert not verify(small, bytes([n]), r + s.to_bytes(32, "little"))
        # R of small order, made by the key's owner: S = h a with R = [0]B + T.
        scalar, _prefix = signing._expand(bytes(range(32)))
        s = challenge(small, public, message) * scalar % L
        assert not verify(public, message, small + s.to_bytes(32, "little"))
        if small == encode((0, 1)):
            assert reference(ed25519.decompress(public), (0, 1), s, challenge(small, public, message))


def test_refuses_non_canonical_keys_and_r(verify, signed) -> None:
    public, message, signature = signed
    found = 0
    for low in range(19):
        for sign in (0, 1):
            high = (P + low | sign << 255).to_bytes(32, "little")
            assert not verify(high, message, signature)
            assert not verify(public, message, high + signature[32:])
            # The points behind some of these encodings have large order: only the canonical rule refuses them.
            found += ed25519.decompress((low | sign << 255).to_bytes(32, "little")) is not None
    assert found
    low = next(n for n in range(2, 19) if ed25519.decompress(n.to_bytes(32, "little")))
    point = ed25519.decompress(low.to_bytes(32, "little"))
    high = (P + low).to_bytes(32, "little")
    # A signature that holds under the point, had the encoding been reduced: R = [S]B - [h]A.
    for s in range(1, 4):
        r = encode(curve.base_point())
        h = challenge(r, high, message)
        if reference(point, curve.base_point(), s, h):
            assert not verify(high, message, r + s.to_bytes(32, "little"))


def test_accepts_mixed_order_exactly_when_the_cofactorless_equation_holds() -> None:
    scalar = 0x1234567890ABCDEF << 180 | 5
    base = curve.base_point()
    honest, nonce = curve.times(scalar, base), curve.times(77, base)
    verdicts = set()
    for index, t in enumerate(torsion()):
        key = curve.add(honest, t)
        public = encode(key)
        for u in (torsion()[0], torsion()[(3 * index + 1) % 8]):
            r_point = curve.add(nonce, u)
            r = encode(r_point)
            for n in range(8):
                message = bytes([n])
                h = challenge(r, public, message)
                s = (77 + h * scalar) % L
                signature = r + s.to_bytes(32, "little")
                expected = reference(key, r_point, s, h)
                if n == 0:  # eight times the equation holds: a cofactored verifier accepts all of these
                    assert reference(curve.times(8, key), curve.times(8, r_point), 8 * s % L, h)
                assert openssl(public, message, signature) is expected
                assert ed25519.verify(public, message, signature) is expected
                verdicts.add((index > 0, expected))
    assert verdicts == {(False, True), (False, False), (True, True), (True, False)}


def test_the_multiplier_is_odd_for_every_challenge() -> None:
    for h in [
        0,
        1,
        2,
        3,
        4,
        6,
        8,
        L - 1,
        L // 2,
        8,
        1 << 127,
        1 << 128,
        1 << 129,
        (1 << 128) - 1,
        L >> 1,
        L // 3 & -2,
    ] + [int.from_bytes(hashlib.sha512(bytes([n])).digest(), "little") % L for n in range(200)]:
        u, w, t, v = ed25519.euclid(8 * L, h, 128)
        if v & 1:
            u = t
        else:
            v = w
        assert v & 1
        assert (u - v * h) % (8 * L) == 0
        assert 0 <= u < 1 << 255
        assert 0 < abs(v) < L  # so v is coprime to 8 L


HOSTILE = (
    "None, b'', bytes(64)",
    "b'', b'', b''",
    "bytes(31), b'', bytes(64)",
    "bytes(33), b'', bytes(64)",
    "bytes(32), b'', bytes(63)",
    "bytes(32), b'', bytes(65)",
    "'x' * 32, b'', bytes(64)",
    "bytes(32), 'text', bytes(64)",
    "bytes(32), 5, bytes(64)",
    "bytes(32), None, bytes(64)",
    "bytes(32), b'', 64",
    "bytes(32), b'', 's' * 64",
    "32, b'', bytes(64)",
    "[0] * 32, b'', bytes(64)",
    "b'\\xff' * 32, b'', b'\\xff' * 64",
    "b'\\xff' * 32, b'', bytes(64)",
)


@pytest.mark.parametrize("arguments", HOSTILE)
def test_wrong_types_and_lengths_are_false_not_an_exception(arguments: str) -> None:
    assert eval(f"ed25519.verify({arguments})") is False


def test_wrong_types_and_lengths_are_false_on_micropython() -> None:
    calls = "".join(f"print(ed25519.verify({arguments}))\n" for arguments in HOSTILE)
    assert micropython.run("from sekisho_boot import ed25519\n" + calls).split() == ["False"] * len(HOSTILE)


def test_a_text_that_was_signed_as_bytes_is_still_refused_on_micropython(signed) -> None:
    public, message, signature = signed
    program = f"from sekisho_boot import ed25519\nfor m in ({message!r}, {message.decode()!r}): "
    program += f"print(ed25519.verify({public!r}, m, {signature!r}))"
    assert micropython.run(program).split() == ["True", "False"]


def test_takes_any_bytes_like(signed) -> None:
    public, message, signature = signed
    assert ed25519.verify(memoryview(public), bytearray(message), memoryview(b"x" + signature)[1:])


@settings(max_examples=120, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300), st.integers(0, 511))
def test_agrees_with_cryptography(seed: bytes, message: bytes, bit: int) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = key.public_key().public_bytes_raw(), key.sign(message)
    assert signing.public_key(seed) == public
    assert signing.sign(seed, message) == signing.sign(seed, message, public) == signature
    assert ed25519.verify(public, message, signature)
    changed = bytearray(signature)
    changed[bit // 8] ^= 1 << bit % 8
    assert not ed25519.verify(public, message, changed)
    assert not ed25519.verify(public, message + b"x", signature)


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64), st.binary(max_size=40))
def test_agrees_with_cryptography_on_noise(public: bytes, signature: bytes, message: bytes) -> None:
    signature = signature[:63] + bytes([signature[63] & 0x0F])
    assert not ed25519.verify(public, message, signature)
    if openssl(public, message, signature):  # it takes points of small order
        assert ed25519.decompress(public) is None or ed25519.decompress(signature[:32]) is None


@pytest.mark.parametrize(("arguments", "name"), [((b"x",), "KEY_LENGTH"), ((None,), "TYPE"), ((5,), "TYPE")])
def test_bad_seeds_are_refused_by_name(arguments: tuple[object, ...], name: str) -> None:
    with pytest.raises(CryptoError) as error:
        signing.public_key(*arguments)
    assert error.value.name == name
    with pytest.raises(CryptoError) as error:
        signing.sign(*arguments, b"")
    assert error.value.name == name


def test_signing_refuses_bad_messages_and_public_keys_by_name() -> None:
    for arguments, name in (((bytes(32), "text"), "TYPE"), ((bytes(32), b"", b"short"), "KEY_LENGTH")):
        with pytest.raises(CryptoError) as error:
            signing.sign(*arguments)
        assert error.value.name == name


def test_the_base_table_is_what_the_tool_computes(repo: Path) -> None:
    assert (repo / "boot/sekisho_boot/ed25519_table.py").read_text() == curve.module()


# -- bounds ----------------------------------------------------------------------------------------


class Interval:
    """All integers from lo to hi; an operation gives an interval that holds every possible result."""

    seen: dict[str, int] = {}  # noqa: RUF012

    def __init__(self, lo: int, hi: int) -> None:
        self.lo, self.hi = lo, hi

    @staticmethod
    def of(value: Interval | int) -> Interval:
        return value if isinstance(value, Interval) else Interval(value, value)

    @property
    def bits(self) -> int:
        return max(abs(self.lo), abs(self.hi)).bit_length()

    def note(self, what: str) -> Interval:
        Interval.seen[what] = max(Interval.seen.get(what, 0), self.bits)
        return self

    def __add__(self, other: Interval | int) -> Interval:
        other = Interval.of(other)
        return Interval(self.lo + other.lo, self.hi + other.hi).note("sum")

    __radd__ = __add__

    def __sub__(self, other: Interval | int) -> Interval:
        other = Interval.of(other)
        return Interval(self.lo - other.hi, self.hi - other.lo).note("sum")

    def __rsub__(self, other: int) -> Interval:
        return Interval.of(other) - self

    def __mul__(self, other: Interval | int) -> Interval:
        other = Interval.of(other)
        if other.bits > 5:
            self.note("factor")
            other.note("factor")
        corners = [a * b for a in (self.lo, self.hi) for b in (other.lo, other.hi)]
        return Interval(min(corners), max(corners)).note("product")

    __rmul__ = __mul__

    def __rshift__(self, count: int) -> Interval:
        return Interval(self.lo >> count, self.hi >> count)

    def __and__(self, mask: int) -> Interval:
        assert mask & (mask + 1) == 0
        return self if self.lo >= 0 and self.hi <= mask else Interval(0, mask)

    def __mod__(self, modulus: int) -> Interval:
        self.note("dividend")
        return Interval(0, modulus - 1)

    @classmethod
    def from_bytes(cls, data: bytes, order: str) -> Interval:
        assert order == "little"
        return cls(0, (1 << 8 * len(data)) - 1)


LIMITS = {"sum": 373, "factor": 312, "product": 624, "dividend": 373}
"""Bits; docs/crypto.md derives them."""


def test_no_intermediate_value_can_exceed_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interval arithmetic through `joint` itself: every doubling and addition, every kind of table entry and sign."""
    monkeypatch.setattr(ed25519, "int", Interval, raising=False)
    Interval.seen = {}
    entry = (Interval(-P, P), Interval(0, 2 * P), Interval(0, 20 << 255), Interval(0, 2 * P))
    affine = (*entry[:3], 0)
    tables = (b"\xff" * 3072, [affine, entry] * 4)
    codes = [table << 4 | index << 1 | sign for table in (0, 1) for index in (0, 1) for sign in (0, 1)]
    for first in codes:
        for second in codes:
            one, two = 1 << 7 | first, (1 << 7 | first) << 7 | second
            x, y, z = ed25519.joint([1, two, 1, 1, one, two, one], tables)
            assert all((v.lo, v.hi) == (0, P - 1) for v in (x, y, z))
    assert Interval.seen.keys() == LIMITS.keys()
    assert all(Interval.seen[what] <= LIMITS[what] for what in LIMITS), Interval.seen


class Watched(int):
    """An integer that remembers the largest it has met."""

    most = 0
    operations: list[str] = []  # noqa: RUF012

    def __repr__(self) -> str:
        return int.__repr__(self)


def _watch(name: str) -> None:
    plain = getattr(int, name)

    def operation(self: int, other: int) -> object:
        result = plain(self, other)
        if result is NotImplemented or isinstance(result, tuple):
            return result if result is NotImplemented else tuple(Watched(part) for part in result)
        Watched.most = max(Watched.most, abs(result).bit_length())
        if abs(result).bit_length() > 1000:
            raise ZeroDivisionError
        Watched.operations.append(name.replace("__r", "__") if name not in ("__rshift__",) else name)
        return Watched(result)

    setattr(Watched, name, operation)


for _name in ("add", "sub", "mul", "mod", "and", "or", "rshift", "lshift", "divmod"):
    _watch(f"__{_name}__")
    _watch(f"__r{_name}__")


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> type[Watched]:
    monkeypatch.setattr(ed25519, "int", Watched, raising=False)
    for name in ("P", "L", "_M", "_D", "_D2", "_SQRT_M1"):
        monkeypatch.setattr(ed25519, name, Watched(getattr(ed25519, name)))
    ed25519._recent.clear()
    Watched.most = 0
    Watched.operations = []
    return Watched


def test_random_and_extreme_inputs_stay_below_the_bound(watched: type[Watched]) -> None:
    for n in range(12):
        key = Ed25519PrivateKey.from_private_bytes(os.urandom(32) if n else bytes(32))
        public, message = key.public_key().public_bytes_raw(), os.urandom(n)
        assert ed25519.verify(public, message, key.sign(message))
    # Hostile: encodings with the most and the fewest one bits that pass as points, and the largest S.
    extreme = [*range(2, 20), *range(P - 20, P)]
    good = [e for y in extreme for s in (0, 1) if ed25519.decompress(e := (y | s << 255).to_bytes(32, "little"))]
    assert len(good) > 10
    for e in good:
        for s in (0, 1, L - 1, 1 << 252):
            assert not ed25519.verify(e, b"", e + s.to_bytes(32, "little"))
    assert 500 < watched.most <= LIMITS["product"]


def test_signing_runs_the_same_operations_whatever_the_key(watched: type[Watched]) -> None:
    traces = set()
    for n in range(6):
        k = Watched(int.from_bytes(hashlib.sha512(bytes([n])).digest(), "little") % L | n & 1)
        signing._times_base.__globals__["joint"](_todo_of(k), (ed25519.BASE,) * 4)
        traces.add(tuple(watched.operations))
        watched.operations = []
    assert len(traces) == 1
    assert sum(op == "__mul__" for op in next(iter(traces))) > 1000


def _todo_of(k: int) -> list[int]:
    """The schedule `signing` hands to `joint` for k."""
    caught: list[list[int]] = []

    def catch(todo: list[int], tables: object) -> tuple[int, int, int]:
        caught.append(todo)
        return 0, 1, 1

    original = signing._times_base.__globals__["joint"]
    signing._times_base.__globals__["joint"] = catch
    try:
        signing._times_base(int(k), 1)
    finally:
        signing._times_base.__globals__["joint"] = original
    assert all(n >= 1 << 28 for n in caught[0][::4])  # four digits at every fourth position ...
    assert all(n == 1 for i, n in enumerate(caught[0]) if i % 4)  # ... and none elsewhere
    return caught[0]


# -- memory ----------------------------------------------------------------------------------------

PEAK = 16 * 1024
"""Bytes of heap for one verification; objects on the 64-bit Unix port have twice the chip's size."""


@pytest.mark.parametrize("code", ["native", "portable"])
def test_a_verification_needs_at_most_16_kib_of_heap(code: str) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    public, message = key.public_key().public_bytes_raw(), bytes(512)
    signature = key.sign(message)
    # Everything the verification leaves behind or holds counts: the heap is filled up to 16 KiB before it starts.
    program = f"""
import gc
from sekisho_boot import ed25519, sha512
assert ed25519.joint is not ed25519.portable_joint and sha512.compress is not sha512.portable
if {code == "portable"}:
    ed25519.joint, ed25519.power, sha512.compress = ed25519.portable_joint, ed25519.portable_power, sha512.portable
public, message, signature = {public!r}, bytes(512), {signature!r}
gc.collect()
filler = []
while gc.mem_free() > {PEAK} + 64:
    size = gc.mem_free() - {PEAK} - 64
    try:
        filler.append(bytearray(min(size, 1024)))
    except MemoryError:
        break
gc.collect()
free = gc.mem_free()
gc.threshold(-1)
print(free <= {PEAK} + 64, ed25519.verify(public, message, signature))
"""
    assert micropython.run(program, heap="160k") == "True True\n"


def test_the_answer_that_machine_code_must_give_is_that_of_the_portable_code() -> None:
    assert ed25519._answer(ed25519.portable_joint) == ed25519._RIGHT
