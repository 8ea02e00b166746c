"""Forms of the console: the settings form out of the one schema and back, and files that come piece by piece."""

import gc

from micropython import const
from sekisho_boot.reasons import Refused

from . import values
from .console_words import label, said
from .values import ADMIN, CHOICE, FLAG, NAMES, NETWORKS, NUMBER, SCHEMA, SECRET, TEXT, URL, WORDS

MAX_FIELD = const(512)  # bytes of a field beside a file
MAX_LINES = const(8)  # of the head of a part
BUFFER = const(1024)  # bytes of an upload in memory
MAX_BOUNDARY = const(70)

_GROUPS = (  # (first setting, heading above it)
    ("server", "Server"),
    ("wifi", "Wi-Fi"),
    ("poll", "Update"),
    ("peers", "Devices that stand in for each other"),
    ("utc_offset", "Time and messages"),
    ("groups", "Access"),
)
_ESCAPES = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#39;"))


def escape(text) -> str:
    """Any text as it may stand in HTML, between tags and in quoted attributes."""
    text = str(text)
    for char, other in _ESCAPES:
        text = text.replace(char, other)
    return text


def may(settings, line: tuple, role: int) -> bool:
    """Whether somebody of this role may change this setting now."""
    return line[5] <= role and line[0] not in settings.get("held")


# -- from the schema to a form -----------------------------------------------------------------------------


def fields(settings, role: int, japanese: bool, posted=None, wrong=()):
    """Yields the form's fields for everything that *role* may see; *posted* is what was sent and could not be taken."""
    heading = ""
    for line in SCHEMA:
        name, kind, limits, _, _, who, when = line
        if role < ADMIN and who > role:
            continue  # a user sees what a user may change
        open_ = may(settings, line, role)
        value = settings.get(name, True)
        for first, words in _GROUPS:
            if first == name:
                heading = words
        if heading:
            yield "<h2>%s</h2>" % said(heading, japanese)
            heading = ""
        yield '<div class="f%s">' % (" bad" if name in wrong else "")
        if kind in (WORDS, NETWORKS):
            yield '<b id="%s.l">%s</b>' % (name, escape(label(name, japanese)))
        else:
            yield '<label for="%s">%s</label>' % (name, escape(label(name, japanese)))
        for piece in _input(name, kind, limits, value, open_, japanese, posted, name in wrong):
            yield piece
        notes = [said(when, japanese)]
        if name in settings.pending:
            notes.append(said("is being tried", japanese))
        if not open_:
            notes = [said("Only orders may change this.", japanese)]
        yield '<small id="%s.n">%s</small></div>' % (name, escape(" · ".join(notes)))


def _input(name: str, kind: int, limits, value, open_: bool, japanese: bool, posted, wrong: bool):
    off = "" if open_ else " disabled"
    sent = posted.get(name) if posted else None
    ids = 'id="%s" name="%s" aria-describedby="%s.n"%s' % (name, name, name, off)
    if wrong:
        ids += ' aria-invalid="true"'
    if kind in (FLAG, CHOICE):
        words = ("yes", "no") if kind == FLAG else limits
        chosen = sent or (("yes" if value else "no") if kind == FLAG else value)
        yield "<select %s>" % ids
        for word in words:
            mark = " selected" if word == chosen else ""
            yield '<option value="%s"%s>%s</option>' % (word, mark, escape(said(word, japanese)))
        yield "</select>"
    elif kind == WORDS:
        chosen = posted.getlist(name) if posted else value
        if open_:
            yield '<input type="hidden" name="%s." value="1">' % name
        yield '<span id="%s" class="c" role="group" aria-labelledby="%s.l">' % (name, name)
        for word in limits:
            mark = " checked" if word in chosen else ""
            words = escape(said(word, japanese))
            yield '<label><input type="checkbox" name="%s" value="%s"%s%s>%s</label>' % (name, word, mark, off, words)
        yield "</span>"
    elif kind == NAMES:
        text = sent if sent is not None else "\n".join(value)
        yield '<textarea rows="2" placeholder="%s" %s>%s</textarea>' % (said("one a line", japanese), ids, escape(text))
    elif kind == NETWORKS:
        for piece in _networks(name, value[:limits], off, japanese):
            yield piece
    elif kind == SECRET:
        hint = said("empty: stays as it is", japanese)
        yield '<input type="password" autocomplete="off" maxlength="%d" placeholder="%s" %s>' % (limits[1], hint, ids)
    else:
        text = str(value) if sent is None else sent
        if kind == NUMBER:
            how = 'type="number" min="%d" max="%d"' % limits
        else:
            most = limits if kind == TEXT else values.MAX_TEXT
            how = 'type="text" maxlength="%d"%s' % (most, ' inputmode="url"' if kind == URL else "")
        yield '<input %s value="%s" %s>' % (how, escape(text), ids)


def _networks(name: str, networks, off: str, japanese: bool):
    """Names and empty passphrases; what is known is never sent back."""
    hint = said("empty: stays as it is", japanese)
    key = said("Passphrase", japanese)
    if not off:
        yield '<input type="hidden" name="%s." value="1">' % name
    yield '<span id="%s" role="group" aria-labelledby="%s.l">' % (name, name)
    for number, (ssid, _) in enumerate([list(pair) for pair in networks] + [["", ""]]):
        row = (name, number, escape(ssid), off, said("Name", japanese))
        yield '<span class="w"><input type="text" maxlength="32" name="%s.%d" value="%s"%s aria-label="%s">' % row
        keys = (name, number, off, hint if ssid else key, key)
        yield '<input type="password" autocomplete="off" maxlength="64" name="%s.%d.key"%s placeholder="%s" ' % keys[:4]
        yield 'aria-label="%s"></span>' % key
    yield "</span>"


# -- and back ----------------------------------------------------------------------------------------------


def changes(settings, role: int, form) -> tuple:
    """({name: value} of what was changed, [names whose value cannot be]). Nothing is changed here."""
    found, wrong = {}, []
    for line in SCHEMA:
        name, kind = line[0], line[1]
        present = name + "." in form if kind in (WORDS, NETWORKS) else name in form
        if not present or not may(settings, line, role):
            continue
        old = settings.get(name, True)
        try:
            value = values.check(name, _value(name, kind, line[2], form, old))
        except (Refused, ValueError):
            wrong.append(name)
            continue
        if value != old:
            found[name] = value
    return found, wrong


def _value(name: str, kind: int, limits, form, old):
    if kind == WORDS:
        return form.getlist(name)
    if kind == NETWORKS:
        known = {pair[0]: pair[1] for pair in old}
        pairs = []
        for number in range(limits + 1):
            ssid = form.get("%s.%d" % (name, number), "")
            key = form.get("%s.%d.key" % (name, number), "")
            if ssid:
                pairs.append([ssid, key or known.get(ssid, "")])
        return pairs
    text = form.get(name)
    if kind == FLAG:
        if text not in ("yes", "no"):
            raise ValueError
        return text == "yes"
    if kind == NUMBER:
        if len(text) > 8:
            raise ValueError
        return int(text)
    if kind == NAMES:
        return [one.strip() for one in text.split("\n") if one.strip()]
    if kind == SECRET and not text:
        return old
    return text.strip()


# -- files -------------------------------------------------------------------------------------------------


class Parts:
    """A multipart body (RFC 7578), read piece by piece from a connection. Raises ValueError where it is none.

    ``await step()`` gives the next bytes of the part at hand as a view, good until the next step, or None at its end.
    All of them lie in one buffer: a long upload must not leave the heap in pieces.
    """

    def __init__(self, link, content_type: str) -> None:
        kind, _, boundary = content_type.partition("boundary=")
        boundary = boundary.strip('"')
        if not kind.startswith("multipart/form-data") or not 0 < len(boundary) <= MAX_BOUNDARY:
            raise ValueError("no multipart form")
        self._link = link
        self._mark = b"\r\n--" + boundary.encode()
        self._buf = bytearray(BUFFER)
        self._view = memoryview(self._buf)
        self._buf[:2] = b"\r\n"  # the first boundary has no line before it
        self._start, self._end = 0, 2
        self._done = False
        self._steps = 0

    async def _more(self) -> None:
        """Reads on; what is held moves to the front of the buffer first."""
        held = self._end - self._start
        if self._start:
            for at in range(held):
                self._buf[at] = self._buf[self._start + at]
            self._start, self._end = 0, held
        if held == BUFFER:
            raise ValueError("a line of the form is too long")
        self._steps += 1
        if self._steps % 8 == 0:
            gc.collect()
        self._end += await self._link.readinto(self._view[held:])
        self._link.more()

    def _find(self, what: bytes) -> int:
        """Where *what* begins in what is held, or -1."""
        return self._buf.find(what, self._start, self._end)

    async def _line(self) -> bytes:
        """The next line, without its end."""
        while True:
            at = self._find(b"\r\n")
            if at >= 0:
                line = bytes(self._view[self._start : at])
                self._start = at + 2
                return line
            await self._more()

    async def part(self):
        """(name, whether it is a file) of the next part, or None at the end."""
        while await self.step() is not None:
            pass  # what is left of the part before
        if await self._line() == b"--":
            return None
        name, file = b"", False
        for _ in range(MAX_LINES):
            line = await self._line()
            if not line:
                self._done = False
                return name, file
            if line[:20].lower() == b"content-disposition:":
                name = line.partition(b' name="')[2].partition(b'"')[0]
                file = b' filename="' in line
        raise ValueError("too many lines")

    async def step(self):
        """The next bytes of the part at hand, or None."""
        while not self._done:
            at = self._find(self._mark)
            if at >= 0:
                self._done = True
                found = self._view[self._start : at]
                self._start = at + len(self._mark)
            else:
                sure = max(self._start, self._end - len(self._mark) + 1)  # what may be the beginning of a mark waits
                found = self._view[self._start : sure]
                self._start = sure
            if len(found):
                return found
            if not self._done:
                await self._more()
        return None

    async def text(self) -> str:
        """The part at hand as text of at most MAX_FIELD bytes."""
        found = await self.content(b"", MAX_FIELD)
        return str(found, "utf-8")

    async def content(self, first, limit: int) -> bytes:
        """*first* and the rest of the part at hand, at most *limit* bytes. ValueError where there are more."""
        found = bytearray(first)
        while True:
            piece = await self.step()
            if piece is None:
                return bytes(found)
            if len(found) + len(piece) > limit:
                raise ValueError("too long")
            found.extend(piece)
