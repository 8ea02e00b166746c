"""What the console answers: routes, log-in, sessions, forms. Loaded with the first connection.

No script and no style but its own file, nothing from elsewhere: the policy in every answer forbids the rest. Every form
carries the token of its session, and the browser says where it came from.
"""

import gc

from microdot import Microdot, Request, Response  # type: ignore[import-not-found]
from micropython import const
from sekisho_boot.reasons import BACKUP, LIMIT, Refused, name

from . import clock, console, console_form, console_pages, delay, eventlog, offline, policy
from .accounts import Denied
from .console_files import bring
from .console_words import said
from .values import ADMIN, USER, entry
from .wifi import MAX_NETWORKS

Request.max_content_length = console.MAX_UPLOAD
Request.max_body_length = console.MAX_BODY
Request.max_readline = console.MAX_LINE

HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Connection", "close"),
)
WITHOUT_LOGIN = ("/", "/login", "/style.css", "/language")
ROUTES = (  # name of a page, method for GET, method for POST
    ("", "state", ""),
    ("language", "language", ""),
    ("style.css", "style", ""),
    ("login", "to_start", "login"),
    ("logout", "", "logout"),
    ("password", "password", "change_password"),
    ("accounts", "others", "change_other"),
    ("update", "to_start", "decide"),
    ("look", "to_start", "look"),
    ("settings", "form", "change"),
    ("restore", "", "restore"),
    ("backup", "to_settings", "back_up"),
    ("putback", "to_settings", "put_back"),
    ("wifi", "networks", "join"),
    ("files", "files", "bring"),
    ("log", "log", ""),
    ("log.bin", "export", ""),
)
WITH_FILES = ("/files", "/putback")
COOKIE = "HttpOnly; SameSite=Strict; Path=/"
_ENTRIES = const(20)  # of the log on a page
_DAY = const(86400)
_POSTPONED = ("1", "3", "7")  # days that people may put an update off


class Stop(Exception):
    """Ends a request with this answer."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def redirect(where: str, *cookies):
    """An answer that leads the browser to *where*."""
    return Response("", 303, {"Location": where, "Set-Cookie": list(cookies)})


class Web:
    """The pages of one `console.Console`."""

    def __init__(self, owner: console.Console) -> None:
        self.console = owner
        self.agent, self.duties, self.accounts = owner.agent, owner.duties, owner.accounts
        self.settings = owner.duties.settings
        self.engine = owner.duties.engine
        self.missing: list = []  # what is still to be brought of a release
        self.checking = None  # task that checks a release which has come as a whole
        self.refused = ""  # why it was not taken
        try:
            offline()  # loaded now, while the heap is in one piece
        except (ImportError, OSError):
            pass
        app = self.app = Microdot()
        app.before_request(self._before)
        app.after_request(self._after)
        app.after_error_request(self._after)
        app.errorhandler(Stop)(self._stopped)
        both = ["GET", "POST"]
        app.route("/", both)(self._route)
        app.route("/<name>", both)(self._route)

    async def _route(self, request, name: str = ""):
        """One route of microdot's for all pages: every further one would take 500 bytes of heap."""
        for path, get, post in ROUTES:
            if path == name:
                handler = post if request.method == "POST" else get
                if not handler:
                    return Response("", 405)
                return await getattr(self, handler)(request)
        return Response("", 404)

    # -- before and after every request -------------------------------------------------------------------

    async def _before(self, request):
        headers = request.headers
        host = headers.get("Host", "")
        if not _our_name(host):
            return Response("", 421)  # a name that somebody pointed here (DNS rebinding)
        if request.method == "POST":
            if headers.get("Origin", "http://" + host) != "http://" + host:
                return Response("", 403)
            if headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
                return Response("", 403)
        wanted = request.cookies.get("l") or headers.get("Accept-Language", "")
        request.g.ja = wanted[:2] == "ja"
        session = request.g.session = self.accounts.session(request.cookies.get("s", ""))
        if request.content_length > console.MAX_BODY and (not session or request.path not in WITH_FILES):
            return Response("", 413)
        if session is None:
            if request.path not in WITHOUT_LOGIN:
                return redirect("/")
        elif session.change and request.path not in ("/password", "/logout", "/style.css", "/language"):
            return redirect("/password")
        gc.collect()
        return None

    async def _after(self, request, response):
        for key, value in HEADERS:
            response.headers[key] = value
        if "Cache-Control" not in response.headers:
            response.headers["Cache-Control"] = "no-store"
        if "Content-Type" not in response.headers:
            response.headers["Content-Type"] = "text/html; charset=UTF-8"
        if request and request.sock:
            request.sock[0].more()
        return response

    async def _stopped(self, request, stop):
        return Response("", stop.status)

    def _form(self, request):
        """The fields of a form of this very session."""
        try:
            form = request.form
        except ValueError:  # UnicodeError is one
            form = None
        session = request.g.session
        if form is None:
            raise Stop(400)
        if session and not _same(form.get("csrf", ""), session.csrf):
            raise Stop(403)
        return form

    def _page(self, request, title: str, content, status: int = 200, refresh: int = 0):
        page = console_pages.page(self, request.g.session, request.g.ja, title, content, refresh)
        return Response(_pieces(page, request.sock[0]), status)

    def _admin(self, request) -> None:
        if request.g.session.role < ADMIN:
            raise Stop(403)

    # -- without a log-in ---------------------------------------------------------------------------------

    async def state(self, request):
        if request.g.session is None:
            return self._page(request, "Log in", console_pages.start(self, request.g.ja, ""))
        content = console_pages.state(self, request.g.session, request.g.ja)
        return self._page(request, "State", content, 200, 5 if self.agent.busy else 0)

    async def to_start(self, request):
        return redirect("/")

    async def language(self, request):
        chosen = "ja" if request.args.get("to") == "ja" else "en"
        return redirect("/", "l=%s; Max-Age=31536000; %s" % (chosen, COOKIE))

    async def style(self, request):
        return Response(console_pages.STYLE, 200, {"Content-Type": "text/css", "Cache-Control": "max-age=3600"})

    async def login(self, request):
        form = self._form(request) if request.g.session is None else {}
        try:
            request.sock[0].more(60)  # the slow hash is slow
            session = await self.accounts.login(form.get("name", ""), form.get("password", ""))
        except Denied as denied:
            words = "Too many attempts. Seconds to wait:" if denied.wait else "Wrong name or password."
            words = said(words, request.g.ja) + (" %d" % denied.wait if denied.wait else "")
            content = console_pages.start(self, request.g.ja, words)
            return self._page(request, "Log in", content, 429 if denied.wait else 401)
        return redirect("/password" if session.change else "/", "s=%s; %s" % (session.id, COOKIE))

    # -- accounts -----------------------------------------------------------------------------------------

    async def logout(self, request):
        self._form(request)
        self.accounts.end(request.g.session)
        return redirect("/", "s=; Max-Age=0; " + COOKIE)

    async def password(self, request):
        return self._page(request, "Change password", console_pages.password(request.g.session, request.g.ja, ""))

    async def change_password(self, request):
        form, session = self._form(request), request.g.session
        request.sock[0].more(60)
        wrong = await self._set(session.role, form, session.change)
        if wrong:
            return self._page(request, "Change password", console_pages.password(session, request.g.ja, wrong), 400)
        again = await self.accounts.login(_name(session.role), form.get("new", ""))
        again.note = "Saved."
        return redirect("/" if self.settings.get("wifi") else "/wifi", "s=%s; %s" % (again.id, COOKIE))

    async def _set(self, role: int, form, first: bool) -> str:
        """Gives an account the password of a form; returns why not, or ""."""
        new = form.get("new", "")
        if new != form.get("again", ""):
            return "the two are not the same"
        wrong = self.accounts.weakness(new)
        if wrong:
            return wrong
        if not first and not await self.accounts.check(role, form.get("now", "")):
            return "wrong password"
        try:
            await self.accounts.set_password(role, new)
        except Refused:
            return "not possible"
        return ""

    async def others(self, request):
        self._admin(request)
        return self._page(request, "Accounts", console_pages.others(self, request.g.session, request.g.ja, ""))

    async def change_other(self, request):
        """The administrator gives the user an account, or takes it away."""
        form, session = self._form(request), request.g.session
        self._admin(request)
        request.sock[0].more(60)
        try:
            if form.get("do") == "away":
                await self.accounts.set_password(USER, "")
                wrong = ""
            else:
                wrong = await self._set(USER, form, True)
        except Refused:
            wrong = "not possible"
        if wrong:
            return self._page(request, "Accounts", console_pages.others(self, session, request.g.ja, wrong), 400)
        session.note = "Saved."
        return redirect("/accounts")

    # -- updates ------------------------------------------------------------------------------------------

    async def look(self, request):
        self._form(request)
        self.agent.again()
        self.agent.call()
        request.g.session.note = "The device looks for updates now."
        return redirect("/")

    async def decide(self, request):
        form, session = self._form(request), request.g.session
        session.note = self._decide(form, session.role)
        return redirect("/")

    def _decide(self, form, role: int) -> str:
        offer, what = self.console.offer, form.get("do")
        if not offer or form.get("release") != console_pages.hexed(offer[0]):
            return "This release is not offered any more."
        if what not in choices(self.settings.get("update_start"), role):
            return "Only an administrator may decide."
        number, until, words = policy.APPROVE, 0, "The device installs it now and restarts."
        if what == "refuse":
            number, words = policy.REFUSE, "The update is refused."
        elif what == "later":
            days = form.get("days")
            until = int(days if days in _POSTPONED else "1") * _DAY
            number, words = policy.DELAY, "The update waits; only the time that the device is on counts."
            if clock.trusted():
                number, words = policy.POSTPONE, "The update waits."
                until += self.engine.now()
        try:
            if not self.duties.record.decide(offer[0], number, until, role):
                return "An operator has decided on this update."
        except Refused:
            return "not possible"
        self.duties.log.append(eventlog.DECIDED, 0, number, offer[0])
        delay.begin(self.agent)
        self.agent.again()
        self.agent.call()
        return words

    # -- settings -----------------------------------------------------------------------------------------

    async def form(self, request):
        content = console_pages.settings(self, request.g.session, request.g.ja)
        return self._page(request, "Settings", content)

    async def change(self, request):
        form, session = self._form(request), request.g.session
        found, wrong = console_form.changes(self.settings, session.role, form)
        if wrong:
            content = console_pages.settings(self, session, request.g.ja, form, wrong)
            return self._page(request, "Settings", content, 400)
        session.note = self._keep(found, session.role) or ("Saved." if found else "Nothing was changed.")
        return redirect("/settings")

    def _keep(self, found: dict, role: int) -> str:
        """Changes settings and lets the device go on with them; returns why not, or ""."""
        if not found:
            return ""
        try:
            self.settings.change(found, role)
        except Refused:
            return "not possible"
        self.duties.reload(self.agent)
        self.agent.call()
        return ""

    async def restore(self, request):
        """Back to the secure defaults of the key set (STS06)."""
        self._form(request)
        self._admin(request)
        try:
            secure = self.engine.keyset().settings
            from .cbor import decode

            self.settings.restore(decode(secure) if secure is not None else None, request.g.session.role)
            self.duties.reload(self.agent)
            request.g.session.note = "Saved."
        except Refused as refused:
            request.g.session.note = name(refused.code)
        return redirect("/settings")

    async def to_settings(self, request):
        return redirect("/settings")

    async def back_up(self, request):
        """All settings as a file that only the passphrase opens (STS10)."""
        form, session = self._form(request), request.g.session
        self._admin(request)
        if form.get("passphrase", "") != form.get("again", ""):
            session.note = "the two are not the same"
            return redirect("/settings")
        request.sock[0].more(60)
        try:
            sealed = self.duties.backup(form.get("passphrase", ""))
        except Refused as refused:
            session.note = _backup_words(refused.code)
            return redirect("/settings")
        head = {"Content-Type": "application/octet-stream"}
        head["Content-Disposition"] = 'attachment; filename="settings.backup"'
        return Response(sealed, 200, head)

    async def put_back(self, request):
        """A backup comes back: passphrase and file."""
        session = request.g.session
        self._admin(request)
        try:
            parts = await self._parts(request)
            if await parts.part() != (b"passphrase", False):
                return Response("", 400)
            passphrase = await parts.text()
            found = await parts.part()
            if not found or not found[1]:
                return Response("", 400)
            document = await parts.content(b"", console.MAX_BACKUP)
            request.sock[0].more(60)
            self.duties.put_back(passphrase, document, session.role, self.agent)
            session.note = "Saved."
            self.agent.call()
        except Refused as refused:
            session.note = _backup_words(refused.code)
        except (ValueError, OSError):
            session.note = "the file is empty or broke off"
        return redirect("/settings")

    async def networks(self, request):
        self._admin(request)
        return self._page(request, "Wi-Fi", console_pages.networks(self, request.g.session, request.g.ja, _scan()))

    async def join(self, request):
        form, session = self._form(request), request.g.session
        self._admin(request)
        ssid = form.get("other", "") or form.get("ssid", "")
        known = [pair for pair in self.settings.get("wifi", True) if pair[0] != ssid]
        line = entry("wifi")
        if not ssid or not console_form.may(self.settings, line, session.role):
            session.note = "not possible"
            return redirect("/wifi")
        wanted = [[ssid, form.get("key", "")]] + known[: MAX_NETWORKS - 1]
        session.note = (
            self._keep({"wifi": wanted}, session.role) or "The device tries it now; it is kept once it has worked."
        )
        return redirect("/")

    # -- files --------------------------------------------------------------------------------------------

    async def files(self, request):
        content = console_pages.files(self, request.g.session, request.g.ja)
        return self._page(request, "Files", content, 200, 3 if self.checking else 0)

    async def _parts(self, request):
        """The parts of a form with a file, after the token of this session. ValueError, OSError where it is none."""
        link = request.sock[0]
        if request.content_length <= console.MAX_BODY:
            link = _Held(request.body, link)
        parts = console_form.Parts(link, request.content_type or "")
        if await parts.part() != (b"csrf", False) or not _same(await parts.text(), request.g.session.csrf):
            raise Stop(403)
        return parts

    async def bring(self, request):
        """A file comes in: the door judges it as if it came from the server."""
        session = request.g.session
        try:
            parts = await self._parts(request)
            found = await parts.part()
            if not found or not found[1]:
                return Response("", 400)
            self.refused = ""
            session.note = await bring(self, parts, request.g.ja)
        except Refused as refused:
            session.note = said("Refused:", request.g.ja) + " " + name(refused.code)
        except (ValueError, OSError):
            session.note = "the file is empty or broke off"
        return redirect("/files")

    # -- the log ------------------------------------------------------------------------------------------

    async def log(self, request):
        self._admin(request)
        last = self.duties.log.number
        wanted = request.args.get("before", "")
        if wanted.isdigit() and len(wanted) < 10:
            last = min(last, int(wanted))
        content = console_pages.log(self, request.g.session, request.g.ja, last, _ENTRIES)
        return self._page(request, "Log", content)

    async def export(self, request):
        self._admin(request)
        head = {"Content-Type": "application/octet-stream"}
        head["Content-Disposition"] = 'attachment; filename="events.bin"'
        return Response(self.duties.log.export(), 200, head)


class _Held:
    """A small body that is in memory already, read like a long one."""

    def __init__(self, body, link) -> None:
        self._body, self.more = body, link.more

    async def readinto(self, view) -> int:
        if not self._body:
            raise OSError(104)
        got = min(len(view), len(self._body))
        view[:got] = self._body[:got]
        self._body = self._body[got:]
        return got


def _backup_words(code: int) -> str:
    if code == BACKUP:
        return "wrong passphrase, or the file is damaged"
    return "at least 12 characters" if code == LIMIT else name(code)


def choices(start: str, role: int) -> tuple:
    """What somebody of this role may say on an update, given the setting `update_start`."""
    if role >= ADMIN:
        return ("now", "later", "refuse")
    return {"automatic": ("now", "later"), "user": ("now", "later", "refuse")}.get(start, ())


def _pieces(page, link):
    """The texts of *page* in pieces that a connection likes; each one sent gives it more time."""
    gathered, size = [], 0
    for text in page:
        gathered.append(text)
        size += len(text)
        if size > 700:
            link.more()
            yield "".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield "".join(gathered)


def _our_name(host: str) -> bool:
    """Whether a Host header names this device: an address, or its own name."""
    host = host.split(":")[0].lower()
    if host.replace(".", "").isdigit() or host == "localhost":
        return True
    import network

    own = network.hostname().lower()
    return host in (own, own + ".local")


def _same(one: str, other: str) -> bool:
    from .seal import same

    return same(one.encode(), other.encode())


def _name(role: int) -> str:
    from .accounts import NAMES

    return NAMES[role]


def _scan() -> list:
    """[(name, dBm, whether it is open)] of the networks in reach, the strongest first."""
    import network

    station = network.WLAN(network.STA_IF)
    found: dict = {}
    try:
        station.active(True)
        if not station.isconnected():
            station.disconnect()  # while it tries a network that is not there the driver finds nothing
        for one in station.scan():
            try:
                ssid = str(one[0], "utf-8")
            except (UnicodeError, ValueError):
                continue
            if ssid and (ssid not in found or found[ssid][1] < one[3]):
                found[ssid] = (ssid, one[3], one[4] == 0)
    except OSError:
        pass
    return sorted(found.values(), key=lambda one: -one[1])[:12]
