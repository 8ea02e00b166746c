"""The console's HTML, in pieces, so that no page is ever in memory as a whole. Every text that is not ours is escaped.

The functions yield texts; what they are given is the `console_web.Web`, the session, and whether to speak Japanese.
"""

import sys
from binascii import hexlify
from struct import unpack_from

from micropython import const
from sekisho_boot.ledger import FETCHING, READY
from sekisho_boot.reasons import name

from . import console_form, delay, policy, syslog
from .console_files import COMPONENTS
from .console_form import escape
from .console_words import LOOKS, label, said
from .values import ADMIN, USER

STYLE = b"""
:root{color-scheme:light dark;--a:#0b6e4f;--b:#b3261e;--l:#8884;--e:#767676;--p:#f6f7f9;--s:#555}
@media(prefers-color-scheme:dark){:root{--a:#57c99d;--b:#ff8a80;--e:#8a8a8a;--p:#23262b;--s:#bbb}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:44rem;padding:0 1rem 3rem;font:1rem/1.5 system-ui,sans-serif}
header{display:flex;flex-wrap:wrap;gap:.2rem 1rem;align-items:center;justify-content:space-between;padding:.8rem 0}
header b{font-size:1.15rem}
nav{display:flex;flex-wrap:wrap;gap:.2rem .2rem;border-bottom:1px solid var(--l);padding-bottom:.4rem}
nav a{padding:.45rem .7rem;border-radius:.4rem;text-decoration:none}
nav a.h{background:var(--a);color:Canvas}
a{color:var(--a)}
h1{font-size:1.4rem;margin:1.2rem 0 .6rem}
h2{font-size:1.1rem;margin:1.6rem 0 .4rem}
section{background:var(--p);border-radius:.6rem;padding:.3rem 1rem 1rem;margin:1rem 0}
dl{display:grid;grid-template-columns:fit-content(45%) 1fr;gap:.25rem 1rem;margin:.5rem 0}
dt,small,footer{color:var(--s)}
dd{margin:0;overflow-wrap:anywhere}
p.n{border-left:.3rem solid var(--a);padding:.5rem .8rem;background:var(--p);overflow-wrap:anywhere}
p.b{border-color:var(--b)}
.t{white-space:pre-line}
label,.f>b,.f>small{display:block}
.f>b{font-weight:inherit}
:focus-visible{outline:3px solid var(--a);outline-offset:2px}
.f{margin:.9rem 0}
.bad{border-left:.3rem solid var(--b);padding-left:.6rem}
input,select,textarea,button{font:inherit;padding:.55rem .6rem;border:1px solid var(--e);border-radius:.4rem}
input,select{max-width:100%}
input[type=text],input[type=password],input[type=number],select,textarea{width:100%}
input[type=checkbox],input[type=radio]{width:1.2rem;height:1.2rem;margin:0 .5rem 0 0;vertical-align:-.2rem}
.c label,.r label{padding:.35rem 0}
.w{display:flex;gap:.5rem;margin:.3rem 0}
button{background:var(--a);color:Canvas;border:0;padding:.65rem 1.1rem;margin:.3rem .3rem .3rem 0;cursor:pointer}
button.s{background:none;color:inherit;border:1px solid var(--e)}
.i{display:inline-flex;gap:.3rem;align-items:center;flex-wrap:wrap}
.i select{width:auto}
table{border-collapse:collapse;width:100%;font-size:.85rem;white-space:nowrap}
td:nth-child(2){white-space:normal}
td,th{text-align:left;padding:.45rem .5rem .45rem 0;border-bottom:1px solid var(--l);vertical-align:top}
.x{overflow-x:auto}
footer{margin-top:2rem;font-size:.85rem}
"""
_SHOWN = const(8)  # bytes of a digest that people compare


def hexed(data) -> str:
    """Bytes as people and forms carry them."""
    return str(hexlify(data), "utf-8")


def page(web, session, ja: bool, title: str, content, refresh: int):
    """The frame around *content*, an iterable of texts."""
    product = escape(getattr(web.console.config, "PRODUCT", "") or "Sekisho")
    yield '<!doctype html><html lang="%s"><head><meta charset="utf-8">' % ("ja" if ja else "en")
    yield '<meta name="viewport" content="width=device-width,initial-scale=1">'
    if refresh:
        yield '<meta http-equiv="refresh" content="%d">' % refresh
    yield "<title>%s - %s</title>" % (escape(said(title, ja)), product)
    yield '<link rel="icon" href="data:,"><link rel="stylesheet" href="/style.css"></head><body>'
    other = ("en", "en", "English") if ja else ("ja", "ja", "日本語")
    yield '<header><b>%s</b><a href="/language?to=%s" lang="%s">%s</a></header>' % ((product,) + other)
    if session and not session.change:
        yield "<nav>"
        for path, words, role in (
            ("/", "State", USER),
            ("/settings", "Settings", USER),
            ("/files", "Files", USER),
            ("/wifi", "Wi-Fi", ADMIN),
            ("/log", "Log", ADMIN),
            ("/accounts", "Accounts", ADMIN),
        ):
            if session.role >= role:
                here = ' class="h" aria-current="page"' if words == title else ""
                yield '<a href="%s"%s>%s</a>' % (path, here, said(words, ja))
        yield "</nav>"
    yield "<main><h1>%s</h1>" % escape(said(title, ja))
    if session and session.note:
        yield '<p class="n" role="status">%s</p>' % escape(said(session.note, ja))
        session.note = ""
    for piece in content:
        yield piece
    yield "</main>"
    if session:
        yield "<footer>"
        if not session.change:
            yield '<a href="/password">%s</a> · ' % said("Change password", ja)
        yield said("This page is not encrypted: use it on a network that you trust.", ja)
        yield _form("/logout", session) + _button("Log out", ja, "s") + "</form></footer>"
    yield "</body></html>"


def _form(path: str, session, more: str = "") -> str:
    token = '<input type="hidden" name="csrf" value="%s">' % session.csrf if session else ""
    return '<form method="post" action="%s"%s>%s' % (path, more, token)


def _button(words: str, ja: bool, kind: str = "", value: str = "") -> str:
    kind = ' class="%s"' % kind if kind else ""
    value = ' name="do" value="%s"' % value if value else ""
    return "<button%s%s>%s</button>" % (kind, value, said(words, ja))


def _secret(field: str, words: str, ja: bool, how: str, least: int = 0, number: str = "") -> str:
    number = number or field
    more = ' minlength="%d"' % least if least else ""
    return (
        '<div class="f"><label for="%s">%s</label>'
        '<input id="%s" name="%s" type="password" required autocomplete="%s"%s></div>'
        % (number, said(words, ja), number, field, how, more)
    )


def _wrong(words: str, ja: bool) -> str:
    return '<p class="n b" role="alert">%s</p>' % escape(said(words, ja)) if words else ""


def _row(words: str, ja: bool, value) -> str:
    return "<dt>%s</dt><dd>%s</dd>" % (said(words, ja), escape(value))


# -- without a log-in --------------------------------------------------------------------------------------


def start(web, ja: bool, wrong: str):
    """All that is shown to anybody: whether the device is well, and where to log in."""
    public = web.duties.reporter.public()
    words = "This device is as it should be." if public["well"] else "Something is wrong with this device."
    yield '<p class="n%s">%s' % ("" if public["well"] else " b", said(words, ja))
    if public["trial"]:
        yield " " + said("An update is on trial.", ja)
    yield "</p>" + _wrong(wrong, ja) + "<section>" + _form("/login", None)
    yield '<div class="f"><label for="name">%s</label><select id="name" name="name">' % said("Name", ja)
    for role in ("administrator", "user"):
        yield '<option value="%s">%s</option>' % (role, said(role, ja))
    yield "</select></div>" + _secret("password", "Password", ja, "current-password")
    yield _button("Log in", ja) + "</form></section>"
    if not web.accounts.has(ADMIN):
        yield "<p>%s</p>" % said("First log-in: administrator, with the secret from the label.", ja)
    yield "<footer>%s</footer>" % said("This page is not encrypted: use it on a network that you trust.", ja)


# -- accounts ----------------------------------------------------------------------------------------------


def password(session, ja: bool, wrong: str):
    """Somebody on the own password."""
    yield _wrong(wrong, ja)
    if session.change:
        yield "<p>%s</p>" % said("The secret from the label must be changed before anything else.", ja)
    yield "<section>" + _form("/password", session)
    if not session.change:
        yield _secret("now", "Password now", ja, "current-password")
    yield _new(ja) + "</form></section>"


def _new(ja: bool) -> str:
    return (
        "<p>%s</p>" % said("At least 10 characters, 5 different ones.", ja)
        + _secret("new", "New password", ja, "new-password")
        + _secret("again", "Once more", ja, "new-password")
        + _button("Save", ja)
    )


def others(web, session, ja: bool, wrong: str):
    """The administrator on the account of the user."""
    has = web.accounts.has(USER)
    yield _wrong(wrong, ja) + "<h2>%s</h2>" % said("Account of the user", ja)
    if not has:
        yield "<p>%s</p>" % said("There is no such account yet.", ja)
    yield "<section>" + _form("/accounts", session) + _new(ja) + "</form></section>"
    if has:
        yield _form("/accounts", session) + _button("Take the account away", ja, "s", "away") + "</form>"


# -- the state ---------------------------------------------------------------------------------------------


def state(web, session, ja: bool):
    """What runs, what is offered, what is wrong."""
    import sekisho

    status = sekisho.status()
    settings, reporter = web.settings, web.duties.reporter
    for piece in _complaints(status, ja):
        yield _wrong(piece, ja)
    yield "<section><h2>%s</h2>" % said("Update", ja)
    for piece in _update(web, session, status, ja):
        yield piece
    yield "<dl>" + _row("Last look at the server", ja, _look(web, status, ja))
    if status["last"][2]:
        result = said(status["last result"], ja) if status["last result"] else "-"
        yield _row("Last update", ja, "%s %d: %s" % (said("Release", ja), status["last"][2], result))
    when = settings.get("update_window") or said("any time", ja)
    enabled = said("yes" if settings.get("update_enabled") else "no", ja)
    starts = said(settings.get("update_start"), ja)
    for setting, value in (("update_enabled", enabled), ("update_start", starts), ("update_window", when)):
        yield _row(label(setting, ja), ja, value)
    yield "</dl>"
    yield _form("/look", session) + _button("Look for updates", ja, "s") + "</form></section>"
    pair = status["pair"]
    yield "<section><h2>%s</h2><dl>" % said("Device", ja)
    yield _row("Product", ja, getattr(web.console.config, "PRODUCT", ""))
    yield _row("Device", ja, hexed(web.engine.port.device))
    yield _row("Firmware", ja, "%s %d" % (said("Release", ja), pair[1] if pair else status["counters"][0]))
    if pair and pair[2]:
        yield _row("Application", ja, "%s %d" % (said("Release", ja), pair[2]))
    yield _row("Key set", ja, status["keyset"])
    yield _row("Mode", ja, said("production" if reporter.production() else "development", ja))
    yield _row("Network", ja, _network() or "-")
    yield _row("Interfaces", ja, ", ".join(reporter.open))
    now, right = reporter.clock()
    yield _row("Time", ja, when_text(now, settings.get("utc_offset")) if right else said("not known", ja))
    yield "</dl></section>"


def _complaints(status: dict, ja: bool):
    found = []
    if status["degraded"]:
        found.append(name(status["degraded"]))
    if status["locked"]:
        found.append("locked")
    if status["fault"]:
        found.append("engine-fault")
    found += ["mount:" + one for one in status["mounts"]]
    if found:
        yield said("Wrong", ja) + ": " + ", ".join(found)
    safe = sys.modules.get("sekisho.safe")
    if safe and safe.why():
        yield said("The application does not run:", ja) + " " + safe.why()


def _look(web, status: dict, ja: bool) -> str:
    code, words = status["poll"], web.agent.detail
    for known, plain in LOOKS:
        if known == code:
            return said(plain, ja)
    return said(code, ja) + (" (%s)" % words if words else "")


def _update(web, session, status: dict, ja: bool):
    from .console_web import choices

    offer = web.console.offer
    if offer and offer[1] in (status["pair"] or status["counters"]) and status["phase"] not in (FETCHING, READY):
        offer = web.console.offer = None  # it runs by now
    if not offer:
        yield "<p>%s</p>" % said("An update is on trial." if status["trial"] else "Nothing new.", ja)
        return
    yield "<p><b>%s %d %s</b></p>" % (said("Release", ja), offer[1], said("is available", ja))
    words = offer[2].get("ja" if ja else "en", "")
    if words:
        yield '<p class="t">%s</p>' % escape(words)
    decided = web.duties.record.decision(offer[0])
    if decided:
        yield "<p>%s %s</p>" % (said("Decided:", ja), escape(_decision(web, decided, ja)))
    if status["trial"] or status["phase"] == READY:
        return
    may = choices(web.settings.get("update_start"), session.role)
    if decided and decided[2] > session.role:
        may = ()
        yield "<p>%s</p>" % said("An operator has decided on this update.", ja)
    elif not may:
        yield "<p>%s</p>" % said("Only an administrator may decide.", ja)
    else:
        yield _form("/update", session) + '<input type="hidden" name="release" value="%s">' % hexed(offer[0])
    if "now" in may:
        yield _button("Install now", ja, "", "now")
    if "refuse" in may:
        yield _button("Refuse", ja, "s", "refuse")
    if "later" in may:
        yield '<span class="i">' + _button("Later", ja, "s", "later")
        yield '<select name="days" aria-label="%s">' % said("Later", ja)
        for days in (1, 3, 7):
            yield '<option value="%d">%d %s</option>' % (days, days, said("day" if days == 1 else "days", ja))
        yield "</select></span>"
    if may:
        yield "</form>"


def _decision(web, decided: tuple, ja: bool) -> str:
    what, until, _ = decided
    if what == policy.POSTPONE:
        when = when_text(until, web.settings.get("utc_offset"))
        return "%s (%s %s)" % (said("later", ja), said("until", ja), when)
    if what == policy.DELAY:
        return "%s (%d %s)" % (said("later", ja), -(-delay.left(web.agent, until) // 3600), said("h left", ja))
    return said("yes" if what == policy.APPROVE else "no", ja)


def _network() -> str:
    network = sys.modules.get("network")
    if not network:
        return ""
    station = network.WLAN(network.STA_IF)
    if not station.isconnected():
        return ""
    return "%s, %s" % (station.config("ssid"), station.ifconfig()[0])


def when_text(seconds: int, offset: int) -> str:
    """A time (s since 1970) as people read it, *offset* minutes ahead of UTC."""
    return syslog.timestamp(max(0, seconds + offset * 60))[:16].replace("T", " ")


# -- settings ----------------------------------------------------------------------------------------------


def settings(web, session, ja: bool, posted=None, wrong=()):
    """The form out of the schema; *posted* and *wrong* after a try that failed."""
    if wrong:
        names = ", ".join([label(one, ja) for one in wrong])
        yield _wrong(said("This cannot be:", ja) + " " + names, ja)
    yield _form("/settings", session)
    for piece in console_form.fields(web.settings, session.role, ja, posted, wrong):
        yield piece
    yield _button("Save", ja) + "</form>"
    if session.role >= ADMIN:
        yield "<h2>%s</h2>" % said("Secure defaults", ja) + _form("/restore", session)
        yield _button("Set every setting to its secure default", ja, "s") + "</form>"
        yield '<h2 id="backup">%s</h2>' % said("Backup", ja)
        yield "<p>%s</p>" % said("All settings, passphrases among them, in a file that only its passphrase opens.", ja)
        yield "<section>" + _form("/backup", session) + _secret("passphrase", "Passphrase", ja, "new-password", 12)
        yield "<small>%s</small>" % said("at least 12 characters", ja)
        yield _secret("again", "Once more", ja, "new-password", 12)
        yield _button("Take a backup", ja, "s") + "</form></section>"
        yield "<section>" + _form("/putback", session, ' enctype="multipart/form-data"')
        yield _secret("passphrase", "Passphrase", ja, "off", 12, "putback")
        yield '<div class="f"><label for="file">%s</label>' % said("File", ja)
        yield '<input id="file" name="file" type="file" required></div>'
        yield _button("Put a backup back", ja, "s") + "</form></section>"


def networks(web, session, ja: bool, found):
    """The networks in reach, to choose one."""
    yield _form("/wifi", session) + '<section class="r"><h2>%s</h2>' % said("Networks in reach", ja)
    for ssid, strength, open_ in found:
        words = "%d dBm%s" % (strength, ", " + said("open", ja) if open_ else "")
        row = (escape(ssid), escape(ssid), words)
        yield '<label><input type="radio" name="ssid" value="%s">%s <small>%s</small></label>' % row
    yield '<div class="f"><label for="other">%s</label>' % said("Other", ja)
    yield '<input id="other" name="other" type="text" maxlength="32"></div>'
    yield '<div class="f"><label for="key">%s</label>' % said("Passphrase", ja)
    yield '<input id="key" name="key" type="password" maxlength="64" autocomplete="off"></div>'
    yield _button("Save", ja) + "</section></form>"


# -- files and the log -------------------------------------------------------------------------------------


def files(web, session, ja: bool):
    """Where files are brought."""
    words = "An order, a key set, a release (.suit) or its payload. It is judged as if it came from the server."
    yield "<p>%s</p>" % said(words, ja)
    if web.refused:
        yield _wrong(said("Refused:", ja) + " " + said(web.refused, ja), ja)
    if web.missing:
        yield "<section><ul>"
        for component, digest, size in web.missing:
            row = (COMPONENTS[component], size, said("bytes", ja), hexed(digest[:_SHOWN]))
            yield "<li>%s: %d %s, SHA-256 %s…</li>" % row
        yield "</ul></section>"
    yield "<section>" + _form("/files", session, ' enctype="multipart/form-data"')
    yield '<div class="f"><label for="file">%s</label><input id="file" name="file" type="file" required></div>' % said(
        "File", ja
    )
    yield _button("Send", ja) + "</form></section>"


def log(web, session, ja: bool, last: int, count: int):
    """The *count* entries up to number *last*, newest first."""
    offset = web.settings.get("utc_offset")
    newest = web.duties.log.number
    rows = []
    for entry in web.duties.log.entries(max(0, last - count)):
        number, when, event, reason, right, _, value = unpack_from("<IIBBBBI", entry)
        if number > last:
            break
        time = when_text(when, offset).replace("-", "\u2011") + ("" if right else "?")  # hyphens that do not break
        row = (number, time, syslog.event_name(event), name(reason) if reason else "", value or "")
        rows.append("<tr><td>%s<td>%s<td>%s<td>%s<td>%s</tr>" % tuple([escape(one) for one in row]))
    yield '<div class="x"><table><tr>'
    for words in ("Number", "Time", "Event", "Reason", "Value"):
        yield '<th scope="col">%s' % said(words, ja)
    yield "</tr>"
    for row in reversed(rows):
        yield row
    yield "</table></div><p>"
    if last > count:
        yield '<a href="/log?before=%d">%s</a> ' % (last - count, said("Older", ja))
    if last < newest:
        yield '<a href="/log">%s</a> ' % said("Back", ja)
    yield '<a href="/log.bin" download>%s</a></p>' % said("Export", ja)
