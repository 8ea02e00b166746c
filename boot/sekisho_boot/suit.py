"""The SUIT manifest (draft-ietf-suit-manifest-37) as far as an update of `fw` and `app` needs it; docs/suit-profile.md.

`check` takes an envelope and gives a verdict, in this order:

  1. size and shape of the envelope; nothing of the manifest is read yet
  2. the signed digest, and a signature over it by a release key
  3. the manifest's own digest, its revocation, the severable text if it is there
  4. manifest members, components, and every command in the order of the update procedure:
     shared sequence, payload-fetch, install, validate. Conditions are judged where they stand
  5. what each component must have and must not have
  6. rights of the key, counters, floors and ceilings, ties between the components

There are no branches in this subset and a parameter has one value, so running the shared sequence again before
each of the others, as section 6.1 of the draft has it, could change nothing.
"""

from collections import namedtuple
from hashlib import sha256

from micropython import const

from . import reasons
from .cbor import ARRAY, SIMPLE, TRUE, UINT, Reader
from .cose import key_id, verify_sign1
from .reasons import COMMAND, COMPONENT, ENVELOPE, LIMIT, MANIFEST, PARAMETER, SEVERABLE, Refused

FW = const(0)
APP = const(1)
NAMES = ("fw", "app")
# Component identifiers; beyond the names above, what the agent fetches to make them, which is none of the engine's.
_IDENTIFIERS = ((b"fw",), (b"app",), (b"fw", b"packed"), (b"app", b"packed"))

MAX_ENVELOPE = const(3992)  # a sector less the header and prefix of its slot record (docs/flash-format.md)
MAX_BLOCKS = const(4)  # authentication blocks
MAX_COMMANDS = const(64)  # commands in one sequence
MAX_URI = const(255)
MAX_IMAGE = const(0x1000000)  # 16 MiB, the largest flash
MAX_NUMBER = (1 << 63) - 1  # sequence numbers and times

Plan = namedtuple("Plan", ("sequence", "digest", "targets", "key", "use_before"))
Target = namedtuple("Target", ("component", "digest", "size", "uri"))

# Sequences by their manifest member (section 8.4); the shared one lies in common and gets a number of ours.
_SHARED = const(0)
_VALIDATE = const(7)
_PAYLOAD_FETCH = const(16)
_INSTALL = const(20)

# Commands (section 8.4.8). A condition, and fetch, has the number of the parameter that it uses.
_VENDOR = const(1)
_CLASS = const(2)
_IMAGE = const(3)  # and the size
_USE_BEFORE = const(4)
_SET_INDEX = const(12)
_OVERRIDE = const(20)
_FETCH = const(21)
_DEVICE = const(24)
_VERSION = const(28)
_CONDITIONS = (_VENDOR, _CLASS, _IMAGE, _USE_BEFORE, _DEVICE, _VERSION)
_SIZE = const(14)  # a parameter only

_SHA256 = const(-16)
# What the failure of a signature says, from the least to the most telling.
_TELLING = (reasons.ALGORITHM, reasons.KEY_UNKNOWN, reasons.SIGNATURE, reasons.KEY_REVOKED)


class _Part:
    """A component as the commands see it."""

    def __init__(self, component: int) -> None:
        self.component = component
        self.values = {}  # parameters
        self.done = set()  # conditions met, and fetch, by number
        self.validated = False


def _fixed(reader: Reader, size: int) -> bytes:
    value = reader.bstr()
    if len(value) != size:
        raise Refused(reader.wrong)
    return bytes(value)


def _digest(reader: Reader) -> bytes:
    """Takes a SUIT_Digest, which must be SHA-256."""
    if reader.array() != 2 or reader.int() != _SHA256:
        raise Refused(reader.wrong)
    return _fixed(reader, 32)


def _number(reader: Reader) -> int:
    value = reader.uint()
    if value > MAX_NUMBER:
        raise Refused(LIMIT)
    return value


def _hashed(reader: Reader) -> tuple:
    """Takes a wrapped item; returns (Reader over it, its SHA-256). SUIT digests cover the head of the string, too."""
    start = reader.pos
    inner = reader.wrapped()
    return inner, sha256(reader.buf[start : reader.pos]).digest()


def _authenticate(wrapper: Reader, keyset) -> tuple:
    """Verifies the authentication wrapper; returns (manifest digest, indices of the release keys that signed)."""
    count = wrapper.array(1 + MAX_BLOCKS)
    if count == 0:
        raise Refused(ENVELOPE)
    signed = wrapper.wrapped()
    payload = signed.buf[signed.pos : signed.end]
    digest = _digest(signed)
    signed.done()
    signers = []
    telling = 0 if count > 1 else 1  # without any block: KEY_UNKNOWN
    for _ in range(count - 1):
        block = wrapper.bstr()
        try:
            signers.append(verify_sign1(block, payload, keyset.release_keys(), keyset.revoked_keys))
        except Refused as error:  # a block of another algorithm or signer is skipped, a malformed one is not
            if error.code not in _TELLING:
                raise
            telling = max(telling, _TELLING.index(error.code))
    wrapper.done()
    if not signers:
        raise Refused(_TELLING[telling])
    return digest, signers


def _open(envelope, keyset) -> tuple:
    """Checks everything outside the manifest; returns (Reader over it, its digest, signers, digest of the text)."""
    if len(envelope) > MAX_ENVELOPE:
        raise Refused(LIMIT)
    reader = Reader(envelope, wrong=ENVELOPE)
    if reader.tag() != 107:
        raise Refused(ENVELOPE)
    count = reader.map()
    if not 2 <= count <= 3 or reader.head() != (UINT, 2):
        raise Refused(ENVELOPE)
    wrapper = reader.wrapped()
    if reader.head() != (UINT, 3):
        raise Refused(ENVELOPE)
    manifest, actual = _hashed(reader)
    text = None
    if count == 3:  # The agent strips integrated payloads; a severed member is refused with the manifest.
        if reader.head() != (UINT, 23):
            raise Refused(ENVELOPE)
        text = _hashed(reader)[1]
    reader.done()
    digest, signers = _authenticate(wrapper, keyset)
    if actual != digest:
        raise Refused(reasons.MANIFEST_DIGEST)
    if digest in keyset.revoked_manifests:
        raise Refused(reasons.MANIFEST_REVOKED)
    manifest.wrong = MANIFEST
    return manifest, digest, signers, text


def _members(reader: Reader, text) -> tuple:
    """Reads the manifest; returns (sequence number, common, {member: sequence}). *text*: digest of the one enclosed."""
    found = {}
    for key in reader.int_keys():
        value = None
        if key == 1:  # manifest-version
            if reader.uint() != 1:
                raise Refused(reasons.MANIFEST_VERSION)
        elif key == 2:  # manifest-sequence-number
            value = _number(reader)
        elif key == 4:  # reference-uri
            reader.tstr()
        elif key == 23:  # text
            value = _digest(reader)
        elif key == _INSTALL and reader.peek() == ARRAY:  # severed: only the agent needs to know
            _digest(reader)
            continue
        elif key in (3, _VALIDATE, _PAYLOAD_FETCH, _INSTALL):  # 3: common
            if reader.peek() == ARRAY:
                raise Refused(SEVERABLE)  # a digest: needed here, but severed
            value = reader.wrapped()
        else:
            raise Refused(MANIFEST)
        found[key] = value
    reader.done()
    for key in (1, 2, 3, _VALIDATE):
        if key not in found:
            raise Refused(MANIFEST)
    if text is not None and text != found.get(23):
        raise Refused(SEVERABLE)
    return found[2], found[3], found


def _common(reader: Reader) -> tuple:
    """Reads SUIT_Common; returns ([_Part of each component], Reader over the shared sequence)."""
    parts = []
    shared = None
    for key in reader.int_keys():
        if key == 2:  # components
            for _ in range(reader.array()):
                identifier = tuple([bytes(reader.bstr()) for _ in range(reader.array(2))])
                if identifier not in _IDENTIFIERS:
                    raise Refused(COMPONENT)
                component = _IDENTIFIERS.index(identifier)
                seen = [part.component for part in parts]
                if component in seen or (component > APP and component - 2 not in seen):
                    raise Refused(COMPONENT)
                parts.append(_Part(component))
        elif key == 4:  # shared-sequence
            shared = reader.wrapped()
        else:
            raise Refused(MANIFEST)
    reader.done()
    if shared is None:
        raise Refused(MANIFEST)
    return parts, shared


def _version(reader: Reader) -> tuple:
    """Takes a version match; only a sequence number is compared here, so the version has one number."""
    match = reader.wrapped()
    if match.array() != 2:
        raise Refused(PARAMETER)
    operation = match.uint()
    if not 1 <= operation <= 5 or match.array() != 1:
        raise Refused(PARAMETER)
    value = operation, _number(match)
    match.done()
    return value


def _matches(version: tuple, actual: int) -> bool:
    operation, wanted = version
    return (actual > wanted, actual >= wanted, actual == wanted, actual <= wanted, actual < wanted)[operation - 1]


def _parameter(reader: Reader, key: int):
    """Takes the value of one parameter."""
    if key in (_VENDOR, _CLASS, _DEVICE):
        return _fixed(reader, 16)
    if key == _USE_BEFORE:
        return _number(reader)
    if key == _VERSION:
        return _version(reader)
    if key == _IMAGE:
        image = reader.wrapped()
        value = _digest(image)
        image.done()
    elif key == _SIZE:
        value = reader.uint()
        if not 0 < value <= MAX_IMAGE:
            raise Refused(reasons.IMAGE_SIZE)
    elif key == _FETCH:
        value = reader.tstr()
        if not 0 < len(value) <= MAX_URI:
            raise Refused(LIMIT)
    else:
        raise Refused(PARAMETER)
    return value


def _override(reader: Reader, parts: list) -> None:
    """Takes the argument of override-parameters and sets them on *parts*."""
    reader.wrong = PARAMETER
    key = None
    for key in reader.int_keys():
        value = _parameter(reader, key)
        for part in parts:
            if key == _VERSION:  # A range is two comparisons; the first one must have been made.
                if key in part.values and key not in part.done:
                    raise Refused(PARAMETER)
                part.done.discard(key)
            elif part.values.get(key, value) != value:
                raise Refused(PARAMETER)
            part.values[key] = value
    if key is None:
        raise Refused(PARAMETER)  # the draft's CDDL wants at least one
    reader.wrong = COMMAND


def _select(reader: Reader, parts: list) -> list:
    """Takes the argument of set-component-index: an index, or true for every component."""
    major, value = reader.head()
    if (major, value) == (SIMPLE, TRUE):
        return [part for part in parts if part.component <= APP]
    if major != UINT:
        raise Refused(COMMAND)
    if value >= len(parts) or parts[value].component > APP:
        raise Refused(COMPONENT)
    return [parts[value]]


def _judge(command: int, part: _Part, identity, state, now: int) -> None:
    """Judges one condition for one component. What an image is, the engine checks with the image at hand."""
    value = part.values.get(command)
    if value is None or (command == _IMAGE and _SIZE not in part.values):
        raise Refused(PARAMETER)
    if command == _VENDOR and value != identity.vendor:
        raise Refused(reasons.VENDOR)
    if command == _CLASS and value not in identity.classes:
        raise Refused(reasons.CLASS)
    if command == _DEVICE and value != identity.device:
        raise Refused(reasons.DEVICE)
    if command == _USE_BEFORE and state is not None and now >= value:
        raise Refused(reasons.EXPIRED_MANIFEST)
    if command == _VERSION and state is not None:
        running = state.running[part.component]
        # Where no application is running there is nothing that a new firmware must fit.
        if not _matches(value, running) and (running or part.component != APP):
            raise Refused(reasons.VERSION_TIE)
    part.done.add(command)


def _run(reader: Reader, section: int, parts: list, identity, state, now: int) -> None:
    """Runs one command sequence without touching anything."""
    reader.wrong = COMMAND
    count = reader.array(2 * MAX_COMMANDS)
    if count == 0 or count & 1:
        raise Refused(COMMAND)
    current = parts
    for place in range(count >> 1):
        command = reader.int()
        if command == _SET_INDEX:
            current = _select(reader, parts)
            continue
        if place == 0 and len(parts) > 1:
            raise Refused(COMPONENT)  # a sequence must first say which component it means
        if command == _OVERRIDE:
            _override(reader, current)
            continue
        known = section in (_PAYLOAD_FETCH, _INSTALL) if command == _FETCH else command in _CONDITIONS
        if not known or reader.uint() > 15:  # reporting policy: four flags, without effect here
            raise Refused(COMMAND)
        for part in current:
            _judge(command, part, identity, state, now)
            if command == _IMAGE and section == _VALIDATE:
                part.validated = True
    reader.done()


def _is_target(part: _Part) -> bool:
    """Whether the manifest brings an image for *part*, having checked that it is complete (or a mere tie)."""
    values = part.values
    for key in values:
        if key != _SIZE and key not in part.done:
            raise Refused(PARAMETER)  # set, but nothing ever asked for it
    if _IMAGE in values:
        if _VENDOR not in values or _CLASS not in values:
            raise Refused(PARAMETER)
        if not part.validated or _VERSION in values:
            raise Refused(COMMAND)
        return True
    if _SIZE in values or _FETCH in values:
        raise Refused(PARAMETER)
    if _VERSION not in values:
        raise Refused(COMPONENT)  # it has no part in this manifest
    return False


def check(envelope, keyset, identity, state, now: int) -> Plan:
    """The verdict on *envelope* (bytes-like): what it installs, or Refused.

    *keyset*: a KeySet. *identity*: .vendor (16 bytes), .classes (tuple of 16 bytes), .device (16 bytes or None).
    *state*: .counters and .running, each (fw, app): highest proven sequence numbers, and those of the running pair,
    0 for none; or None for an envelope that is installed already: then neither counters, floors, ties nor use-before
    are judged. *now*: seconds since 1970. An expired key set is the caller's to refuse.
    """
    manifest, digest, signers, text = _open(envelope, keyset)
    sequence, common, sections = _members(manifest, text)
    parts, sections[_SHARED] = _common(common)
    for section in (_SHARED, _PAYLOAD_FETCH, _INSTALL, _VALIDATE):
        if section in sections:
            _run(sections[section], section, parts, identity, state, now)

    targets = [part for part in parts if part.component <= APP and _is_target(part)]
    if not targets:
        raise Refused(COMPONENT)
    for part in targets:
        signers = [key for key in signers if keyset.may(key, NAMES[part.component], part.values[_CLASS])]
    if not signers:
        raise Refused(reasons.KEY_RIGHTS)
    if state is not None:
        for part in targets:
            floor, ceiling = keyset.limit(NAMES[part.component])
            if sequence < max(1, state.counters[part.component]):  # 0 stands for "none" in the ledger
                raise Refused(reasons.SEQUENCE)
            if sequence < floor:
                raise Refused(reasons.FLOOR)
            if sequence > ceiling:
                raise Refused(reasons.CEILING)
        named = [part.component for part in parts]
        if FW not in named or (APP not in named and state.running[APP]):
            raise Refused(reasons.VERSION_TIE)
    times = [part.values[_USE_BEFORE] for part in parts if _USE_BEFORE in part.values]
    images = [Target(p.component, p.values[_IMAGE], p.values[_SIZE], p.values.get(_FETCH)) for p in targets]
    signer = key_id(keyset.release_keys()[signers[0]])
    return Plan(sequence, digest, images, signer, min(times) if times else None)
