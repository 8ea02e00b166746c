"""The agent for servers that speak hawkBit's Direct Device Integration API: hawkBit, `sekisho serve`, and others.

Only the root URL is built; every other one is a link of the server's. Nothing the server says is trusted with anything
but the order of things: the engine judges every release. One action of the server is dealt with at a time, and how
it ended is kept on the `data` file system before it is sent, since it is known only after a restart.

A release is a set of artifacts, over one or several software modules: the envelope ``*.suit``, its payloads under the
hex digits of their SHA-256 as file names, and key sets ``keyset*.cose``, those with a number in its order.
docs/ddi.md says what is sent when.
"""

import gc
import json
import sys
from binascii import hexlify
from hashlib import sha256

from micropython import const
from sekisho_boot import records
from sekisho_boot.keyset import MAX_KEYSET
from sekisho_boot.ledger import FETCHING, IDLE, READY
from sekisho_boot.reasons import (
    APPROVAL,
    DECLINED,
    NETWORK,
    NOTHING,
    RETRY_LATER,
    SERVER,
    SETTING,
    WINDOW,
    Refused,
    kind,
    name,
)

from . import agent, http, store
from .envelope import MAX_DOWNLOAD, keyset_version

KEPT = "/data/ddi"
MAX_JSON = const(12288)  # bytes of an answer; ten artifacts with all of hawkBit's links
MAX_FILES = const(24)  # artifacts of one action
CHIPS = {0: "esp32", 5: "esp32c3", 9: "esp32s3", 13: "esp32c6"}  # ids in image headers
MIN_SLEEP = const(30)  # s; what a server asks for is brought into these limits
MAX_SLEEP = const(86400)
TLS_ROOM = const(60000)  # bytes of ESP-IDF's heap that must be free for a second connection during a download
MAX_AGAIN = const(3)  # trials without a network before an action ends as failed
MAX_LOGINS = const(3)  # times one request is sent: as it is, with the challenge signed, and once enrolled
FINAL = (400, 404, 405, 410, 422)  # answers to feedback after which sending it again is of no use

# States of the action in hand.
OPEN = const(0)
INSTALLING = const(1)  # staged, or about to be; the engine knows how it ended after the restart
CLOSED = const(2)

_NOT_OURS = const(1)  # instead of an HTTP status: why there is nothing to do
DONE = const(2)


def seconds(text) -> int:
    """A polling time, ``HH:mm:ss`` or ISO 8601 (``P1DT2H3M4S``), in seconds; 0 for anything else."""
    if not isinstance(text, str) or len(text) > 32:
        return 0
    parts = text.split(":")
    if len(parts) == 3 and all(part.isdigit() for part in parts):
        return int(parts[0]) * 3600 + int(parts[1]) * 60 + int(parts[2])
    total, digits, units = 0, "", {"D": 86400}
    for char in text[1:] if text[:1] == "P" else "?":
        if char == "T" and not digits:
            units = {"H": 3600, "M": 60, "S": 1}
        elif char.isdigit():
            digits += char
        elif char in units and digits:
            total += int(digits) * units[char]
            digits = ""
        else:
            return 0
    return 0 if digits else total


def quote(text: str) -> str:
    """Percent-encodes all but letters, digits and ``-._~`` (RFC 3986)."""
    plain = b"-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    return "".join([chr(c) if c in plain else "%%%02X" % c for c in text.encode()])


def _get(thing, *names):
    """What lies below the names in nested JSON objects, or None."""
    for key in names:
        thing = thing.get(key) if isinstance(thing, dict) else None
    return thing


def _href(thing, *names) -> str:
    """The first of the links that is there, or ""."""
    for link in names:
        href = _get(thing, "_links", link, "href")
        if isinstance(href, str) and href:
            return href
    return ""


def _feedback(href: str) -> str:
    return href.split("?")[0] + "/feedback"


def facts(engine, reporter=None) -> dict:
    """What the device says of itself (attributes); plain ASCII texts of at most 128 characters.

    reporter: `report.Reporter`, where there is one, knows its mode and what the eFuses protect.
    """
    from . import __version__

    status, port = engine.status(), engine.port
    state = "locked" if status["locked"] else name(status["degraded"]) if status["degraded"] else "ok"
    safe = sys.modules.get("sekisho.safe")
    if safe and safe.why():
        state = "safe: " + safe.why()
    code, _, sequence = status["last"]
    pair = status["pair"] or (255, status["counters"][0], 0)
    chip = CHIPS.get(port.config.CHIP, str(port.config.CHIP))
    found = {
        "device_id": str(hexlify(port.device), "utf-8"),  # "device" is the name of a parameter inside gooseBit
        "class": str(hexlify(port.classes[0]), "utf-8"),
        "product": getattr(port.config, "PRODUCT", ""),
        "chip": chip,
        "agent": __version__,
        "keyset": str(status["keyset"]),
        "state": state,
        "last": "%d %s" % (sequence, name(code) if code else "confirmed") if sequence else "",
        "fw_version": str(pair[1]),
        "app_version": str(pair[2]),
        # What gooseBit compares.
        "hw_boardname": chip,
        "hw_revision": "default",
        "sw_version": str(pair[1]),
    }
    for component, slot in ((0, status["running"]), (1, pair[0])):
        record = records.load_slot(port.part, component, slot) if slot < 2 else None
        found[("fw", "app")[component] + "_digest"] = str(hexlify(record.digest), "utf-8") if record else ""
    if reporter:
        found.update(reporter.attributes())
    return {key: "".join([c for c in value if " " <= c < "~" and c != "`"])[:128] for key, value in found.items()}


def _issued() -> tuple:
    """(name at the server, token) that the factory gave this device; "" for what it did not."""
    try:
        from .issued import load

        found = load()
    except ImportError:
        return "", ""
    digits = str(hexlify(found.get("id", b"")), "utf-8")
    if digits:
        digits = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    token = found.get("token", b"")
    return digits, str(token, "utf-8") if all(32 < c < 127 for c in token) else ""


class Agent(agent.Agent):
    """One device's dealings with one DDI server."""

    def __init__(self, engine, options: dict, class_id: bytes, say=print) -> None:
        super().__init__(engine, options, class_id, say)
        name, self._issued = _issued()
        controller = options["controller"] or name or str(hexlify(engine.port.device), "utf-8")
        self._root = "%s/%s/controller/v1/%s" % (self.server, quote(options["tenant"]), quote(controller))
        self.reports = self._root + "/reports"  # where signed documents are taken
        self._line = http.Line()
        self._identity = None  # `account.Account`, where requests are signed
        self._job: dict = {}
        self._files: dict = {}
        self._how = ("", "")
        self._href = ""
        self._here = b""  # manifest digest of the release whose payloads have all come
        self._said: dict = {}
        self._sum = None  # SHA-256 of the envelope, in hex, where the server gives it
        self.obeyed = ""  # link of the operator order that has been dealt with
        self.takes = True  # until the server says that it takes none
        self._keysets: list = []  # their links that have been dealt with
        self._stuck = 0  # why a key set of this action was refused
        try:
            kept = json.loads(store.load(KEPT) or b"{}")
            if isinstance(kept, dict):
                self._job = kept
        except ValueError:
            pass

    # -- requests --------------------------------------------------------------------------------
    def _own(self, url: str) -> str:
        """The link, if it leads to the server of the settings; nothing with our token goes elsewhere."""
        url = http.join(self.server, url)
        if http.split(url)[:3] != http.split(self.server)[:3]:
            if not self.options.get("keep_origin"):
                raise http.Failed(SERVER, "link to another server refused: %s" % url[:80])
            url = http.join(self.server, http.split(url)[3])
        return url

    def _login(self, method: str, url: str, body=None) -> list:
        """The header line that proves to our server who asks; none for a mirror."""
        if http.split(url)[:3] != http.split(self.server)[:3]:
            return []
        if self.options["login"] == "key":
            self._identity = self._identity or self._open_account()
            return self._identity.signature(method, url, body)  # type: ignore[attr-defined]
        token = self.options["token"] or self._issued
        return ["Authorization: TargetToken " + token] if token else []

    async def _admitted(self, failed, tries: int) -> bool:
        """After a 401: whether it is worth another try, with the server's challenge signed or newly enrolled."""
        if failed.status != 401 or tries == MAX_LOGINS or not (self._identity or self.options["enrolment"]):
            return False
        self._line.close()
        return await (self._identity or self._open_account()).admitted(self, failed, tries)

    def _open_account(self):
        gc.collect()
        try:
            from .account import Account
        except ImportError:
            raise http.Failed(SETTING, "this image has no code for signed requests and enrolment")
        return Account(self._root, self.options["login"] == "key")

    def _file(self, url: str) -> str:
        """The URL of an artifact: at our server, or at a mirror of the settings."""
        origin = "%s://%s:%d" % http.split(url)[:3] if "://" in url else ""
        for mirror in self.options.get("mirrors", ()) if origin else ():
            if "%s://%s:%d" % http.split(mirror)[:3] == origin:
                return url
        return self._own(url)

    async def _ask_for(self, url: str, start: int = 0, etag: str = ""):
        tries = 1
        while True:
            try:
                return await http.get(url, start, etag, ca=self.ca, head=self._login("GET", url))
            except http.Failed as failed:
                if not await self._admitted(failed, tries):
                    raise
            tries += 1

    async def send(self, method: str, url: str, body=None, kind: str = "application/json"):
        """One request to our server as this device; the body of the answer. Raises Failed.

        url: absolute or from the root. body: bytes of the media type *kind*.
        """
        gc.collect()
        url = self._own(url)
        tries = 1
        while True:
            head = self._login(method, url, body)
            head.append("Accept: application/json")
            try:
                answer = await http.exchange(self._line, method, url, MAX_JSON, head, body, self.ca, kind)
                break
            except http.Failed as failed:
                if not await self._admitted(failed, tries):
                    raise
            tries += 1
        if self._identity and self.options["enrolment"]:
            self._identity.enrolled(self)
        return answer

    async def _call(self, method: str, url: str, content=None) -> dict:
        """The JSON object that the server answers with; {} where only its consent matters."""
        answer = await self.send(method, url, None if content is None else json.dumps(content).encode())
        if method != "GET":
            return {}
        try:
            found = json.loads(answer)
        except (ValueError, RuntimeError, MemoryError):  # the last two where it is nested too deeply
            found = None
        if not isinstance(found, dict):
            raise http.Failed(SERVER, "the server's JSON cannot be read")
        return found

    async def _download(self, url: str, limit: int):
        gc.collect()
        return (await http.whole(await self._ask_for(self._file(url)), limit))[0]

    # -- one look at the server ------------------------------------------------------------------
    async def poll(self) -> bool:
        """Does what the server's next action asks for. True when an update is staged and a restart due.

        Raises Refused, with NOTHING where the server has nothing (more) for us.
        """
        if not self.server:
            raise http.Failed(NETWORK, "no server in the settings")
        if self.engine.status()["phase"] == READY:
            return True
        try:
            return await self._dialogue()
        finally:
            self._line.close()

    async def _dialogue(self) -> bool:
        self._outcome()
        await self._deliver()
        courier = None
        if self.duties:
            from . import courier  # type: ignore[no-redef]

            await courier.hand_in(self)  # type: ignore[attr-defined]
        for _ in range(2):  # once more after a cancel or a confirmation
            root = await self._call("GET", self._root)
            asked = seconds(_get(root, "config", "polling", "sleep"))
            if asked:
                self.every = min(max(asked, MIN_SLEEP), MAX_SLEEP)
            await self._introduce(_href(root, "configData"))
            if courier and await courier.ordered(self, _href(root, "order")):  # type: ignore[unreachable]
                return True
            cancel, confirm, deploy = [_href(root, x) for x in ("cancelAction", "confirmationBase", "deploymentBase")]
            root = None
            if cancel:
                await self._cancel(cancel)
            elif confirm:
                await self._confirm(confirm)
            elif deploy:
                return await self._deploy(deploy)
            else:
                break
        raise http.Failed(NOTHING, "nothing new")

    async def _introduce(self, href: str) -> None:
        """Sends the attributes where the server wants them, and again when they have changed."""
        found = facts(self.engine, self.duties and self.duties.reporter)
        digest = "%08x" % _crc(json.dumps(sorted(found.items())))
        if not href and self._job.get("facts") == digest:
            return
        href = href or self._job.get("config", "")
        if not href:
            return  # the server has never said where
        try:
            await self._call("PUT", href, {"mode": "merge", "data": found})
        except http.Failed as failed:
            if not failed.status or failed.code == RETRY_LATER:
                raise
            self.say("sekisho: attributes refused (%s)" % failed.detail)  # which is no reason to miss an update
        if (self._job.get("facts"), self._job.get("config")) != (digest, href):
            self._job["facts"], self._job["config"] = digest, href
            self._save()

    # -- the action in hand ----------------------------------------------------------------------
    def _save(self) -> None:
        """Keeps the job; without a file system the server is told less, and the update goes on."""
        try:
            store.save(KEPT, json.dumps(self._job).encode())
        except Refused:
            self.say("sekisho: what the server is to be told cannot be kept")

    def _open(self, number: str, href: str) -> None:
        url = _feedback(href)
        if (self._job.get("id"), self._job.get("url")) != (number, url):
            kept = {key: self._job[key] for key in ("facts", "config", "done", "denied") if key in self._job}
            kept.update({"id": number, "url": url, "state": OPEN})
            self._job = kept
            self._said = {}

    def _outcome(self) -> None:
        """After the restart: how the update ended, in words for the server."""
        if self._job.get("state") != INSTALLING:
            return
        status = self.engine.status()
        if status["phase"] != IDLE:
            return  # the power went before it was staged: it is still being fetched
        code, digest, _ = status["last"]
        if str(hexlify(digest), "utf-8") != self._job.get("digest"):
            pair = status["pair"]
            code = 0 if pair and self._job.get("sequence") in pair[1:3] else NOTHING
        again = self._job.get("again", 0)
        if self._job.pop("offline", False) and kind(code) == "unproven" and again < MAX_AGAIN:
            self._job["state"], self._job["again"] = OPEN, again + 1
            self._save()
            self.say("sekisho: the trial met no network; release %d is tried again" % self._job.get("sequence", 0))
        else:
            self._close(code)

    def _reached(self, server: bool) -> None:
        """A dead access point or server: no evidence against the image on trial, as the old one is to know."""
        if self._job.get("state") == INSTALLING and server == bool(self._job.get("offline")):
            self._job["offline"] = not server
            self._save()

    def _close(self, code: int, detail: str = "") -> None:
        """Ends the action: what is to be said at last is kept until the server has heard it."""
        job = self._job
        text = ("release %d: " % job["sequence"] if job.get("sequence") else "") + (name(code) if code else "confirmed")
        job["final"] = _status("closed", "failure" if code else "success", code, text + (detail and ": " + detail))
        job["state"] = CLOSED
        job["ok"] = not code
        job["done"] = [job["id"], job.get("digest", "")]
        self._save()

    async def _deliver(self) -> None:
        """Sends what is still to be said at last. A server that does not want to hear it (any more) is left alone."""
        final = self._job.get("final")
        if not final:
            return
        self._line.close()  # on a fresh connection, since it must not be said twice
        try:
            await self._call("POST", self._job["url"], final)
        except http.Failed as failed:
            if failed.status not in FINAL:
                raise
            self.say("sekisho: the server does not take the result (%s)" % failed.detail)
        del self._job["final"]
        self._save()

    async def _say(self, execution: str, text: str, code: int = 0, quarters: int = 0) -> None:
        """Tells the server how far the action is, each thing once; it may fail."""
        if self._said.get(execution) == (code, text):
            return
        self._said[execution] = (code, text)
        try:
            await self._call("POST", self._job["url"], _status(execution, "none", code, text, quarters))
        except http.Failed as failed:
            if quarters and failed.status in (404, 410):
                raise http.Failed(RETRY_LATER, "the server takes the action back", MIN_SLEEP)
            self.say("sekisho: not told: %s (%s)" % (text, failed.detail))

    async def _progress(self) -> None:
        """Told where there is memory for a second connection; the words are those that gooseBit looks for."""
        gc.collect()
        if not self.ca or _room_for_tls():
            await self._say("proceeding", "Downloaded %d%%" % (25 * self._quarter), 0, self._quarter)
            self._line.close()

    # -- an order --------------------------------------------------------------------------------
    async def _read(self, href: str, what: str) -> str:
        """Reads an action (what: deployment or confirmation): its files and how it is to be done; returns its id."""
        order = await self._call("GET", href)
        number = order.get("id")
        chunks = _get(order, what, "chunks")
        if not isinstance(number, (str, int)) or not isinstance(chunks, list):
            raise http.Failed(SERVER, "the server's order cannot be read")
        self._how = (_get(order, what, "download"), _get(order, what, "update"))
        self._files = {}
        for chunk in chunks:
            for artifact in _get(chunk, "artifacts") or ():
                file, href = _get(artifact, "filename"), _href(artifact, "download", "download-http")
                if isinstance(file, str) and href and len(self._files) < MAX_FILES:
                    self._files[file] = href
                    if file.endswith(".suit"):
                        self._sum = _get(artifact, "hashes", "sha256")
        return str(number)

    async def _release(self):
        """The engine's plan for the one release among the files; an action may bring key sets alone."""
        found = [file for file in self._files if file.endswith(".suit")]
        if not found and any(map(_key_set, self._files)):
            raise http.Failed(self._stuck or NOTHING, "key set %d" % self.engine.status()["keyset"])
        if len(found) != 1:
            raise http.Failed(NOTHING, "%d releases in one action" % len(found), 0, _NOT_OURS)
        envelope = await self._download(self._files[found[0]], MAX_DOWNLOAD)
        if isinstance(self._sum, str) and self._sum != str(hexlify(sha256(envelope).digest()), "utf-8"):
            raise http.Failed(SERVER, "the server sent another file than it announced")
        plan = self._accept(envelope)
        for target in plan.targets:
            self._source(self._form(target))
        return plan

    def again(self) -> None:
        super().again()
        self._keysets = []

    async def _key_sets(self) -> None:
        """Hands the engine the key sets among the files that are newer than its own, in their order."""
        links = []
        self._stuck = 0
        for file, href in self._files.items():
            if _key_set(file) and href not in self._keysets:
                digits = file[6:-5].lstrip("-_")
                links.append((int(digits) if digits.isdigit() and len(digits) < 9 else 1 << 29, href))
        for number, href in sorted(links):
            have = self._lost or self.engine.status()["keyset"]
            try:
                if number > have:
                    document = await self._download(href, MAX_KEYSET)
                    if keyset_version(document) > have:
                        self._take_key_set(document, keyset_version(document))
            except Refused as refused:
                if refused.code in (NETWORK, RETRY_LATER):
                    raise
                self._refused_key_set(refused.code)
                self._stuck = refused.code
                continue  # and asked for again
            self._keysets = self._keysets[-MAX_FILES:]
            self._keysets.append(href)

    async def _deploy(self, href: str) -> bool:
        """What an operator wants installed."""
        number = await self._read(href, "deployment")
        self._open(number, href)
        self._href = href
        try:
            await self._key_sets()
            if self.duties:
                from . import courier

                if await courier.obey(self):
                    return True
            plan = await self._release()
            digest = str(hexlify(plan.digest), "utf-8")
            self._job["digest"], self._job["sequence"] = digest, plan.sequence
            if self._job.get("done") == [number, digest]:
                raise http.Failed(NOTHING, "action %s is closed" % number, 0, DONE)
            self._allow(plan)
            if self._how[0] == "skip" or (self._how[1] == "skip" and self._here == plan.digest):
                raise http.Failed(WINDOW, "the server says not now")
            if self._how[1] == "attempt" and self.ask(plan.sequence) is False:
                raise http.Failed(APPROVAL, "the application says not now")
            await self._say("download", "release %d" % plan.sequence)
            self._line.close()  # there is memory for one TLS connection
            return await self._install(plan)
        except http.Failed as failed:
            await self._account(failed, failed.detail, failed.status)
            raise
        except Refused as refused:
            await self._account(refused, "", 0)
            raise

    async def _account(self, refused, detail: str, status: int) -> None:
        """Tells the server why the release is not going to be installed, or not yet."""
        code = refused.code
        if code == NOTHING and status == _NOT_OURS:
            self._close(SERVER, detail)  # this action is not for devices of our kind
        elif code == NOTHING and status == 0:
            self._close(0, detail)  # runs already
        elif kind(code) == "permanent" and code != DECLINED:
            self._close(code, detail)
        else:
            if code not in (NOTHING, NETWORK):
                execution = "rejected" if code == DECLINED else "proceeding"
                await self._say(execution, name(code) + (detail and ": " + detail), code)
            return
        await self._deliver()

    def _source(self, form) -> str:
        digits = str(hexlify(form.digest), "utf-8")
        if digits not in self._files:
            raise http.Failed(NOTHING, "payload %s is not among the files" % digits[:16], 0, _NOT_OURS)
        return self._file(self._files[digits])

    async def _ready(self, plan) -> None:
        """The last word of the server before the point of no return."""
        self._here = plan.digest
        await self._say("downloaded", "release %d" % plan.sequence)
        files = self._files
        try:
            await self._read(self._href, "deployment")
        except http.Failed as failed:
            if failed.status in (404, 410):
                raise http.Failed(RETRY_LATER, "the server takes the action back", MIN_SLEEP)
            raise
        self._files = files
        if self._how[1] == "skip":
            raise http.Failed(WINDOW, "the server says not now")
        await super()._ready(plan)
        await self._say("proceeding", "installing release %d" % plan.sequence)
        self._job["state"] = INSTALLING
        self._save()

    # -- cancel and confirm ----------------------------------------------------------------------
    async def _cancel(self, href: str) -> None:
        """An operator takes an action back: granted as long as nothing of it runs."""
        order = await self._call("GET", href)
        stop = _get(order, "cancelAction", "stopId")
        if not isinstance(stop, (str, int)):
            raise http.Failed(SERVER, "the server's order cannot be read")
        job, url = self._job, _feedback(href)
        if job.get("id") == str(stop) and job.get("state") == CLOSED and job.get("ok"):
            text = "release %d runs already" % job.get("sequence", 0)
            await self._call("POST", url, _status("rejected", "none", 0, text))
            self._close(0)
            await self._deliver()
            return
        if self.engine.status()["phase"] == FETCHING:
            self.engine.abort(NOTHING)
        self._here = b""
        await self._call("POST", url, _status("closed", "success", 0, "nothing was installed"))
        self.say("sekisho: action %s cancelled" % stop)

    async def _confirm(self, href: str) -> None:
        """The server waits for this device's consent: given as the settings say, asked of people where they say so."""
        number = await self._read(href, "confirmation")
        code = status = 0
        try:
            await self._key_sets()
            self._allow(await self._release())
        except Refused as refused:
            code, status = refused.code, getattr(refused, "status", 0)
        if code in (NETWORK, RETRY_LATER, SERVER) or (code == NOTHING and status > DONE):
            raise http.Failed(code, "what is to be confirmed could not be read")
        if code == NOTHING and status != _NOT_OURS:
            code = 0  # runs already, which is said when it is deployed
        refuse = code == NOTHING or (code and kind(code) == "permanent")
        if code and not refuse and code != WINDOW:
            raise http.Failed(code, "action %s waits" % number)
        if refuse and self._job.get("denied") == number:
            raise http.Failed(DECLINED, "action %s was denied" % number)
        answer = {"confirmation": "denied" if refuse else "confirmed", "code": code, "details": [name(code)]}
        if not code:
            answer["details"] = ["by the settings of the device"]
        await self._call("POST", _feedback(href), answer)
        if refuse:
            self._job["denied"] = number
            self._save()
            raise http.Failed(DECLINED, "action %s was denied" % number)

    # -- on trial --------------------------------------------------------------------------------
    async def _answers(self) -> None:
        try:
            await self._call("GET", self._root)
        finally:
            self._line.close()


def _key_set(file: str) -> bool:
    return file.startswith("keyset") and file.endswith(".cose")


def _status(execution: str, finished: str, code: int, text: str, quarters: int = 0) -> dict:
    details = ["".join([c if " " <= c <= "~" else "?" for c in text])[:480]]
    result: dict = {"finished": finished}
    if quarters:
        result["progress"] = {"cnt": quarters, "of": 4}
    return {"status": {"execution": execution, "result": result, "code": code, "details": details}}


def _room_for_tls() -> bool:
    """A connection takes about 26 KB of ESP-IDF's heap, the largest block of it 17 KB; twice that is to stay free."""
    try:
        from esp32 import HEAP_DATA, idf_heap_info

        heaps = idf_heap_info(HEAP_DATA)
    except ImportError:
        return True
    return sum([heap[1] for heap in heaps]) >= TLS_ROOM and max([heap[2] for heap in heaps]) >= TLS_ROOM // 3


def _crc(text: str) -> int:
    from binascii import crc32

    return crc32(text.encode())
