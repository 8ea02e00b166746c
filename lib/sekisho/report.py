"""The report engine: one document, signed by the device key, on what runs here and whether that is as it should be.

A COSE_Sign1 whose payload is a CWT claims set in the style of EAT (RFC 9711); everything of ours stands in one private
claim. docs/report.md lists the members. Digests are measured when the report is made, not remembered.
"""

import asyncio
import sys
from hashlib import sha256

from micropython import const
from sekisho_boot import keyset as keysets
from sekisho_boot import records, suit
from sekisho_boot.flash import SECTOR, feed
from sekisho_boot.reasons import Refused, name

from . import record
from .cbor import encode

# Claims: RFC 8392, RFC 9711, and one for private use (below -65536).
IAT = const(6)
NONCE = const(10)
UEID = const(256)
HWMODEL = const(259)
DBGSTAT = const(263)
PROFILE = const(265)
SEKISHO = -70001
PROFILE_NAME = "tag:sekisho,2026:report-1"

# Members of the claim SEKISHO.
MODE = const(1)  # 1 development, 2 production
SLOTS = const(2)  # [[component, slot, runs, sequence, manifest digest, size, digest of the record, digest now], ...]
KEYSET = const(3)  # [version, SHA-256, issued-at, expires]; [] when it is lost
LIMITS = const(4)  # {component: [floor, ceiling]}
COUNTERS = const(5)  # [fw, app]
PHASE = const(6)  # of the update in progress (`ledger`)
LAST = const(7)  # [reason code or 0, manifest digest, sequence] of the last update that ended
RESULTS = const(8)  # of operator orders (`record.RESULTS`)
REFUSED = const(9)  # [first 8 bytes of the digest, reason code] of the last order that was not obeyed
HARDWARE = const(10)  # {1 secure boot, 2 flash encryption, 3 JTAG off, 4 download off: bool}; absent if not known
INTERFACES = const(11)  # names of those that are open
SETTINGS = const(12)  # digest (`values.Settings.digest`)
LOG = const(13)  # [number, hash] of the last entry
CLOCK = const(14)  # [now, 1 if set from outside]
VERDICT = const(15)  # [] is ok, else why it is degraded
VERSIONS = const(16)  # [Sekisho, MicroPython, machine]
PRODUCT = const(17)
ORDER_NONCE = const(18)  # for the next order with a nonce
PENDING = const(19)  # names of settings that are being tried
OWNER = const(20)  # what a transfer left
CHIP = const(21)  # unique id of the chip
SUIT_REPORT = const(22)  # bstr .cbor SUIT_Report on the last update (draft-ietf-suit-report)
POLICY = const(23)  # [enabled, who starts, window]
CLASSES = const(24)  # product classes
ID = const(25)  # logical id that the factory gave; absent where it gave none
EVENTS = const(26)  # entries of the event log since the last report that the server took, at most MAX_EVENTS, as kept

PRIVATE = (PENDING, OWNER, CHIP, POLICY, EVENTS)  # the owner's: only over an authenticated channel, or by hand

MAX_NONCE = const(64)
MAX_EVENTS = const(32)
_BREATH = const(65536)  # bytes hashed before the application runs again

# SUIT_Report reasons (draft-ietf-suit-report) of our codes; every other one is 11, operation failed.
_SUIT_REASONS = {
    1: 1,
    3: 2,
    4: 3,
    5: 4,
    6: 4,
    7: 4,
    8: 7,
    14: 5,
    15: 8,
    16: 6,
    17: 10,
    18: 10,
    19: 10,
    23: 10,
    28: 9,
    29: 10,
}
_INSTALL = const(20)  # manifest section


async def measure(part, size: int) -> bytes:
    """SHA-256 of the first *size* bytes of a part as they are in flash now; lets others run meanwhile."""
    hasher, buf = sha256(), bytearray(SECTOR)
    for start in range(0, size, _BREATH):
        feed(hasher, part, start, min(start + _BREATH, size), buf)
        await asyncio.sleep(0)
    return hasher.digest()


async def slots(engine, measured: bool = True) -> list:
    """The member SLOTS: every slot that has a record; unless *measured*, with the digest that the record has."""
    port, found = engine.port, []
    pair = engine.state.pairs[port.running]
    for component, parts in ((suit.FW, port.fw), (suit.APP, port.app)):
        for slot, part in enumerate(parts):
            kept = records.load_slot(port.part, component, slot)
            if kept is None or kept.size > part.size:
                continue
            runs = slot == port.running if component == suit.FW else bool(pair) and pair[0] == slot
            now = await measure(part, kept.size) if measured else kept.digest
            found.append([component, slot, runs, kept.sequence, kept.manifest, kept.size, kept.digest, now])
    return found


def suit_report(last: tuple) -> bytes:
    """A SUIT_Report on the update that ended last: (reason code or 0, manifest digest, sequence)."""
    code, manifest, _ = last
    result = True
    if code:  # which command failed is not remembered: offset 0 stands for the section as a whole
        result = {5: code, 6: [[], _INSTALL, 0, 0, {}], 7: _SUIT_REASONS.get(code, 11)}
    return encode({3: [], 4: result, 99: ["", [-16, manifest]]})


class Reporter:
    """Makes reports of one device. settings: `values.Settings`; log: `eventlog.Log`; orders: `orders.Orders`."""

    def __init__(self, engine, kept: record.Record, settings, log, orders=None, decision=None) -> None:
        self.engine = engine
        self.record = kept
        self.settings = settings
        self.log = log
        self.orders = orders
        self.decision = decision  # of the engine at this start
        self.open: list = []  # interfaces
        self.told = 0  # number of the last entry of the event log that the server has

    def production(self) -> bool:
        """Whether this device is one for the field: by its key set's environment, or by an order, for good."""
        frozen = keysets.parse(self.engine.port.config.KEYSET)
        return frozen.environment == keysets.RELEASE or bool(self.record.get(record.PRODUCTION))

    def attributes(self) -> dict:
        """What an update server is told of mode and protection, in words."""
        from .hardware import NAMES

        fuses = self.hardware() or {}
        on = [NAMES[one] for one in sorted(NAMES) if fuses.get(one)]
        return {"mode": "production" if self.production() else "development", "protection": " ".join(on) or "none"}

    def clock(self) -> tuple:
        """(s since 1970, whether the clock was set since the start)."""
        now, proved = self.engine.port.now(), self.engine.now()
        return proved, 1 if now >= proved else 0

    def verdict(self, found: list) -> list:
        """Why the device is not as it should be: words, [] when it is. *found*: the member SLOTS."""
        engine, why = self.engine, []
        status = engine.status()
        if self.decision is None:
            why.append("engine-fault")
        if status["degraded"] or (self.decision and self.decision.degraded):
            why.append("engine:" + name(status["degraded"] or self.decision.degraded))
        if status["locked"]:
            why.append("locked")
        why += self._trust(found)
        for component, slot, runs, _, _, _, expected, now in found:
            if runs and expected != now:
                why.append("changed:%s_%d" % (suit.NAMES[component], slot))
        if not any(entry[2] and entry[0] == suit.FW for entry in found):
            why.append("unproven")  # no record says what the running firmware is
        mounts = sys.modules.get("sekisho.mounts")
        why += ["mount:" + label for label in (mounts.problems if mounts else ())]
        safe = sys.modules.get("sekisho.safe")
        if safe and safe.why():
            why.append("safe:" + safe.why())
        if self.record.lost:
            why.append("record-lost")
        if not self.log.kept:
            why.append("log-lost")
        allowed = getattr(engine.port.config, "INTERFACES", ())
        why += ["interface:" + one for one in self.open if self.production() and one not in allowed]
        fuses = self.hardware() or {}
        from .hardware import NAMES

        for number, wanted in NAMES.items():
            if wanted in getattr(engine.port.config, "HARDWARE", ()) and not fuses.get(number):
                why.append("hardware:" + wanted)
        return why

    def _trust(self, found: list) -> list:
        """What the key set has against this device."""
        why = []
        try:
            trusted = self.engine.keyset()
        except Refused:
            return ["keyset-lost"]
        if trusted.expired(self.engine.now()):
            why.append("keyset-expired")
        for component, _, runs, sequence, manifest, _, _, _ in found:
            if runs and sequence < trusted.limit(suit.NAMES[component])[0]:
                why.append("below-floor")
            if runs and manifest in trusted.revoked_manifests:
                why.append("revoked")
        return why

    def hardware(self):
        """The member HARDWARE, or None."""
        from .secure import component

        return component(self.engine.port.config).state()

    def public(self) -> dict:
        """All that may be shown to anybody without a login: product, whether it is well, whether an update waits."""
        status, safe = self.engine.status(), sys.modules.get("sekisho.safe")
        trouble = status["degraded"] or status["locked"] or self.decision is None or (safe and safe.why())
        return {
            "product": getattr(self.engine.port.config, "PRODUCT", ""),
            "well": not trouble,
            "trial": status["trial"],
        }

    async def claims(self, nonce: bytes = b"", private: bool = True) -> dict:
        """The claims set of a report made now, with the members of PRIVATE or without. *nonce*: the asker's, at most
        MAX_NONCE bytes."""
        engine, settings = self.engine, self.settings
        port, status = engine.port, engine.status()
        found = await slots(engine)
        try:
            trusted = engine.keyset()
            trust = [trusted.version, trusted.digest, trusted.issued_at, trusted.expires]
            limits = {component: list(trusted.limit(component)) for component in suit.NAMES}
        except Refused:
            trust, limits = [], {}
        fuses = self.hardware()
        ours = {
            MODE: 2 if self.production() else 1,
            SLOTS: found,
            KEYSET: trust,
            LIMITS: limits,
            COUNTERS: list(status["counters"]),
            PHASE: status["phase"],
            LAST: list(status["last"]),
            RESULTS: self.record.get(record.RESULTS, []),
            INTERFACES: list(self.open),
            SETTINGS: settings.digest(),
            LOG: [self.log.number, self.log.hash],
            CLOCK: list(self.clock()),
            VERDICT: self.verdict(found),
            VERSIONS: _versions(),
            PRODUCT: getattr(port.config, "PRODUCT", ""),
            ORDER_NONCE: engine.nonce(),
            PENDING: sorted(settings.pending),
            POLICY: [settings.get(one) for one in ("update_enabled", "update_start", "update_window")],
            CLASSES: list(port.classes),
        }
        recent = self.events()
        if recent:
            ours[EVENTS] = recent
        if self.orders and self.orders.refused[1]:
            ours[REFUSED] = list(self.orders.refused)
        if fuses:
            ours[HARDWARE] = fuses
        issued = _issued_id()
        if issued:
            ours[ID] = issued
        if self.record.get(record.OWNER) is not None:
            ours[OWNER] = self.record.get(record.OWNER)
        if status["last"][2]:
            ours[SUIT_REPORT] = suit_report(status["last"])
        try:
            from machine import unique_id

            ours[CHIP] = unique_id()
        except ImportError:
            pass
        if not private:
            for member in PRIVATE:
                ours.pop(member, None)
        claims = {IAT: engine.now(), UEID: b"\x01" + port.device, PROFILE: PROFILE_NAME, SEKISHO: ours}
        claims[HWMODEL] = port.classes[0]
        if fuses:
            from .hardware import JTAG_OFF

            claims[DBGSTAT] = 3 if fuses[JTAG_OFF] else 0  # disabled permanently, or enabled
        if nonce:
            claims[NONCE] = bytes(nonce[:MAX_NONCE])
        return claims

    def events(self) -> bytes:
        """The member EVENTS: the oldest entries that the server does not have; the rest follows in later reports."""
        told, found = self.told if self.told <= self.log.number else 0, []
        for entry in self.log.entries(told):
            found.append(entry)
            if len(found) == MAX_EVENTS:
                break
        return b"".join(found)

    async def make(self, key, nonce: bytes = b"", private: bool = True) -> bytes:
        """A signed report (`devicekey.DeviceKey` *key*)."""
        return key.sign1(encode(await self.claims(nonce, private)))


def _issued_id():
    try:
        from .issued import load

        return load().get("id")
    except ImportError:
        return None


def _versions() -> list:
    from . import __version__

    version = getattr(sys.implementation, "version", (0, 0, 0))
    machine = getattr(sys.implementation, "_machine", "")
    return [__version__, ".".join([str(part) for part in version[:3]]), machine]
