# Runs on CPython and on MicroPython: devices that must not restart together ask each other over UDP.
import asyncio
import socket
import time

from sekisho import peer
from sekisho_boot.reasons import Refused, name

SECRET = "a secret of the group"


def identity(number: int) -> bytes:
    return bytes((number,)) * 16


class Network:
    """The way between two devices; keeps what passes, loses what it is told to."""

    def __init__(self) -> None:
        self.passed = []  # (sender, datagram, place)
        self.lose = {}  # kind -> how many more of them get lost

    def tap(self, group) -> None:
        sock = group._sock
        network = self

        class Tap:
            def sendto(self, data, place):
                network.passed.append((group, data, place))
                left = network.lose.get(data[4], 0)
                network.lose[data[4]] = left - 1
                if left <= 0:
                    sock.sendto(data, place)

            def recvfrom(self, size):
                return sock.recvfrom(size)

            def close(self):
                sock.close()

        group._sock = Tap()

    def last(self, group, kind: int):
        return [(data, place) for one, data, place in self.passed if one is group and data[4] == kind][-1]


def group(me: int, ports, key=SECRET, busy=lambda: False, **more):
    others = [n for n in range(len(ports)) if n != me]
    peers = ["%s@127.0.0.1:%d" % ("%02x" % (n + 1) * 16, ports[n]) for n in others]
    options = {"peers": peers, "peer_port": ports[me], "peer_key": key}
    options.update(more)
    made = peer.Group(options, identity(me + 1), busy)
    made._owes = False
    return made


async def outcome(asked) -> str:
    try:
        await asked.lease()
        return "yes"
    except Refused as refused:
        return name(refused.code) + " " + refused.detail


class Pair:
    """Two devices that answer each other until the block ends."""

    def __init__(self, ports, first=None, second=None) -> None:
        self.network = Network()
        self.a, self.b = group(0, ports, **(first or {})), group(1, ports, **(second or {}))

    async def __aenter__(self):
        self.network.tap(self.a)
        self.network.tap(self.b)
        self.tasks = [asyncio.create_task(one.serve()) for one in (self.a, self.b)]
        return self

    async def __aexit__(self, *_):
        for task in self.tasks:
            task.cancel()
        await asyncio.sleep(0)
        self.a.close()
        self.b.close()


async def peaceful(ports) -> None:
    async with Pair(ports) as pair:
        print("peer stays =", await outcome(pair.a))
        print("the other waits meanwhile =", await outcome(pair.b))
        pair.a.stay()
        print("promise stands =", await outcome(pair.b))
        await pair.a._tell(identity(2), peer.BACK)
        print("and may when it is back =", await outcome(pair.b))
    async with Pair(ports) as pair:
        await outcome(pair.a)
        pair.b._since = time.ticks_add(pair.b._since, -(peer.LEASE + 1) * 1000)
        print("a promise ends by itself =", pair.b.promised())
    async with Pair(ports) as pair:
        found = await asyncio.gather(outcome(pair.a), outcome(pair.b))
        print("both at once =", " | ".join(found))
    async with Pair(ports) as pair:
        await outcome(pair.b)
        pair.b.stay()
        print("the earlier one keeps its promise =", await outcome(pair.a))
    async with Pair(ports, second={"busy": lambda: True}) as pair:
        print("peer is on trial =", await outcome(pair.a))
    async with Pair(ports) as pair:
        pair.b.leaving = True
        print("peer restarts =", await outcome(pair.a))


async def losses(ports) -> None:
    for kind in (peer.ASK, peer.DARE, peer.WANT, peer.YES):
        async with Pair(ports) as pair:
            pair.network.lose[kind] = 2
            print("two datagrams lost, kind", kind, "=", await outcome(pair.a))
        async with Pair(ports) as pair:
            pair.network.lose[kind] = 9
            print("all lost, kind", kind, "=", await outcome(pair.a))
    alone = group(0, ports)
    task = asyncio.create_task(alone.serve())
    print("silent peer =", await outcome(alone))
    task.cancel()
    alone.close()
    for label, second in (
        ("another key", {"key": "another secret, just as long"}),
        ("not a peer of the other", {"peers": ["09" * 16 + "@127.0.0.1:%d" % ports[0]]}),
    ):
        async with Pair(ports, second=second) as pair:
            print(label, "=", await outcome(pair.a))


async def send_again(pair, kind: int, sender) -> None:
    data, place = pair.network.last(sender, kind)
    loose = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    loose.sendto(data, place)
    loose.close()
    await asyncio.sleep(0.3)


async def attacks(ports) -> None:
    async with Pair(ports) as pair:
        await outcome(pair.a)
        pair.a.stay()
        await pair.a._tell(identity(2), peer.BACK)
        await send_again(pair, peer.WANT, pair.a)
        print("a recorded question binds nobody =", pair.b.promised())
        print("nor keeps the other =", await outcome(pair.b))
    async with Pair(ports) as pair:
        await outcome(pair.a)
        pair.a.stay()
        await pair.a._tell(identity(2), peer.BACK)
        await outcome(pair.a)
        await send_again(pair, peer.BACK, pair.a)
        print("a recorded return ends no promise =", pair.b.promised() == identity(1))
    async with Pair(ports) as pair:  # B's yes is kept for the next time
        await outcome(pair.a)
        pair.a.stay()
        await pair.a._tell(identity(2), peer.BACK)
        pair.b.leaving = True
        asked = asyncio.create_task(outcome(pair.a))
        await asyncio.sleep(0.02)
        await send_again(pair, peer.YES, pair.b)
        print("a recorded yes is no answer =", await asked)
    async with Pair(ports) as pair:  # a question held back on the way, for later
        pair.network.lose[peer.WANT] = 9
        await outcome(pair.a)
        pair.b._drew = time.ticks_add(pair.b._drew, -(peer.FRESH + 1) * 1000)
        pair.b._draw()
        await send_again(pair, peer.WANT, pair.a)
        print("a question held back is too late =", pair.b.promised())


async def relayed(ports) -> None:
    """Three devices; what A says to B goes to C, whose yes must not count as B's."""
    a, c = group(0, ports), group(2, ports)
    task = [asyncio.create_task(one.serve()) for one in (a, c)]
    a.peers = {identity(2): ("127.0.0.1", ports[2])}
    print("another peer's answer is none =", await outcome(a))
    for one in task:
        one.cancel()
    await asyncio.sleep(0)
    a.close()
    c.close()


async def promises(ports) -> None:
    """One promise at a time, given and taken back by whom it concerns."""
    b, place = group(1, ports), ("127.0.0.1", 9)
    b._send = lambda *_: None
    b._take((peer.WANT, bytes(8), b._draw(), identity(9), identity(1)), place)
    print("a question to another device =", b.promised())
    b._take((peer.WANT, bytes(8), b._draw(), identity(2), identity(1)), place)
    print("a second one asks =", b.promised() == identity(1), b._asked(identity(3)) == peer.NO)
    print("the first one again =", b._asked(identity(1)) == peer.YES)
    b._take((peer.BACK, bytes(8), b._draw(), identity(2), identity(3)), place)
    print("another one is back =", b.promised() == identity(1))
    b._take((peer.BACK, bytes(8), b._draw(), identity(2), identity(1)), place)
    print("it is back itself =", b.promised())
    b._heard[bytes(8)] = (identity(1), (peer.YES,))
    b._take((peer.YES, bytes(8), bytes(8), identity(2), identity(3)), place)
    print("a yes of another one =", len(b._heard[bytes(8)]))

    async def agrees(name, kind):
        b._asked(identity(1))
        return peer.YES

    b._tell = agrees
    print("promised while it asked =", await outcome(b), b.leaving)
    b.close()
    late = time.ticks_add(time.ticks_ms(), 5_000_000)
    print("ticks that came round =", peer._older(late, peer.LEASE), peer._older(time.ticks_ms(), peer.LEASE))


def malformed(ports) -> None:
    a = group(0, ports)
    good = peer.pack(a.key, peer.YES, bytes(8), bytes(8), identity(1), identity(2))
    print("genuine =", peer.unpack(a.key, good)[0])
    bad = (b"", b"SKP1", good[:-1], good + b"x", bytes(200), b"x" + good[1:])
    bad += tuple(good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :] for at in range(len(good)))
    print("taken of", len(bad), "others =", sum(peer.unpack(a.key, data) is not None for data in bad))
    a.close()
    for key, peers in (("short", "ab" * 16 + "@h"), ("", "ab" * 16 + "@h"), (SECRET, "h:1"), (SECRET, "ab@h")):
        try:
            peer.Group({"peers": [peers], "peer_port": ports[0], "peer_key": key}, identity(1), bool)
            print("taken")
        except Refused as refused:
            print("setting", repr(key), peers, "=", name(refused.code))


async def everything(ports) -> None:
    peer.PATIENCE = 300
    await peaceful(ports[:2])
    await losses(ports[:2])
    await attacks(ports[:2])
    await relayed(ports)
    await promises(ports)
    malformed(ports)


def main(*ports: int) -> None:
    asyncio.run(everything(ports))
