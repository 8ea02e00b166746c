"""The group lock: devices that stand in for each other never restart together (UPE09).

Before a device stages an update it asks every peer of its settings over UDP, and goes on only when all of them said
yes. A yes is a promise: for LEASE seconds, or until the other is back, the peer does not restart either. A peer on
trial, with a promise given to another, or about to restart says no; of two that ask each other, the one whose id comes
first gets its yes. Silence is a no: the peer may be restarting. No server takes part.

Datagram: ``SKP1``, kind, 8 bytes drawn by the one who asks, 8 bytes drawn by the one who answers, ids of receiver and
sender (16 bytes each), 16 bytes of HMAC-SHA256 under a key of the group. What changes anything (WANT, BACK) carries the
bytes that the other drew a moment ago (DARE) and will not draw again, so that nothing recorded is of any use later, and
an answer counts only from the peer that was asked. Who can drop datagrams can delay an update, and no more.
"""

import asyncio
import socket
import time
from binascii import unhexlify
from os import urandom

from micropython import const
from sekisho_boot.reasons import BUSY, SETTING

from . import http
from .kdf import hkdf_sha256, hmac_sha256

ASK = const(1)  # what have you drawn?
DARE = const(2)  # this
WANT = const(3)  # promise to stay
BACK = const(4)  # you need not stay any more
YES = const(5)  # answers to the two
NO = const(6)

PORT = const(7517)
LEASE = const(900)  # s that a promise lasts; longer than drain, restart and trial
FRESH = const(10)  # s for which drawn bytes are good
PATIENCE = 2000  # ms for an answer
TRIES = const(3)  # datagrams get lost
MIN_KEY = const(16)  # bytes of the secret in the settings; it must not be guessed by who listens
_SIZE = const(69)
_MAGIC = b"SKP1"
_NONE = bytes(8)
_NAP = 0.05  # s between two looks at the socket, and so the most datagrams that are looked at


def group_key(options: dict) -> bytes:
    """32 bytes from the setting `peer_key`, else from the first group key that the factory issued. Failed(SETTING)."""
    secret = options["peer_key"].encode()
    if not secret:
        try:
            from .issued import load

            secret = load().get("groups", b"")[:16]
        except ImportError:
            pass
    if len(secret) < MIN_KEY:
        raise http.Failed(SETTING, "the group lock needs a peer_key of at least %d bytes" % MIN_KEY)
    return hkdf_sha256(secret, 32, b"", b"sekisho-peers-1")


def parse(peer: str) -> tuple:
    """(id, host, port) of ``<32 hex digits>@<host>[:<port>]``. Failed(SETTING)."""
    try:
        digits, _, place = peer.partition("@")
        host, _, port = place.partition(":")
        name = unhexlify(digits.replace("-", ""))
        if len(name) == 16 and host:
            return name, host, int(port or PORT)
    except ValueError:
        pass
    raise http.Failed(SETTING, "a peer is <device id>@<host>[:<port>], not %r" % peer)


def pack(key: bytes, kind: int, mine: bytes, yours: bytes, to: bytes, me: bytes) -> bytes:
    """A datagram; *mine* are the bytes of the one who asks, *yours* of the one who answers."""
    head = _MAGIC + bytes((kind,)) + mine + yours + to + me
    return head + hmac_sha256(key, head)[:16]


def unpack(key: bytes, data):
    """(kind, bytes of the one who asks, of the one who answers, to, from) of a datagram of the group, else None."""
    if len(data) != _SIZE or data[:4] != _MAGIC:
        return None
    code, wrong = hmac_sha256(key, data[:53]), 0
    for at in range(16):
        wrong |= code[at] ^ data[53 + at]
    return None if wrong else (data[4], bytes(data[5:13]), bytes(data[13:21]), bytes(data[21:37]), bytes(data[37:53]))


def _older(ticks, seconds: int) -> bool:
    """Whether *ticks* lie more than so many seconds back. The chip's come round after 12 days, so that the difference
    is negative where nobody asked for more than 6."""
    return not 0 <= time.ticks_diff(time.ticks_ms(), ticks) <= seconds * 1000


class Group:
    """This device (*me*: its id, 16 bytes) among its peers. busy(): must not be left alone now.

    options: `peers`, `peer_port`, `peer_key`. Raises Failed(SETTING), OSError where there is no network yet.
    """

    def __init__(self, options: dict, me: bytes, busy) -> None:
        self.key = group_key(options)
        self.peers = {name: (host, port) for name, host, port in [parse(peer) for peer in options["peers"]]}
        self.me = me
        self.leaving = False  # we have the promises of all, or restart without
        self._busy = busy
        self._wants = False
        self._owes = True  # peers that may still stay because of us are to be told that we are back
        self._promised = b""  # the peer that has our promise
        self._since = self._drew = time.ticks_ms()
        self._drawn = urandom(8)
        self._heard: dict = {}  # bytes of ours that were sent -> (kind, bytes of the other) that came back
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        self._sock.bind(socket.getaddrinfo("0.0.0.0", options["peer_port"])[0][-1])  # noqa: S104 (peers are elsewhere)

    def close(self) -> None:
        self._sock.close()

    def promised(self) -> bytes:
        """The peer that may be restarting now, or nothing."""
        if self._promised and _older(self._since, LEASE):
            self._promised = b""
        return self._promised

    # -- answering -----------------------------------------------------------------------------------
    async def serve(self) -> None:
        """Answers peers, for ever."""
        while True:
            try:
                data, place = self._sock.recvfrom(_SIZE + 1)
                self._take(unpack(self.key, data), place)
            except OSError:
                pass  # nothing there
            await asyncio.sleep(_NAP)

    def _take(self, found, place) -> None:
        if not found:
            return
        kind, mine, yours, to, name = found
        if to != self.me or name not in self.peers:
            return
        if kind == ASK:
            self._send(DARE, mine, self._draw(), name, place)
        elif kind == WANT or kind == BACK:
            if yours != self._draw():
                return  # recorded, or drawn anew since: who means it asks again
            self._draw(True)
            answer = YES
            if kind == WANT:
                answer = self._asked(name)
            elif name == self._promised:
                self._promised = b""
            self._send(answer, mine, yours, name, place)
        elif mine in self._heard:
            waiting, wanted = self._heard[mine][:2]
            if name == waiting and kind in wanted:
                self._heard[mine] = (name, wanted, kind, yours)

    def _draw(self, anew: bool = False) -> bytes:
        if anew or _older(self._drew, FRESH):
            self._drawn, self._drew = urandom(8), time.ticks_ms()
        return self._drawn

    def _asked(self, name: bytes) -> int:
        other = self.promised()
        if self.leaving or self._busy() or (other and other != name) or (self._wants and name > self.me):
            return NO
        self._promised, self._since = name, time.ticks_ms()
        return YES

    def _send(self, kind: int, mine: bytes, yours: bytes, to: bytes, place) -> None:
        try:
            self._sock.sendto(pack(self.key, kind, mine, yours, to, self.me), place)
        except OSError:
            pass  # as good as lost on the way

    # -- asking --------------------------------------------------------------------------------------
    async def _tell(self, name: bytes, kind: int) -> int:
        """Tells a peer WANT or BACK; returns its answer, 0 for silence."""
        host, port = self.peers[name]
        try:
            place = socket.getaddrinfo(host, port)[0][-1]
        except OSError:
            return 0
        mine = urandom(8)
        try:
            for _ in range(TRIES):
                dare = await self._exchange(ASK, mine, _NONE, name, place, (DARE,))
                if dare:
                    answer = await self._exchange(kind, mine, dare[3], name, place, (YES, NO))
                    if answer:
                        return answer[2]
            return 0
        finally:
            self._heard.pop(mine, None)

    async def _exchange(self, kind: int, mine: bytes, yours: bytes, name: bytes, place, wanted: tuple):
        self._heard[mine] = (name, wanted)
        self._send(kind, mine, yours, name, place)
        start = time.ticks_ms()
        while time.ticks_diff(time.ticks_ms(), start) < PATIENCE:
            found = self._heard[mine]
            if len(found) == 4:
                return found
            await asyncio.sleep(_NAP)
        return None

    async def lease(self) -> None:
        """From here on this device may restart. Raises Failed(BUSY) unless every peer has promised to stay."""
        if self.leaving:
            return
        detail = self._first()
        self._wants = not detail
        try:
            for name in self.peers if not detail else ():
                answer = await self._tell(name, WANT)
                if answer != YES:
                    detail = "peer %s %s" % (self.peers[name][0], "says not now" if answer else "does not answer")
                    break
                self._owes = True
            detail = detail or self._first()
        finally:
            self._wants = False
        if detail:
            raise http.Failed(BUSY, detail)
        self.leaving = True

    def _first(self) -> str:
        other = self.promised()
        return "peer %s restarts first" % self.peers[other][0] if other else ""

    async def returning(self) -> None:
        """Tells peers that they need not stay any more, whenever they may think so; for ever."""
        while True:
            if self._owes and not (self._wants or self.leaving or self._busy()):
                self._owes = False
                for name in self.peers:
                    await self._tell(name, BACK)
            await asyncio.sleep(1)

    def stay(self) -> None:
        """Nothing came of the restart."""
        self.leaving = False


async def join(agent, busy) -> None:
    """Takes part for ever, with the settings of *agent*, whose ``group`` is there from then on."""
    said = ""
    while not agent.group:
        try:
            agent.group = Group(agent.options, agent.engine.port.device, busy)
        except Exception as error:  # no network yet, or a setting that makes no sense
            if said != repr(error):
                said = repr(error)
                print("sekisho: no group lock (%s)" % getattr(error, "detail", said))
            await asyncio.sleep(5)
    await asyncio.gather(agent.group.serve(), agent.group.returning())
