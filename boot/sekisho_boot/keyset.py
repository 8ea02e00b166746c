"""The key set: who may sign what (design section 3, docs/decisions/0004-key-set-format.md).

A key set document is a COSE_Sign (tag 98) with attached payload, a CBOR map with the members below. It is replaced
as TUF replaces its root role (TUF specification 5.3): one consecutive version after the other, each signed by the
threshold of the roots it replaces *and* of its own. Order of checks in `accept`:

  1. shape and limits, and what a document must agree on with itself (`KeySet`)
  2. same version and same content: nothing to do
  3. version: the next one, or the same one (whose content differs)
  4. signatures: threshold of the old roots, threshold of the new roots
  5. same version: other content. Only now, so that this code is evidence of two documents signed by the roots
  6. environment, time, revoked keys stay revoked, no key changes its role

Expiry is no reason to refuse a document: a device that slept for years walks the chain link by link. Whoever
installs asks `expired(now)`.
"""

import hashlib

from micropython import const

from . import cose, reasons
from .cbor import MAP, Reader
from .reasons import KEYSET, Refused

MAX_KEYSET = const(8160)  # bytes of a document: two sectors less the record header
MAX_ROOTS = const(8)
MAX_KEYS = const(16)  # release keys; operator keys
MAX_RIGHTS = const(8)  # components or rights of one key
MAX_CLASSES = const(16)  # product classes of one key
MAX_REVOKED = const(64)  # revoked keys; revoked manifests
MAX_COMPONENTS = const(8)  # members of `limits`
MAX_NAME = const(16)  # characters of a component name
MAX_NUMBER = (1 << 63) - 1  # sequence numbers, times

DEVELOPMENT = const(1)  # environments (UPC03)
RELEASE = const(2)

SIGNATURES = const(1)  # the parts of the algorithm policy (STS09)
DIGESTS = const(2)
CONTENT = const(3)

_ED25519 = const(-19)  # COSE numbers of what this engine can do
_SHA256 = const(-16)


def _member(reader: Reader, key: int) -> Reader:
    """Takes the key of the next member, which must be *key*."""
    if reader.uint() != key:
        raise Refused(KEYSET)
    return reader


def _uint(reader: Reader, low: int = 0) -> int:
    value = reader.uint()
    if not low <= value <= MAX_NUMBER:
        raise Refused(KEYSET)
    return value


def _fixed(reader: Reader, size: int) -> bytes:
    value = reader.bstr()
    if len(value) != size:
        raise Refused(KEYSET)
    return bytes(value)


def _name(reader: Reader) -> str:
    value = reader.tstr()
    if not 0 < len(value) <= MAX_NAME:
        raise Refused(KEYSET)
    return value


def _strings(reader: Reader, size: int, limit: int) -> tuple:
    return tuple([_fixed(reader, size) for _ in range(reader.array(limit))])


def _grants(reader: Reader, named: bool) -> list:
    """Keys with rights, as (public key, rights, classes); classes None means every class."""
    grants = []
    for _ in range(reader.array(MAX_KEYS)):
        key = rights = classes = None
        for label in reader.int_keys(3):
            if label == 1:
                key = _fixed(reader, 32)
            elif label == 2:
                count = reader.array(MAX_RIGHTS)
                rights = tuple([_name(reader) if named else _uint(reader) for _ in range(count)])
            elif label == 3:
                classes = _strings(reader, 16, MAX_CLASSES)
            else:
                raise Refused(KEYSET)
        if not key or not rights:
            raise Refused(KEYSET)
        grants.append((key, rights, classes))
    return grants


def _limits(reader: Reader) -> dict:
    limits = {}
    last = b""
    for _ in range(reader.map(MAX_COMPONENTS)):
        start = reader.pos
        name = _name(reader)
        encoded = bytes(reader.buf[start : reader.pos])
        if encoded <= last or reader.array(2) != 2:
            raise Refused(KEYSET)
        last = encoded
        floor = _uint(reader)
        limits[name] = floor, _uint(reader, floor)  # floor <= ceiling
    return limits


def _policy(reader: Reader) -> dict:
    policy = {}
    for part in reader.int_keys(3):
        if not SIGNATURES <= part <= CONTENT:
            raise Refused(KEYSET)
        policy[part] = tuple([reader.int() for _ in range(reader.array(MAX_RIGHTS))])
    return policy


class KeySet:
    """One key set document that is well-formed and agrees with itself; *who signed it is not checked here*.

    Times are seconds since 1970. ``release`` and ``operators`` are lists of (public key, rights, classes).
    """

    def __init__(self, document: bytes) -> None:
        if len(document) > MAX_KEYSET:
            raise Refused(reasons.LIMIT)
        self.document = document if isinstance(document, bytes) else bytes(document)
        self.payload, _ = cose.verify_sign(self.document, ())
        self.digest = hashlib.sha256(self.payload).digest()  # of what is said, whoever signed it
        reader = Reader(self.payload, wrong=KEYSET)
        count = reader.map(13)
        if count < 11:
            raise Refused(KEYSET)
        self.version = _uint(_member(reader, 1), 1)
        self.issued_at = _uint(_member(reader, 2))
        self.expires = _uint(_member(reader, 3))
        self.environment = _uint(_member(reader, 4), DEVELOPMENT)
        if _member(reader, 5).array(2) != 2:
            raise Refused(KEYSET)
        self.threshold = _uint(reader, 1)
        self.roots = _strings(reader, 32, MAX_ROOTS)
        self.release = _grants(_member(reader, 6), True)
        self.operators = _grants(_member(reader, 7), False)
        self.revoked_keys = _strings(_member(reader, 8), 8, MAX_REVOKED)
        self.revoked_manifests = _strings(_member(reader, 9), 32, MAX_REVOKED)
        self.limits = _limits(_member(reader, 10))
        self.hw_floor = _uint(_member(reader, 11))
        self.policy = {}
        self.settings = None  # a map in its encoding, for whoever applies the secure defaults
        last = 11
        for _ in range(count - 11):
            member = reader.uint()
            if member == 12 and last == 11:
                self.policy = _policy(reader)
            elif member == 13 and last < 13 and reader.peek() == MAP:
                start = reader.pos
                reader.skip()
                self.settings = self.payload[start : reader.pos]
            else:
                raise Refused(KEYSET)
            last = member
        reader.done()
        self._agree()

    def _agree(self) -> None:
        """What the members must agree on with each other and with this engine."""
        if self.environment > RELEASE or self.issued_at >= self.expires or self.threshold > len(self.roots):
            raise Refused(KEYSET)
        # A policy this engine cannot follow would end all updates; a firmware that can must come first.
        if not (self.allows(SIGNATURES, _ED25519) and self.allows(DIGESTS, _SHA256)):
            raise Refused(reasons.ALGORITHM)
        self.roles()

    def roles(self) -> dict:
        """Key id -> role, 0 for revoked. A key has one role, and none once it is revoked; else Refused."""
        roles = dict.fromkeys(self.revoked_keys, 0)
        for role, keys in ((1, self.roots), (2, self.release_keys()), (3, [key for key, _, _ in self.operators])):
            for key in keys:
                key_id = cose.key_id(key)
                if key_id in roles:
                    raise Refused(reasons.KEYSET_KEY_REUSE)
                roles[key_id] = role
        return roles

    def expired(self, now: int) -> bool:
        """Whether nothing may be installed under this key set any more at *now* (s since 1970)."""
        return now >= self.expires

    def release_keys(self) -> list:
        """The public keys that may sign manifests; their order gives the index that `may` takes."""
        return [key for key, _, _ in self.release]

    def may(self, index: int, component: str, product: bytes) -> bool:
        """Whether release key *index* may sign *component* for the product class *product* (16 bytes)."""
        _, components, classes = self.release[index]
        return component in components and (classes is None or bytes(product) in classes)

    def limit(self, component: str) -> tuple:
        """(floor, ceiling) of the sequence numbers of *component*."""
        return self.limits.get(component, (0, MAX_NUMBER))

    def allows(self, part: int, algorithm: int) -> bool:
        """Whether the policy lets *algorithm* (COSE number) be used for *part*; without a policy it does."""
        return part not in self.policy or algorithm in self.policy[part]


def _check_signed(new: KeySet, *sets: KeySet) -> None:
    """Refuses *new* unless it is signed by the threshold of the roots of each of *sets*."""
    keys = list({key for one in sets for key in one.roots})
    _, signed = cose.verify_sign(new.document, keys)
    signers = [keys[i] for i in signed]
    for one in sets:
        if sum([key in signers for key in one.roots]) < one.threshold:
            raise Refused(reasons.KEYSET_THRESHOLD)


parse = KeySet  # reads a document without asking who signed it: for one that was accepted before


def genesis(document: bytes) -> KeySet:
    """The first key set of a device, trusted because it is part of the build; it must be signed by its own roots."""
    first = KeySet(document)
    _check_signed(first, first)
    return first


def follows(old: KeySet, new: KeySet) -> None:
    """Refuses *new* where it does not follow from *old*; says nothing about signatures and version."""
    if new.environment != old.environment:
        raise Refused(reasons.KEYSET_ENVIRONMENT)
    if new.issued_at < old.issued_at:  # the time floor of the device never goes back
        raise Refused(KEYSET)
    roles = new.roles()
    for key_id, role in old.roles().items():  # keeps its role, leaves or is revoked; a revoked one stays revoked
        if roles.get(key_id, role or None) not in (role, 0):
            raise Refused(reasons.KEYSET_KEY_REUSE)


def accept(old: KeySet, document: bytes) -> KeySet:
    """The key set that replaces *old*; *old* itself when *document* says the same; else Refused (UPC05, UPC06)."""
    new = KeySet(document)
    if new.version == old.version and bytes(new.payload) == bytes(old.payload):
        return old
    if not old.version <= new.version <= old.version + 1:
        raise Refused(reasons.KEYSET_VERSION)
    _check_signed(new, old, new)
    if new.version == old.version:
        raise Refused(reasons.KEYSET_CONTENT)
    follows(old, new)
    return new
