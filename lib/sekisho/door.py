"""The offline door: what people bring by hand (SD card, serial line, a phone at the console) is treated like what a
server sends. The same functions judge it, the same settings hold it back, the same events are written down.

    door = sekisho.offline()
    door.order(document)                      # 0, or the reason why it could not be done
    door.keyset(document)                     # the version of the newest one
    for component, digest, size in door.envelope(document):
        door.payload(component, chunks)       # any pieces, in order, from door.offset(component) on
    door.stage()                              # the device restarts into it, after the drain hooks

Every refusal is a `Refused` with a reason code. A payload that breaks off stays as far as it came, and the same
envelope goes on from there: here, or by way of the server. One release comes in at a time; while the agent takes one
from its server the door is BUSY, and the other way round.
"""

import time

from micropython import const
from sekisho_boot.keyset import MAX_KEYSET
from sekisho_boot.ledger import FETCHING
from sekisho_boot.reasons import BUSY, DISABLED, IMAGE_SIZE, LIMIT, NOTHING, TRUNCATED, Refused, kind

from . import eventlog, orders
from .envelope import MAX_DOWNLOAD

SECTOR = const(4096)
QUIET = 60_000  # ms without a byte after which the agent may take over again


class Door:
    """agent: the `agent.Agent` of this start; its buffer and its rules are used, none of its network."""

    def __init__(self, agent) -> None:
        self.agent = agent
        self.engine = agent.engine
        self._plan = None
        self._forms: list = []  # [(target, what is to be brought for it), ...]
        self._at: dict = {}  # component -> bytes taken so far, once the update was begun
        self._starts: dict = {}  # component -> where its image goes on in flash
        self._open = -1  # the component that bytes came for last
        self._fill = 0  # bytes of it that wait in the agent's buffer
        self._unpacker = None
        self._touched = time.ticks_ms()

    # -- documents ---------------------------------------------------------------------------------------

    def order(self, document) -> int:
        """Obeys an operator order; returns 0 or the reason why it could not be done. Restarts by itself where it takes
        effect with a restart. Raises Refused where it is not to be obeyed, ORDER_REPLAY among them."""
        duties = self.agent.duties
        if duties is None:
            raise Refused(DISABLED)  # a small stock image has no orders
        code = duties.judge(document, self.agent)
        if not code and orders.payload(document)[1] == orders.REPORT:
            duties.by_hand = True
        if duties.due() or duties.wanted():
            self.agent.call()
        return code

    def keyset(self, document) -> int:
        """Takes a key set, or the next one of a chain; returns the version of the newest."""
        try:
            if len(document) > MAX_KEYSET:
                raise Refused(LIMIT)
            version = self.engine.accept_keyset(bytes(document)).version
        except Refused as refused:
            self._note(eventlog.KEYSET_REFUSED, refused.code)
            raise
        self.agent.again()
        self.agent.say("sekisho: key set %d accepted" % version)
        return version

    def envelope(self, document) -> list:
        """Judges a release; returns what is to be brought: [(component, SHA-256, size in bytes), ...]. Writes nothing
        to the slots. Raises Refused, among others by what the settings say: DISABLED, APPROVAL, WINDOW, DECLINED."""
        agent = self.agent
        if agent.busy:
            raise Refused(BUSY)
        self.close()
        try:
            if len(document) > MAX_DOWNLOAD:
                raise Refused(LIMIT)
            plan = agent._accept(document)
            agent._allow(plan)
        except Refused as refused:
            self._judged(refused.code)
            raise
        self._plan = plan
        self._forms = [(target, agent._form(target)) for target in plan.targets]
        self._touch()
        return [(target.component, form.digest, form.size) for target, form in self._forms]

    # -- payloads ----------------------------------------------------------------------------------------

    def offset(self, component: int) -> int:
        """Where the bytes of a component go on: 0, or as far as they came before. The update has then begun."""
        self._form(component)
        if not self._at:
            begun = self.engine.begin()
            for target, form in self._forms:
                self._starts[target.component] = begun[target.component]
                # What is packed can only be read from its beginning; the part that is in flash is passed over.
                self._at[target.component] = begun[target.component] if form is target else 0
        if self._open == component:
            self._at[component] -= self._fill  # less than a sector that was cut off is brought once more
            self._fill = 0
        self._touch()
        return self._at[component]

    def put(self, component: int, data) -> None:
        """The next bytes of a component, as many as there are. Raises Refused; where the bytes are wrong, the update is
        over."""
        form = self._form(component)
        if not self._at:
            self.offset(component)
        view = memoryview(data)
        if self._at[component] + len(view) > form.size:
            raise Refused(IMAGE_SIZE)
        if self._open != component:
            self._begin(component, form)
        piece = memoryview(self.agent._piece)
        while len(view):
            size = min(SECTOR - self._fill, len(view))
            piece[self._fill : self._fill + size] = view[:size]
            self._fill += size
            self._at[component] += size
            view = view[size:]
            if self._fill == SECTOR or self._at[component] == form.size:
                full, self._fill = self._fill, 0
                self._write(component, piece[:full], self._at[component] == form.size)
        self._touch()

    def payload(self, component: int, chunks) -> int:
        """All the bytes of *chunks* (an iterable of bytes-like pieces); returns how many are still missing."""
        for chunk in chunks:
            self.put(component, chunk)
        return self._form(component).size - self._at.get(component, 0)

    def stage(self) -> None:
        """All payloads have come: the update is staged, and the device restarts into it. Raises Refused."""
        plan = self._plan
        if plan is None:
            raise Refused(NOTHING)
        for target, form in self._forms:  # type: ignore[unreachable]
            self._form(target.component)
            if self._at.get(target.component) != form.size:
                raise Refused(TRUNCATED)
        try:
            self.agent._allow(plan)
            self.engine.stage()
        except Refused as refused:
            self._failed(refused.code)
            raise
        self.agent.say("sekisho: release %d staged" % plan.sequence)
        self.close()
        self.agent.call()

    def close(self) -> None:
        """Ends what was begun here; what has come so far stays in flash."""
        self._plan = self._unpacker = None
        self._forms, self._at, self._starts = [], {}, {}
        self._open, self._fill = -1, 0

    def active(self) -> bool:
        """Whether somebody is bringing a release right now."""
        # Negative once more than six days have passed, half of the time after which the chip's ticks come round.
        return self._plan is not None and 0 <= time.ticks_diff(time.ticks_ms(), self._touched) < QUIET

    # -- inside ------------------------------------------------------------------------------------------

    def _form(self, component: int):
        """What is to be brought for a component; Refused where nothing is, or the agent has taken over meanwhile."""
        for target, form in self._forms:
            if target.component == component:
                if self.agent.busy or self.engine.plan is not self._plan:
                    raise Refused(BUSY)
                return form
        raise Refused(NOTHING)

    def _begin(self, component: int, form) -> None:
        """The bytes that follow are of this component: one after the other, each from its beginning to its end."""
        for target, packed in self._forms:
            if target.component == self._open and self._at[self._open] != packed.size:
                raise Refused(IMAGE_SIZE)
        self._open, self._unpacker = component, None
        for target, _ in self._forms:
            if target.component == component and form is not target:
                self._unpacker = self._unpack(target, form)

    def _unpack(self, target, form):
        from .payload import Unpacker

        write, component = self.engine.write, target.component
        return Unpacker(form, target.size, self._starts[component], lambda at, view: write(component, at, view))

    def _write(self, component: int, piece, last: bool) -> None:
        try:
            if self._unpacker is None:
                self.engine.write(component, self._at[component] - len(piece), piece)
            else:
                self._unpacker.feed(piece)  # type: ignore[unreachable]
                if last:
                    self._unpacker.done()
        except Refused as refused:
            self._failed(refused.code)
            raise

    def _failed(self, code: int) -> None:
        """Bytes that cannot be right end the update, as they do when a server sends them."""
        if kind(code) == "permanent" and self.engine.status()["phase"] == FETCHING:
            self.agent._drop(code)
        self.close()
        self._judged(code)

    def _judged(self, code: int) -> None:
        if code != NOTHING and kind(code) == "permanent":
            self._note(eventlog.REFUSED, code)

    def _note(self, event: int, code: int) -> None:
        if self.agent.duties:
            self.agent.duties.log.append(event, code)

    def _touch(self) -> None:
        self._touched = time.ticks_ms()
