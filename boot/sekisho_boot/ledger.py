"""The ledger: what the engine remembers, in a log of 64-byte records kept twice (docs/flash-format.md).

Rules that keep it: a record is programmed once and read back; every record goes to bank 0 and then to bank 1, so the
newest one is acted upon only when both hold it; a bad record is skipped, never a reason to stop reading; a bank
counts only from its HEADER to an END, the proof that erase and snapshot completed; counters are the maximum over
everything that is still readable. Nothing is erased where a record of an unknown format version is found.
"""

from binascii import crc32
from struct import pack, unpack_from

from micropython import const

from .flash import SECTOR, put
from .reasons import FLASH, LEDGER_VERSION, Refused

VERSION = const(1)
RECORD = const(64)
_SLOTS = const(64)  # records in a bank of one sector
_PIECE = const(1024)  # bytes read at a time: asking the flash driver costs a chip more than the bytes do
_RESERVE = const(4)  # compact before a bank has fewer free records than this
_LAYOUT = "<BBBBIQQ32sI"  # version, type, a, b, n, x, y, digest, z; then u32 CRC
_BLANK = b"\xff" * RECORD
NO_DIGEST = b"\x00" * 32

# Record types. a, b, x, y, digest, z mean what docs/flash-format.md says.
HEADER = const(1)
END = const(2)
COUNTERS = const(3)
PAIR = const(4)
KEYSET = const(5)
FETCH = const(6)
PROGRESS = const(7)
STAGED = const(8)
ENTER = const(9)
TRIAL = const(10)
ATTEMPT = const(11)
RUN = const(12)
CONFIRMING = const(13)
CONFIRMED = const(14)
FAILED = const(15)
RETRY = const(16)
ROLLBACK = const(17)
ABANDONED = const(18)
LOCK = const(19)
PROBE = const(20)
NONCE = const(21)
DEGRADED = const(22)

# Phases of the one update that can be in progress.
IDLE = const(0)
FETCHING = const(1)
READY = const(2)  # staged
TRYING = const(3)  # on trial
SEALING = const(4)  # being confirmed

NO_APP = const(255)
MAX_RETRIES = const(4)  # manifests whose tries are remembered


class State:
    """What the records add up to. Pure: `apply` takes one record, `snapshot` gives records that rebuild the state."""

    def __init__(self) -> None:
        self.counters = [0, 0]  # highest confirmed sequence number of fw and app; survives HEADER
        self.reset()

    def reset(self) -> None:
        self.chosen = -1  # fw slot that should run; -1 before the first record
        self.degraded = 0  # reason code, 0 = as expected
        self.locked = False
        self.probe = 0  # bootloader: 0 not asked, 1 asked, 2 knows rollback, 3 does not
        self.keyset = (0, 0, NO_DIGEST)  # version, issued-at, SHA-256 of the document; version 0: the frozen one
        self.pairs: list = [None, None]  # per fw slot: (app slot, fw sequence, app sequence, pair digest)
        self.retries = []  # (manifest digest, tries), newest first
        self.abandoned = (NO_DIGEST, 0)  # image digest that was rolled back, its sequence number
        self.nonce = 0  # of the rollback permit that may be used next; 0 = none drawn
        self.last = (0, NO_DIGEST, 0)  # last result: reason (0 = confirmed), manifest digest, sequence
        self._idle()

    def _idle(self) -> None:
        self.phase = IDLE
        self.mask = 0  # components of the update: bit 0 fw, bit 1 app
        self.slots = 0  # fw slot | app slot << 4
        self.sequence = 0
        self.manifest = NO_DIGEST
        self.permit = False  # the trial is an ordered rollback
        self.progress = [0, 0]
        self.attempts = self.runs = self.faults = 0

    def _begin(self, phase: int, a: int, b: int, x: int, digest: bytes) -> None:
        if self.manifest != digest:
            self._idle()
        self.phase, self.mask, self.slots, self.sequence, self.manifest = phase, a, b, x, digest

    def tries(self, digest: bytes) -> int:
        """How often this manifest was begun without being confirmed."""
        for known, tries in self.retries:
            if known == digest:
                return tries
        return 0

    def _retry(self, digest: bytes, tries: int) -> None:
        rest = [entry for entry in self.retries if entry[0] != digest]
        self.retries = ([(digest, tries)] if tries else []) + rest[: MAX_RETRIES - 1]

    def _count(self, fw: int, app: int) -> None:
        self.counters = [max(self.counters[0], fw), max(self.counters[1], app)]

    def apply(self, kind: int, a: int, b: int, x: int, y: int, digest: bytes, z: int) -> None:
        """Applies one record. Unknown types change nothing."""
        if kind == HEADER:
            self.reset()
        elif kind == COUNTERS:
            self._count(x, y)
            self.chosen = a if a < 2 else -1
        elif kind == PAIR:
            self.pairs[a & 1] = (b, x, y, digest)
        elif kind == KEYSET:
            if x >= self.keyset[0]:
                self.keyset = (x, y, digest)
        elif kind == FETCH:
            self._begin(FETCHING, a, b, x, digest)
            self._retry(digest, z)
        elif kind == PROGRESS:
            self.progress[a & 1] = x
        elif kind == STAGED:
            self._begin(READY, a, b, x, digest)
        elif kind == ENTER:
            self.faults = b
        elif kind == TRIAL:
            self._begin(TRYING, a, b, x, digest)
            self.attempts = self.runs = 0
        elif kind == ROLLBACK:  # spends the nonce and begins the trial in one record
            self._idle()
            self._begin(TRYING, a, b, x, digest)
            self.permit, self.nonce = True, 0
        elif kind == ATTEMPT:
            self.attempts, self.runs = b, 0
        elif kind == RUN:
            self.runs = b
        elif kind == CONFIRMING:
            self.phase = SEALING
        elif kind == CONFIRMED:
            self._count(x, y)
            self.chosen, self.degraded = a, b
            self._retry(digest, 0)
            self.last = (0, digest, self.sequence)
            self._idle()
        elif kind == FAILED:
            self.last = (b, digest, x)
            self._idle()
        elif kind == RETRY:
            self._retry(digest, z)
        elif kind == ABANDONED:
            self.abandoned = (digest, x)
        elif kind == LOCK:
            self.locked, self.nonce = a == 1, 0  # an order to unlock is used once
        elif kind == PROBE:
            self.probe = a
        elif kind == NONCE:
            self.nonce = x
        elif kind == DEGRADED:
            self.degraded = b

    def snapshot(self) -> list:
        """The records (type, a, b, x, y, digest, z) that rebuild this state after a HEADER."""
        none, last = NO_DIGEST, self.last
        records = [(COUNTERS, self.chosen & 255, 0, self.counters[0], self.counters[1], none, 0)]
        if self.keyset[0]:
            records.append((KEYSET, 0, 0, self.keyset[0], self.keyset[1], self.keyset[2], 0))
        for slot, pair in enumerate(self.pairs):
            if pair:
                records.append((PAIR, slot, pair[0], pair[1], pair[2], pair[3], 0))
        for digest, tries in reversed(self.retries):
            records.append((RETRY, 0, 0, 0, 0, digest, tries))
        if self.abandoned[1]:
            records.append((ABANDONED, 0, 0, self.abandoned[1], 0, self.abandoned[0], 0))
        if last[2]:
            records.append((FAILED, 0, last[0], last[2], 0, last[1], 0))
        if self.phase == FETCHING:
            tries = self.tries(self.manifest)
            records.append((FETCH, self.mask, self.slots, self.sequence, 0, self.manifest, tries))
            for component, offset in enumerate(self.progress):
                if offset:
                    records.append((PROGRESS, component, 0, offset, 0, none, 0))
        elif self.phase:
            kind = STAGED if self.phase == READY else ROLLBACK if self.permit else TRIAL
            records.append((kind, self.mask, self.slots, self.sequence, 0, self.manifest, 0))
            if self.phase == SEALING:
                records.append((CONFIRMING, 0, 0, 0, 0, none, 0))
        for kind, a, b, x in (  # after ROLLBACK, which spends a nonce
            (ENTER, 0, self.faults, 0),
            (ATTEMPT, 0, self.attempts, 0),
            (RUN, 0, self.runs, 0),
            (PROBE, self.probe, 0, 0),
            (LOCK, 1 if self.locked else 0, 0, 0),
            (NONCE, 0, 0, self.nonce),
            (DEGRADED, 0, self.degraded, 0),
        ):
            if a or b or x:
                records.append((kind, a, b, x, 0, none, 0))
        return records


class Ledger:
    """The log in two banks, sectors 0 and 1 of *part*; ``state`` is what it says."""

    def __init__(self, part) -> None:
        self.part = part
        self.state = State()
        self.foreign = False  # a record of an unknown format version: read-only
        self.lost = False  # no bank is complete
        self._poorer = 1  # then: the bank with fewer valid records
        self._next = 1
        self._room = [_SLOTS, _SLOTS]  # first free record of each bank; _SLOTS: the bank must be rewritten
        self._load()

    def _read(self, bank: int) -> list:
        """The valid records of a bank as (n, bytes); notes counters, foreign records and the free room."""
        piece, records, room = bytearray(_PIECE), [], 0
        view, blank = memoryview(piece), _BLANK * (_PIECE // RECORD)
        for off in range(0, SECTOR, _PIECE):
            self.part.read(bank * SECTOR + off, piece)
            if piece == blank:
                continue
            for at in range(0, _PIECE, RECORD):
                raw = view[at : at + RECORD]
                if raw == _BLANK:
                    continue
                room = (off + at) // RECORD + 1  # whatever is not blank is not written again, valid or not
                if unpack_from("<I", raw, RECORD - 4)[0] != crc32(raw[: RECORD - 4]):
                    continue
                version, kind, _, _, n = unpack_from("<BBBBI", raw)
                if version != VERSION:
                    self.foreign = True
                    continue
                if kind in (COUNTERS, CONFIRMED):
                    self.state._count(*unpack_from("<QQ", raw, 8))
                self._next = max(self._next, n + 1)
                records.append((n, bytes(raw)))
        self._room[bank] = room
        return records

    def _level(self) -> bool:
        """True if both banks hold the same bytes."""
        one, other = bytearray(_PIECE), bytearray(_PIECE)
        for off in range(0, SECTOR, _PIECE):
            self.part.read(off, one)
            self.part.read(SECTOR + off, other)
            if one != other:
                return False
        return True

    def _load(self) -> None:
        banks = [self._read(0)]
        if self._level():  # the usual case: half the work at every boot
            banks.append(banks[0])
            self._room[1] = self._room[0]
        else:
            banks.append(self._read(1))
        marks = [_complete(records) for records in banks]
        base = 0 if marks[0] >= marks[1] else 1
        self.lost = marks[base] == (0, 0)
        if self.lost:
            self._poorer = 0 if len(banks[0]) < len(banks[1]) else 1
            return
        known, other = {}, banks[1 - base]
        if other and other[0][0] != marks[base][0]:
            other = []  # another generation, or a snapshot that was not completed
        for records in (other, banks[base]):
            for n, raw in records:
                known[n] = raw
        log = [known[n] for n in sorted(known)]
        for raw in log:
            _, kind, a, b, _, x, y, digest, z = unpack_from(_LAYOUT, raw)
            self.state.apply(kind, a, b, x, y, digest, z)
        if not self.foreign and banks[0] is not banks[1]:
            self._mirror(base, banks, marks, log)

    def _mirror(self, base: int, banks: list, marks: list, log: list) -> None:
        """Brings the other bank level with the base before anything is acted upon."""
        if marks[0][0] != marks[1][0]:
            # The END that makes the base count may be the very record that a cut left half programmed: write another
            # before the other bank, which still holds the last state, is erased.
            if self._room[base] >= _SLOTS:
                return self._compact(1 - base)
            log.append(self._put(base, END, 0, 0, 0, 0, NO_DIGEST, 0))
            self._copy(1 - base, log)
            return None
        for bank in (0, 1):
            held = [n for n, _ in banks[bank]]
            for raw in log:
                if unpack_from("<I", raw, 4)[0] not in held:  # the newest, or one that went bad
                    if self._room[bank] >= _SLOTS:
                        return self._compact()
                    self._program(bank, raw)
        return None

    def _program(self, bank: int, raw: bytes) -> None:
        """Programs a record at the first free place that takes it."""
        while self._room[bank] < _SLOTS:
            slot = self._room[bank]
            self._room[bank] = slot + 1
            try:
                put(self.part, bank * SECTOR + slot * RECORD, raw)
                return
            except Refused:
                continue  # a bad place is skipped
        raise Refused(FLASH)

    def _put(self, bank: int, kind: int, a: int, b: int, x: int, y: int, digest: bytes, z: int) -> bytes:
        if self._next >> 32:
            raise Refused(FLASH)  # a hostile number with a good CRC: the next one would wrap to the oldest
        body = pack(_LAYOUT, VERSION, kind, a, b, self._next, x, y, digest, z)
        self._next += 1
        raw = body + pack("<I", crc32(body))
        self._program(bank, raw)
        return raw

    def _copy(self, bank: int, log: list) -> None:
        self.part.erase(bank)
        self._room[bank] = 0
        for raw in log:
            self._program(bank, raw)

    def _compact(self, bank: int = 1) -> None:
        """A fresh snapshot in *bank*, then the same records in the other. A cut leaves one of them complete."""
        self.part.erase(bank)
        self._room[bank] = 0
        log = [self._put(bank, HEADER, 0, 0, 0, 0, NO_DIGEST, 0)]
        for record in self.state.snapshot():
            log.append(self._put(bank, *record))
        log.append(self._put(bank, END, 0, 0, 0, 0, NO_DIGEST, 0))
        self._copy(1 - bank, log)

    def format(self) -> None:
        """Starts a new ledger from the present state; only for a ledger that is lost."""
        if self.foreign:
            raise Refused(LEDGER_VERSION)
        self._compact(self._poorer)  # so that counters which only the other bank still proves outlast a cut
        self.lost = False

    def append(
        self, kind: int, a: int = 0, b: int = 0, x: int = 0, y: int = 0, digest: bytes = NO_DIGEST, z: int = 0
    ) -> None:
        """Writes one record to both banks and applies it. Raises ``Refused(LEDGER_VERSION)`` or ``Refused(FLASH)``."""
        if self.foreign or self.lost:
            raise Refused(LEDGER_VERSION)
        if max(self._room) > _SLOTS - _RESERVE:
            self._compact()
        self._program(1, self._put(0, kind, a, b, x, y, digest, z))
        self.state.apply(kind, a, b, x, y, digest, z)


def _complete(records: list) -> tuple:
    """(n of the HEADER, n of the first END after it) of a bank, (0, 0) where one of them is missing."""
    if not records or records[0][1][1] != HEADER:
        return (0, 0)
    for n, raw in records:
        if raw[1] == END:
            return (records[0][0], n)
    return (0, 0)
