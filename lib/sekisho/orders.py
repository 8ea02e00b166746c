"""Operator orders: what an operator with the right for it may have this device do, over whatever channel it arrives.

An order is a COSE_Sign1 by an operator key of the key set, with its payload attached, a map (docs/orders.md):

  1 action | 2 address: device id, or [1, class id], or [2, group] | 3 nonce that this device drew, or 6 counter, which
  grows with each order of a key | 4 expiry (s since 1970) | ?5 argument | ?7 reason, for people

A file that holds an order is its COSE_Sign1 and, for the action put-back alone, what is to be put back right behind it;
the order names that by its SHA-256. So every way that brings an order brings both.

Order of checks: shape and size, signature and right of the key (by the engine), address, expiry, nonce or counter. Then
the order is kept in the device record, with its counter, before anything is done, and its result after that. A cut in
between leads to `resume`, which does it again: every action may be done twice with the same outcome. The engine's own
actions, rollback and unlock, are judged by the engine itself once more and spend its nonce there.
"""

from hashlib import sha256

from micropython import const
from sekisho_boot import cose, ledger
from sekisho_boot.cbor import Reader
from sekisho_boot.engine import RIGHT_ROLLBACK, RIGHT_UNLOCK
from sekisho_boot.reasons import BACKUP as DAMAGED
from sekisho_boot.reasons import COSE, ENGINE_FAULT, LIMIT, ORDER_REPLAY, PERMIT, PERMIT_EXPIRED, Refused

from . import policy, record
from .cbor import decode, value

MAX_ORDER = const(2048)  # bytes
MAX_ATTACHED = const(6112)  # bytes of what goes with one
MAX_FILE = const(8160)  # bytes of both
MAX_TRIES = const(3)  # times that an order is begun again after a cut
MAX_SIGNERS = const(32)  # operator keys whose counters are remembered
MAX_NONCE = const(64)  # bytes of a server's nonce, and of what a new owner leaves
RANK = const(3)  # of orders among those who may change and decide (`values.ORDER`)

# Actions. The first seven are also the rights of an operator key.
SETTINGS = const(1)
APPROVE = const(2)
ROLLBACK = RIGHT_ROLLBACK
RESTORE = const(4)
WIPE = const(5)
DECOMMISSION = const(6)
UNLOCK = RIGHT_UNLOCK
REFUSE = const(8)
POSTPONE = const(9)
INTERFACES = const(10)
REPORT = const(11)
TRANSFER = const(12)
PRODUCTION = const(13)
ROTATE = const(14)
BACKUP = const(15)
PUT_BACK = const(16)

ANY = const(0)
RIGHTS = {
    "settings": SETTINGS,
    "approve": APPROVE,
    "rollback": ROLLBACK,
    "restore": RESTORE,
    "wipe": WIPE,
    "decommission": DECOMMISSION,
    "unlock": UNLOCK,
}
ACTIONS = {  # name -> (action, right it takes, kind of argument)
    "settings": (SETTINGS, SETTINGS, "settings"),
    "approve": (APPROVE, APPROVE, "manifest"),
    "refuse": (REFUSE, APPROVE, "manifest"),
    "postpone": (POSTPONE, APPROVE, "until"),
    "rollback": (ROLLBACK, ROLLBACK, "manifest"),
    "restore": (RESTORE, RESTORE, None),
    "interfaces": (INTERFACES, SETTINGS, "interfaces"),
    "report": (REPORT, ANY, "nonce"),
    "unlock": (UNLOCK, UNLOCK, None),
    "wipe": (WIPE, WIPE, None),
    "transfer": (TRANSFER, WIPE, "owner"),
    "decommission": (DECOMMISSION, DECOMMISSION, None),
    "production": (PRODUCTION, SETTINGS, None),
    "rotate-log": (ROTATE, SETTINGS, None),
    "backup": (BACKUP, SETTINGS, "key"),
    "put-back": (PUT_BACK, SETTINGS, "key"),
}
CLASS = const(1)  # kinds of address other than a device
GROUP = const(2)


def right_of(action: int) -> int:
    """The right that an action takes; Refused(PERMIT) for one that does not exist."""
    for known, right, _ in ACTIONS.values():
        if known == action:
            return right
    raise Refused(PERMIT)


def digest(document) -> bytes:
    """How results name an order: the first 8 bytes of its SHA-256."""
    return sha256(document).digest()[:8]


def split(document) -> tuple:
    """(COSE_Sign1, what goes with it) of a file that holds an order. Raises Refused: CBOR, COSE, LIMIT."""
    reader = Reader(document, wrong=COSE)
    if reader.tag() != 18:
        raise Refused(COSE)
    reader.skip()
    if reader.pos > MAX_ORDER or len(document) - reader.pos > MAX_ATTACHED:
        raise Refused(LIMIT)
    return document[: reader.pos], document[reader.pos :]


def payload(document) -> dict:
    """The members of an order, nothing of it verified. Raises Refused: CBOR, COSE, LIMIT, PERMIT."""
    reader = Reader(document, wrong=COSE)
    if reader.tag() != 18 or reader.array() != 4:
        raise Refused(COSE)
    reader.bstr()
    reader.skip()
    return members(reader.bstr())


def members(data) -> dict:
    """The payload of an order as a dict of its members, each of the right type; else Refused(PERMIT)."""
    reader = Reader(data, wrong=PERMIT)
    order = value(reader)
    reader.done()
    if not isinstance(order, dict) or not set(order) <= {1, 2, 3, 4, 5, 6, 7} or (3 in order) == (6 in order):
        raise Refused(PERMIT)
    for member in (1, 4, 3 if 3 in order else 6):
        number = order.get(member)
        if not isinstance(number, int) or number is True or not 0 < number < 1 << 63:
            raise Refused(PERMIT)
    if not isinstance(order.get(7, ""), str):
        raise Refused(PERMIT)
    right_of(order[1])
    return order


class Orders:
    """Judges and obeys orders. settings: `values.Settings`. log(event, reason, number, detail): the event log's append.

    ``restart``: an order takes effect with a restart, which is for the caller to make. ``refused``: (digest, reason) of
    the last order of this start that was not obeyed.
    """

    def __init__(self, engine, kept: record.Record, settings, log=None) -> None:
        self.engine = engine
        self.record = kept
        self.settings = settings
        self.log = log
        self.rotate: object = None  # `eventlog.Log.rotate`
        self.backups: object = None  # `backup.Keeper`
        self.restart = False
        self.refused = (b"", 0)

    def obey(self, document) -> int:
        """Does what an order says; returns 0 or the reason why it could not be done.

        Raises Refused for an order that is not to be obeyed at all (then nothing was changed), ORDER_REPLAY among them.
        """
        document = bytes(document)
        name = digest(document)
        if any(result[0] == name for result in self.record.get(record.RESULTS, ())):
            raise Refused(ORDER_REPLAY)  # the same file was found again, which is no event
        try:
            document, attached = split(document)
            order, counters = self._judge(document)
            self._check_attached(order, attached)
        except Refused as refused:
            if self.refused != (name, refused.code):
                self.refused = (name, refused.code)
                self._note(refused.code, 0, name)
            raise
        if order[1] in (ROLLBACK, UNLOCK):
            return self._by_engine(order[1], document, name)
        if 3 in order:
            self.engine.ledger.append(ledger.NONCE)  # spent: if the power goes now, the order has to be given anew
        if attached:
            self.backups.brought(attached)  # type: ignore[attr-defined]
        self.record.update({record.COUNTERS: counters, record.PENDING: [document, 1, name]})
        return self._finish(order, name)

    def _judge(self, document: bytes) -> tuple:
        """(members, counters to remember) of an order that is to be obeyed."""
        key, signed = self.engine.operator(document, right_of(payload(document)[1]))
        order = members(signed)
        self._check_address(order)
        if order[4] <= self.engine.now():
            raise Refused(PERMIT_EXPIRED)
        counters = self.record.get(record.COUNTERS) or []
        if 3 in order:
            if not self.engine.state.nonce or order[3] != self.engine.state.nonce or not isinstance(order[2], bytes):
                raise Refused(PERMIT)
            return order, counters
        if order[1] in (ROLLBACK, UNLOCK):
            raise Refused(PERMIT)  # the engine takes its nonce only
        return order, self._count(cose.key_id(key), order[6], counters)

    def _count(self, key: bytes, counter: int, counters: list) -> list:
        if self.record.lost:
            raise Refused(ORDER_REPLAY)  # what was obeyed is not known any more: only an order with a nonce is new
        old = [entry for entry in counters if entry[0] == key]
        if old and counter <= old[0][1]:
            raise Refused(ORDER_REPLAY)
        rest = [entry for entry in counters if entry[0] != key]
        if len(rest) >= MAX_SIGNERS:  # a revoked key never signs again
            revoked = self.engine.keyset().revoked_keys
            rest = [entry for entry in rest if entry[0] not in revoked]
            if len(rest) >= MAX_SIGNERS:
                raise Refused(LIMIT)
        rest.insert(0, [key, counter])
        return rest

    def _check_address(self, order: dict) -> None:
        to, port = order.get(2), self.engine.port
        good = False
        if isinstance(to, bytes):
            good = to == port.device
        elif isinstance(to, list) and len(to) == 2:
            kind, name = to
            good = (kind == CLASS and name in port.classes) or (kind == GROUP and name in self.settings.get("groups"))
        if not good:
            raise Refused(PERMIT)

    def _check_attached(self, order: dict, attached: bytes) -> None:
        """What goes with an order is what it names, before anything is spent."""
        if order[1] != PUT_BACK:
            if attached:
                raise Refused(COSE)
            return
        argument = order.get(5)
        if not self.backups or not isinstance(argument, list) or len(argument) != 2:
            raise Refused(PERMIT)
        if sha256(attached).digest() != argument[1]:
            raise Refused(DAMAGED)

    # -- doing it -----------------------------------------------------------------------------------------

    def _by_engine(self, action: int, document: bytes, name: bytes) -> int:
        self._result(name, action, 0)  # a rollback does not come back here
        try:
            if action == UNLOCK:
                self.engine.unlock(document)
            else:
                self.engine.rollback(document)
        except Refused as refused:
            self._result(name, action, refused.code)
            return refused.code
        return 0

    def resume(self) -> None:
        """At every start: finishes an order that a cut interrupted."""
        pending = self.record.get(record.PENDING)
        if not pending:
            if self.backups:
                self.backups.done()  # type: ignore[attr-defined]  # a cut came between the result and this
            return
        document, tries = pending[:2]
        name = pending[2] if len(pending) > 2 else digest(document)
        order = payload(document)
        if tries >= MAX_TRIES:
            self._result(name, order[1], ENGINE_FAULT)
            return
        self.record.update({record.PENDING: [document, tries + 1, name]})
        self._finish(order, name)

    def _finish(self, order: dict, name: bytes) -> int:
        """Does it and keeps the result; what an order changes in the device record goes there in one step with it."""
        code, changes = 0, {}
        try:
            changes = self._act(order[1], order.get(5), name) or {}
        except Refused as refused:
            code = refused.code
        self._result(name, order[1], code, changes)
        if order[1] == PUT_BACK:
            self.backups.done()  # type: ignore[attr-defined]
        return code

    def _result(self, name: bytes, action: int, code: int, changes=None) -> None:
        results = [result for result in self.record.get(record.RESULTS, ()) if result[0] != name]
        results.insert(0, [name, action, code, self.engine.now()])
        changed = {record.PENDING: None, record.RESULTS: results[: record.MAX_RESULTS]}
        changed.update(changes or {})
        self.record.update(changed)
        self._note(code, action, name)

    def _note(self, code: int, action: int, name: bytes) -> None:
        if self.log:
            self.log(code, action, name)

    def _act(self, action: int, argument, name: bytes):
        """Does it, or returns what it changes in the device record. Refused(PERMIT) for an argument of a wrong kind."""
        if action == SETTINGS and isinstance(argument, dict):
            return self.settings.change(argument, RANK)
        if action == INTERFACES:
            return self.settings.change({"interfaces": argument}, RANK)
        if action == RESTORE and argument is None:
            secure = self.engine.keyset().settings
            return self.settings.restore(decode(secure) if secure is not None else None)
        if action == APPROVE:
            return self._decision(argument, policy.APPROVE, 0)
        if action == REFUSE:
            return self._decision(argument, policy.REFUSE, 0)
        if action == POSTPONE and isinstance(argument, list) and len(argument) == 2 and isinstance(argument[1], int):
            return self._decision(argument[0], policy.POSTPONE, argument[1])
        if action == REPORT and isinstance(argument, bytes) and len(argument) <= MAX_NONCE:
            return {record.WANTED: argument}
        if action == ROTATE and argument is None:
            return self.rotate(name) if self.rotate else None  # type: ignore[operator]
        if action == BACKUP and self.backups:
            return self.backups.keep(argument)  # type: ignore[attr-defined]
        if action == PUT_BACK and self.backups and isinstance(argument, list) and len(argument) == 2:
            return self.backups.put_back(argument[0], argument[1], RANK)  # type: ignore[attr-defined]
        if action == PRODUCTION and argument is None:
            self.restart = True
            return {record.PRODUCTION: 1}
        if (action in (WIPE, DECOMMISSION) and argument is None) or (action == TRANSFER and _owner(argument)):
            self.restart = True
            return {record.LIFE: [record.WIPING, action], record.OWNER: argument}
        raise Refused(PERMIT)

    def _decision(self, manifest, what: int, until: int) -> dict:
        if not isinstance(manifest, bytes) or len(manifest) != 32:
            raise Refused(PERMIT)
        return {record.DECISIONS: self.record.decided(manifest, what, until, RANK)}


def _owner(argument) -> bool:
    return argument is None or (isinstance(argument, bytes) and len(argument) <= MAX_NONCE)
