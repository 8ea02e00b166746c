"""The device's own security functions put together for one start: settings, orders, policy, event log, reports.

The agent calls in at two places (`visit`, `looked`), asks for decisions, and knows nothing of what happens here.
"""

import gc
import json
import time
from binascii import crc32, hexlify
from struct import unpack_from

from sekisho_boot.ledger import READY
from sekisho_boot.reasons import NETWORK, NOTHING, ORDER_REPLAY, Refused, kind, name

from . import backup, clock, eventlog, http, interfaces, record, safe, settings, store
from .orders import BACKUP, MAX_FILE, TRANSFER, WIPE, Orders, digest, payload
from .report import Reporter, slots
from .values import Settings

MARKS = "/data/marks"  # what has been written into the event log, so that it is not written again
REPORT = "/data/report.cose"


class Duties:
    """engine, decision: of this start."""

    def __init__(self, engine, decision, say=print) -> None:
        self.engine = engine
        self.say = say
        self.restart = False
        self.may: list = []  # interfaces that may be open
        self.record = record.Record(engine.port.part)
        self.settings = Settings(self._changed)
        self.log = eventlog.Log(engine.port.device, self._clock)
        self.orders = Orders(engine, self.record, self.settings, self._ordered)
        self.reporter = Reporter(engine, self.record, self.settings, self.log, self.orders, decision)
        self._tag = ""  # of the order that has been dealt with
        self.orders.rotate = self.log.rotate
        self.orders.backups = backup.Keeper(self.settings, engine.port.device, self.log)
        self.by_hand = False  # the order that asks for a report was brought by hand
        self._since = time.time()  # of this start, or the last report
        self._clockless = False  # the first time that a server tells is to be written down
        self._marks = _marks()
        told = self._marks.get("log", 0)
        self.reporter.told = told if isinstance(told, int) else 0
        self._written = dict(self._marks)

    def start(self, agent=None) -> None:
        """Once after the start: finishes what was interrupted, closes interfaces, writes down what happened."""
        self._begin_log()
        self.orders.resume()
        product = getattr(self.engine.port.config, "INTERFACES", ())
        self.may = interfaces.wanted(self.reporter.production(), product, self.settings.get("interfaces"))
        self.reporter.open = interfaces.apply(self.may)
        self._write_down()
        if agent:
            tell = agent.tell

            def heard(event: str, release: int, reason: str = "") -> None:
                if event == "available":
                    self._once("available", release, eventlog.AVAILABLE, 0, release)
                tell(event, release, reason)

            agent.tell, agent.decide, agent.duties = heard, self.record.decision, self
            if "console" in self.reporter.open:
                from . import console

                console.begin(agent)

    def _begin_log(self) -> None:
        """The start itself, and whether the log begins anew because the device was wiped."""
        if self.log.number == 0:
            for result in self.record.get(record.RESULTS, ())[:1]:
                if result[1] in (WIPE, TRANSFER) and not result[2]:
                    self.log.append(eventlog.WIPED, 0, result[1], result[0])
        try:
            from machine import DEEPSLEEP_RESET, reset_cause
        except ImportError:
            return
        cause = reset_cause()
        if cause != DEEPSLEEP_RESET:  # a device that wakes every minute would wear its flash out
            self.log.append(eventlog.START, 0, cause)
            self._clockless = not clock.trusted()

    def _write_down(self) -> None:
        """What has changed about the device since it was last written down."""
        status = self.engine.status()
        code, manifest, sequence = status["last"]
        if sequence:
            event = eventlog.FAILED if code else eventlog.INSTALLED
            self._once("last", _hex(manifest) + str(code), event, code, sequence, manifest)
        trouble = safe.reason()
        if trouble or "safe" in self._marks:
            if trouble:
                self._once("safe", trouble, eventlog.SAFE, 0, trouble)
            else:
                self._marks.pop("safe")
        self._once("keyset", status["keyset"], eventlog.KEYSET, 0, status["keyset"])
        degraded = status["degraded"]
        if degraded or "degraded" in self._marks:
            self._once("degraded", degraded, eventlog.DEGRADED if degraded else eventlog.RECOVERED, degraded)
        if status["phase"] == READY:
            self._once(
                "staged", _hex(status["manifest"]), eventlog.STAGED, 0, self.engine.state.sequence, status["manifest"]
            )
        self._save_marks()

    # -- called by the agent ------------------------------------------------------------------------------

    async def visit(self, agent) -> bool:
        """At the server: takes an order that waits there. True when a restart is due."""
        if not agent.server or agent.options["protocol"] == "ddi":
            return False  # there a link in the server's answer leads to it
        url = http.join(agent.server, "/orders/%s.cose" % uuid(self.engine.port.device))
        gc.collect()
        try:
            document, self._tag = await http.fetch(url, MAX_FILE, self._tag, agent.ca)
        except http.Failed as failed:
            if failed.code == NETWORK:
                raise
            return False  # no order there, or nothing that could be one: no reason to hold updates back
        if document is None:
            return False
        return self.obey(document, agent)

    def obey(self, document, agent=None) -> bool:
        """An order, whatever way it came. True when a restart is due."""
        try:
            self.judge(document, agent)
        except Refused:
            return False
        return self.due()

    def judge(self, document, agent=None) -> int:
        """An order, whatever way it came: 0 or the reason why it could not be done; Refused where it is not obeyed."""
        try:
            code = self.orders.obey(document)
        except Refused as refused:
            if refused.code != ORDER_REPLAY:
                self.say("sekisho: order refused: %s" % name(refused.code))
                self._tag = ""  # a newer key set may know the key
            raise
        self.say("sekisho: order %s" % ("could not be done: " + name(code) if code else "obeyed"))
        if agent:
            self.reload(agent)
            if not code and payload(document)[1] == BACKUP:
                agent.call()  # the server gets it at the next look, and that comes now
        return code

    def due(self) -> bool:
        """Whether something of this takes effect with a restart."""
        return self.orders.restart or self.restart

    def earlier(self, document, code: int) -> int:
        """What came of an order that is refused now with *code*: it may have been obeyed before."""
        for result in self.record.get(record.RESULTS, ()):
            if result[0] == digest(document):
                return result[2]
        return code

    def wanted(self) -> bool:
        """Whether a report is still to be made that an order asked for."""
        return self.record.get(record.WANTED) is not None

    def report_document(self) -> bytes:
        """The last report that an order asked for; b"" where there is none."""
        try:
            with open(REPORT, "rb") as file:
                return file.read()
        except OSError:
            return b""

    def backup(self, key) -> bytes:
        """A backup of the settings under *key* (see `backup`), written down in the event log. Raises Refused."""
        return backup.take(self.settings, self.engine.port.device, key, self.log)

    def put_back(self, key, document, role: int, agent=None) -> None:
        """Puts a backup back with the rights of *role* (`values.ADMIN`, `values.ORDER`). Raises Refused: nothing was
        changed then."""
        backup.put_back(self.settings, self.engine.port.device, key, document, role, self.log)
        if agent:
            self.reload(agent)

    def backup_document(self) -> bytes:
        """The last backup that an order asked for, sealed; b"" where there is none."""
        return store.load(backup.TAKEN) or b""

    def reload(self, agent) -> None:
        """Lets the agent go on with the settings as they are now, after a restart where it takes one."""
        options = settings.load()
        if any(options[one] != agent.options[one] for one in ("server", "protocol", "controller", "tenant")):
            self.restart = True
        changed = options["wifi"] != agent.networks
        agent.options = options
        agent.networks, agent.every, agent.ca = options["wifi"], options["poll"], options["ca"]
        agent.again()
        if changed and agent.networks:
            import network

            station = network.WLAN(network.STA_IF)
            if station.active():  # the driver refuses otherwise: these may be the device's first settings
                station.disconnect()  # else the old network would seem to prove the new ones

    async def looked(self, agent, code: int, detail: str = "") -> bool:
        """After each look at the server, with its result (0: staged). True when a restart is due."""
        self._settle(agent, code, detail)
        if self._clockless and clock.trusted():
            self._clockless = False
            self.log.append(eventlog.CLOCK, 0, clock.now())
        self._write_down()
        if code and code != NOTHING and kind(code) == "permanent":
            self.log.append(eventlog.REFUSED, code)
        await self._report(agent)
        await self._promise(agent)
        try:
            from . import syslog

            await syslog.forward(self.log, self.settings, uuid(self.engine.port.device), agent.ca)
        except (Refused, OSError):
            pass  # the entries are kept and go with the next look
        return self.restart

    # -- inside ---------------------------------------------------------------------------------------------

    def _settle(self, agent, code: int, detail: str) -> None:
        """Keeps pending settings that worked, takes them back where they did not."""
        if not self.settings.pending:
            return
        try:
            if code == NETWORK:
                if self.settings.failed():
                    self.say("sekisho: the new network or server does not work; the old settings are back")
                    self.log.append(eventlog.SETTINGS_BACK)
                    self.reload(agent)
            elif "HTTP 404" not in detail and "HTTP 410" not in detail:  # any web server would say so
                self.settings.proved()
        except Refused as refused:
            self.say("sekisho: settings not kept: %s" % name(refused.code))

    def _welcome(self, agent) -> bool:
        """Whether a report that nobody asked for could be sent, and none waits."""
        marks = self._marks
        takes = getattr(agent, "takes", False) and marks.get("untaken") != _sum(agent.reports)
        return takes and not self._waits(agent)

    def _waits(self, agent) -> bool:
        """Whether a report waits that may go over the agent's channel: what is private only where a certificate tells
        who is at its other end."""
        return bool(self._marks.get("report")) and not (self._marks.get("private") and not _authenticated(agent))

    def _due(self, state: int) -> bool:
        """Whether a report is due that nobody asked for: an update ended, the verdict is another one (*state* sums both
        up), or the time of the setting `report_every` is over."""
        if self._marks.get("state") != state:
            return True
        every, then = self.settings.get("report_every") * 3600, self._marks.get("report-at")
        late = self.engine.now() - then if isinstance(then, int) else 0
        return every > 0 and max(late, time.time() - self._since) >= every

    async def _report(self, agent=None) -> None:
        """The report that is due, left where whoever transports it finds it (`made`, `report_document`)."""
        nonce = self.record.get(record.WANTED)
        if nonce is None and not self._welcome(agent):
            return
        try:
            # The bytes in flash are read for the report itself only: hashing them at each look would cost too much.
            state = _sum(repr((self.reporter.verdict(await slots(self.engine, False)), self.engine.status()["last"])))
            if nonce is None and not self._due(state):
                return
            key = self._key()
            # What an order brought by hand asks for goes by hand; a device without a server has no other way.
            private = self.by_hand or not agent or not agent.server or _authenticated(agent)
            recent = self.reporter.events() if private else b""  # as in the report: nothing is written meanwhile
            document = await self.reporter.make(key, nonce or b"", private)
            with open(REPORT, "wb") as file:
                file.write(document)
            self._marks["asked"] = 1 if self.wanted() else 0
            if self.wanted():
                self.record.update({record.WANTED: None})
            self.by_hand = False
            self._marks["report"] = 1  # it is still to be sent
            self._marks["private"] = 1 if private else 0
            self._marks["state"], self._marks["report-at"] = state, self.engine.now()
            self._since = time.time()
            last = unpack_from("<I", recent, len(recent) - eventlog.ENTRY)[0] if recent else self.reporter.told
            self._marks["report-log"] = last
            self._save_marks()
            if agent:
                agent.call()  # the server gets it at the next look, and that comes now
        except (Refused, OSError) as error:
            self.say("sekisho: no report (%r)" % error)

    async def _promise(self, agent) -> None:
        """Before a wipe, while there still is a network: what will be done, signed, kept, and told the server."""
        if not self.record.get(record.LIFE):
            return
        from . import wipe

        try:
            head = [self.log.number, self.log.hash]
            document = wipe.promise(self.record, self._key(), self.engine.port.device, self.engine.now(), head)
        except (Refused, OSError) as error:
            self.say("sekisho: no statement (%r)" % error)
            return
        if document:
            await self._send(agent, document)

    async def _send(self, agent, document: bytes) -> None:
        """Hands a signed document to the update server, where that knows its devices."""
        send = getattr(agent, "send", None)
        if send:
            try:
                await send("POST", agent.reports, document, "application/cose")
                self.say("sekisho: statement sent")
            except http.Failed as failed:
                self.say("sekisho: statement not sent (%s)" % failed.detail)

    def _key(self):
        from .devicekey import DeviceKey

        key = DeviceKey()
        if key.made:
            self._once("key", _hex(key.id), eventlog.KEY_MADE, 0, 0, key.id)
        return key

    def made(self, agent) -> bytes:
        """The report that is still to be sent over the agent's channel; b"" where there is none."""
        return self.report_document() if self._waits(agent) else b""

    def asked(self) -> bool:
        """Whether an order asked for the report that was made last."""
        return bool(self._marks.get("asked"))

    def taken(self) -> None:
        """The report has arrived, and with it entries of the event log: the next one goes on from there."""
        self._marks["report"], self._marks["log"] = 0, self._marks.get("report-log", 0)
        self.reporter.told = self._marks["log"]
        self._save_marks()

    def made_backup(self, _=None) -> bytes:
        """The backup that an order asked for and no server has taken yet, signed; b"" where there is none. It is sealed
        and may go over any channel."""
        sealed = self.backup_document()
        if not sealed or self._marks.get("backup") == _sum(sealed):
            return b""
        return backup.statement(self._key(), self.engine.port.device, self.engine.now())

    def taken_backup(self) -> None:
        """The backup has arrived."""
        self._marks["backup"] = _sum(self.backup_document())
        self._save_marks()

    def untaken(self, url: str) -> None:
        """The server takes no reports there: none is made for it that nobody asked for."""
        self._marks["untaken"] = _sum(url)
        self._save_marks()

    def _clock(self) -> tuple:
        now = self.engine.now()
        return now, 1 if self.engine.port.now() >= now else 0

    def _changed(self, names) -> None:
        self.log.append(eventlog.SETTINGS, 0, len(names), self.settings.digest())

    def _ordered(self, code: int, action: int, order: bytes) -> None:
        self.log.append(eventlog.ORDER if action else eventlog.ORDER_REFUSED, code, action, order)

    def _once(self, mark: str, value, event: int, reason: int = 0, number: int = 0, detail=b"") -> None:
        if self._marks.get(mark) != value:
            self._marks[mark] = value
            self.log.append(event, reason, number, detail)

    def _save_marks(self) -> None:
        if self._marks != self._written:
            try:
                store.save(MARKS, json.dumps(self._marks).encode())
                self._written = dict(self._marks)
            except Refused:
                pass


def _marks() -> dict:
    try:
        found = json.loads(store.load(MARKS) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _hex(data) -> str:
    return str(hexlify(data), "utf-8")


def _authenticated(agent) -> bool:
    """Whether the agent's server shows who it is, by a certificate that leads to the one in the settings."""
    return bool(agent.ca) and agent.server[:8] == "https://"


def _sum(data) -> int:
    return crc32(data if isinstance(data, bytes) else data.encode())


def uuid(data) -> str:
    """The 16 bytes of a UUID in its usual form."""
    digits = _hex(data)
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
