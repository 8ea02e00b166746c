"""The device record: what must survive a wipe of the `data` file system and be known before anything is mounted.

Orders that were obeyed, decisions on releases, the state of a wipe. Two copies in sectors 12 and 13 of the `sekisho`
partition (docs/flash-format.md), both written at each change, the older one first. It holds no secrets.
"""

from micropython import const
from sekisho_boot import records
from sekisho_boot.flash import is_blank
from sekisho_boot.reasons import LIMIT, Refused

from .cbor import decode, encode

SECTORS = (12, 13)
KIND = const(4)
MAX_RECORD = const(4080)  # bytes

# Members.
SERIAL = const(1)
COUNTERS = const(2)  # [[operator key id, highest counter obeyed], ...]
PENDING = const(3)  # [order, tries]: begun, not finished
RESULTS = const(4)  # [[first 8 bytes of the order's SHA-256, action, reason code or 0, time], ...] newest first
DECISIONS = const(5)  # [[manifest digest, what, until, rank], ...] newest first
LIFE = const(6)  # absent: in use; else one of the following
OWNER = const(7)  # bytes that a transfer left
PRODUCTION = const(8)  # development mode was left for good
STATEMENT = const(9)  # [order, `wipe` PROMISED or DONE, what the device signed with the key that went]
WANTED = const(10)  # nonce of the report that an order asked for

WIPING = const(1)  # states of LIFE: [state, action]
DECOMMISSIONED = const(2)

MAX_RESULTS = const(4)
MAX_DECISIONS = const(4)


class Record:
    """The members as ``values``. ``lost``: what lies in flash cannot be read, so nothing is known of the past."""

    def __init__(self, part) -> None:
        self._part = part
        copies = [_read(part, sector) for sector in SECTORS]
        serials = [copy[SERIAL] if copy else 0 for copy in copies]
        self._next = 1 if serials[0] > serials[1] else 0  # the older copy
        self.values = copies[1 - self._next] or {}
        # A cut during the very first change leaves the second copy blank.
        self.lost = not self.values and not any(is_blank(part, sector) for sector in SECTORS)
        if self.values and serials[0] != serials[1]:  # a cut came between the copies
            self._write(SECTORS[self._next])

    def get(self, member: int, default=None):
        return self.values.get(member, default)

    def update(self, changes: dict) -> None:
        """Sets members (None removes one), all of them or none. Raises Refused: LIMIT, FLASH."""
        old = self.values
        new = dict(old)
        for member, value in changes.items():
            if value is None:
                new.pop(member, None)
            else:
                new[member] = value
        new[SERIAL] = old.get(SERIAL, 0) + 1
        self.values = new
        try:
            self._write(SECTORS[self._next])
            self._write(SECTORS[1 - self._next])
        except Refused:
            self.values = old
            raise
        self.lost = False

    def _write(self, sector: int) -> None:
        payload = encode(self.values)
        if len(payload) > MAX_RECORD:
            raise Refused(LIMIT)
        records.save(self._part, sector, 1, KIND, self.values[SERIAL] & 0x7FFFFFFF, payload)

    # -- decisions on releases --------------------------------------------------------------------------

    def decision(self, manifest: bytes):
        """(what, until, rank) that was decided on a release, or None."""
        for digest, what, until, rank in self.get(DECISIONS, ()):
            if digest == manifest:
                return what, until, rank
        return None

    def decide(self, manifest: bytes, what: int, until: int, rank: int) -> bool:
        """Keeps a decision; False where somebody of higher rank has decided already (UPD11)."""
        old = self.decision(manifest)
        if old and old[2] > rank:
            return False
        self.update({DECISIONS: self.decided(manifest, what, until, rank)})
        return True

    def decided(self, manifest: bytes, what: int, until: int, rank: int) -> list:
        """The member DECISIONS with this one in it."""
        decisions = [entry for entry in self.get(DECISIONS, ()) if entry[0] != manifest]
        decisions.insert(0, [manifest, what, until, rank])
        return decisions[:MAX_DECISIONS]


def _read(part, sector: int):
    payload = records.load(part, sector, 1, KIND)
    if payload is None:
        return None
    try:
        values = decode(payload)
    except Refused:
        return None
    return values if isinstance(values, dict) and isinstance(values.get(SERIAL), int) else None
