"""The offline door at a serial line: orders, key sets and releases from `sekisho order send --port` and its kin.

Lines of text among whatever else is printed: ``$``, base64 of a frame, line feed. A frame is

    u8 kind | u8 number | u8 length of what follows | at most MAX_DATA bytes | u32 CRC-32 (zlib) over all before it

Every frame of the computer is answered by one of the same number, whose kind has bit 7 set and whose data begin with a
reason code (0: done). Nothing is sent ahead, so a chip's input buffer of 256 bytes is enough. A frame that is damaged
gets no answer and is sent again; one that comes twice is answered twice and done once. Integers are big-endian.

    HELLO                          -> CBOR [version, device id, nonce for the next order, key set]; begins anew
    OPEN u8 document, u32 size     -> ; its bytes follow as DATA, then CLOSE
    CLOSE                          -> what came of it: of an envelope, CBOR [[component, SHA-256, size], ...]
    PAYLOAD u8 component           -> u32 offset; the bytes from there on follow as DATA
    DATA bytes                     ->
    STAGE                          -> ; the device restarts into the update
    NONCE                          -> u64 that an order to this device may carry
    READ u8 what, u32 offset       -> bytes; none at the end. Report and event log only after an order of this line
                                      asked for a report, sealed settings after one that asked for a backup; the last
                                      statement of a wipe to anybody

A refused order is answered with its reason; one that was obeyed and could not be done has 1 in the byte after it.
"""

import asyncio
import gc
import select
from binascii import a2b_base64, b2a_base64, crc32

from micropython import const
from sekisho_boot.keyset import MAX_KEYSET
from sekisho_boot.reasons import ENGINE_FAULT, KEY_RIGHTS, LIMIT, NOTHING, PERMIT, RETRY_LATER, Refused

from . import orders, record
from .cbor import encode
from .envelope import MAX_DOWNLOAD

VERSION = const(1)
MAX_DATA = const(168)
MAX_LINE = const(250)  # bytes without the line feed

HELLO = const(0)
OPEN = const(1)
DATA = const(2)
CLOSE = const(3)
PAYLOAD = const(4)
STAGE = const(5)
NONCE = const(6)
READ = const(7)
ANSWER = const(0x80)

ORDER = const(1)  # documents, and what READ gives
KEYSET = const(2)
ENVELOPE = const(3)
REPORT = const(1)
LOG = const(2)
STATEMENT = const(3)
BACKUP = const(4)
_LIMITS = {ORDER: orders.MAX_FILE, KEYSET: MAX_KEYSET, ENVELOPE: MAX_DOWNLOAD}
_NAP = 0.005  # s between two looks at the line


def frame(kind: int, number: int, data: bytes) -> bytes:
    """One line, as it is sent."""
    head = bytes((kind, number, len(data))) + data
    return b"$" + b2a_base64(head + crc32(head).to_bytes(4, "big"))


def unframe(line):
    """(kind, number, data) of a line without its line feed, or None where it is none or damaged."""
    if line[:1] != b"$":
        return None
    try:
        content = a2b_base64(line[1:])
    except ValueError:
        return None
    size = len(content) - 7
    if size < 0 or size > MAX_DATA or content[2] != size:
        return None
    if crc32(content[:-4]) != int.from_bytes(content[-4:], "big"):
        return None
    return content[0], content[1], content[3:-4]


class Line:
    """door: `door.Door`. source: a stream with `read(1)` that can be polled; target: one with `write`."""

    def __init__(self, door, source, target) -> None:
        self.door = door
        self._source = source
        self._target = target
        self._poll = select.poll()
        self._poll.register(source, select.POLLIN)
        self._last = -1  # number of the last frame
        self._reply = b""  # its answer
        self._kind = 0  # document that is coming
        self._document = bytearray()
        self._filled = 0
        self._component = -1  # payload that is coming
        self._may_read = False  # an order of this line asked for a report
        self._may_have = False  # or for a backup

    async def serve(self) -> None:
        """Answers for as long as the device runs."""
        line = bytearray(MAX_LINE)
        size = 0
        while True:
            while self._poll.poll(0):
                char = self._source.read(1)
                if not char:
                    await asyncio.sleep(1)  # nobody is at the other end
                    continue
                if char == b"\n":
                    try:
                        self._take(bytes(line[:size]))
                    except Exception as error:  # no memory, or the line is gone
                        print("sekisho: serial line: %r" % error)
                    size = 0
                elif size < MAX_LINE:
                    line[size] = char[0]
                    size += 1
                else:
                    line[0] = 0  # too long: whatever it is, it is no frame
            await asyncio.sleep(_NAP)

    def _take(self, line: bytes) -> None:
        found = unframe(line.rstrip(b"\r"))
        if found is None or found[0] & ANSWER:
            return
        kind, number, data = found
        if number != self._last or kind == HELLO:
            self._reply = b""  # its memory may be needed
            code, answer = self._answer(kind, data)
            self._last, self._reply = number, frame(ANSWER | kind, number, bytes((code,)) + answer)
        self._target.write(self._reply)

    def _answer(self, kind: int, data: bytes) -> tuple:
        """(reason code, data) to one frame."""
        try:
            return 0, self._do(kind, data)
        except Refused as refused:
            return refused.code, b""
        except MemoryError:
            gc.collect()
            return RETRY_LATER, b""
        except Exception as error:
            print("sekisho: serial line: %r" % error)
            return ENGINE_FAULT, b""

    def _do(self, kind: int, data: bytes) -> bytes:
        door = self.door
        if kind == HELLO:
            self._document, self._kind, self._component = bytearray(), 0, -1
            engine = door.engine
            state = engine.state.nonce
            return encode([VERSION, engine.port.device, state, engine.status()["keyset"]])
        if kind == OPEN and len(data) == 5:
            return self._open(data[0], int.from_bytes(data[1:], "big"))
        if kind == DATA:
            return self._data(data)
        if kind == CLOSE:
            return self._close()
        if kind == PAYLOAD and len(data) == 1:
            offset = door.offset(data[0])
            self._kind, self._component = 0, data[0]
            return offset.to_bytes(4, "big")
        if kind == STAGE:
            door.stage()
            return b""
        if kind == NONCE:
            return door.engine.nonce().to_bytes(8, "big")
        if kind == READ and len(data) == 5:
            return self._give(data[0], int.from_bytes(data[1:], "big"))
        raise Refused(PERMIT)

    def _open(self, kind: int, size: int) -> bytes:
        if not 0 < size <= _LIMITS.get(kind, 0):
            raise Refused(LIMIT)
        self._document = bytearray()  # the old one goes first
        gc.collect()
        self._document, self._kind, self._filled = bytearray(size), kind, 0
        return b""

    def _data(self, data: bytes) -> bytes:
        if self._kind:
            end = self._filled + len(data)
            if end > len(self._document):
                raise Refused(LIMIT)
            self._document[self._filled : end] = data
            self._filled = end
        elif self._component >= 0:
            self.door.put(self._component, data)
        else:
            raise Refused(NOTHING)
        return b""

    def _close(self) -> bytes:
        kind, document = self._kind, self._document
        if not kind or self._filled != len(document):
            raise Refused(NOTHING)
        self._kind, self._document = 0, bytearray()
        if kind == KEYSET:
            return self.door.keyset(document).to_bytes(4, "big")
        if kind == ENVELOPE:
            return encode([list(one) for one in self.door.envelope(document)])
        code = self.door.order(document)
        action = 0 if code else orders.payload(document)[1]
        self._may_read = self._may_read or action == orders.REPORT
        self._may_have = self._may_have or action == orders.BACKUP
        return bytes((1, code)) if code else b""

    def _give(self, what: int, offset: int) -> bytes:
        duties = self.door.agent.duties
        if duties is None:
            raise Refused(NOTHING)
        if what != STATEMENT and not (self._may_have if what == BACKUP else self._may_read):
            raise Refused(KEY_RIGHTS)
        if what == REPORT:
            if duties.wanted():
                raise Refused(RETRY_LATER)
            return duties.report_document()[offset : offset + MAX_DATA - 1]
        if what == STATEMENT:
            kept = duties.record.get(record.STATEMENT)
            return kept[2][offset : offset + MAX_DATA - 1] if kept else b""
        if what == BACKUP:
            return duties.backup_document()[offset : offset + MAX_DATA - 1]
        if what == LOG:
            return duties.log.export()[offset : offset + MAX_DATA - 1]
        raise Refused(NOTHING)
