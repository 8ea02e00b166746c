"""What can be set on a device: one schema, and the set of values kept so that a cut leaves the old one or the new one.

Nothing here decides what may be installed; only the engine's records do. Without settings a device runs and updates
nothing. docs/settings.md is written from `SCHEMA`; the tools read it as well.

Kept as `/data/settings.0` and `.1` (see `store`), JSON: ``{"version": 1, "values": {...}, "pending": {...}}``. Where
there is neither, `/data/sekisho.json` counts, which `sekisho image build` wrote: the values alone, version 0. Names
that this version does not know are kept as they are, for the application that knows them.
"""

import json

from micropython import const
from sekisho_boot.reasons import KEY_RIGHTS, SETTING, Refused

from . import settings, store

KEPT = "/data/settings"
VERSION = const(1)

POLL = const(3600)  # s between two looks at the server, where the settings say nothing
MIN_POLL = const(30)
MAX_POLL = const(86400)
MAX_TRIES = const(3)  # looks at the server that a change of server or network gets to work

# Kinds of values.
FLAG = const(1)  # true or false
NUMBER = const(2)  # an integer; limits: (least, most)
TEXT = const(3)  # printable text; limits: most bytes
CHOICE = const(4)  # one of the words in limits
WORDS = const(5)  # any of the words in limits, each once
NAMES = const(6)  # a list of texts; limits: (most texts, most bytes of each)
URL = const(7)  # text that begins with one of the schemes in limits, or ""
NETWORKS = const(8)  # a list of [name, passphrase]; limits: most networks
WINDOW = const(9)  # maintenance windows, see `policy`
SECRET = const(10)  # text that is never shown, or ""; limits: (least bytes, most)

# Who may change a value: these and everybody with a larger number.
USER = const(1)  # at the console
ADMIN = const(2)  # at the console
ORDER = const(3)  # an operator's signed order

KEEP = None  # as secure default: `restore` leaves the value as it is

MAX_TEXT = const(256)

INTERFACES = ("repl", "webrepl", "ctrl-c", "console", "serial", "bluetooth", "access-point")

# (name, kind, limits, default, secure default, who, when it takes effect). The comment before each is its meaning.
SCHEMA = (
    # Where the device asks for updates. A change is kept only after the server was reached with it.
    ("server", URL, ("http://", "https://"), "", KEEP, ADMIN, "next poll"),
    # File with the certificate (DER) that the server's must lead to. A change is kept only after it worked.
    ("ca", TEXT, 64, "", KEEP, ADMIN, "next poll"),
    # What the server is: a directory of files (`sekisho publish`), or one that speaks hawkBit's device API (DDI).
    ("protocol", CHOICE, ("static", "ddi"), "static", KEEP, ADMIN, "next start"),
    # DDI: the tenant at the server.
    ("tenant", TEXT, 32, "DEFAULT", KEEP, ADMIN, "next start"),
    # DDI: the device's name at the server (controllerId); "" for the id that it was issued, or else its device id.
    ("controller", TEXT, 128, "", KEEP, ADMIN, "next start"),
    # DDI: the device's token at the server (TargetToken), "" for the one issued. Sent to no origin but the server's.
    ("token", SECRET, (1, 128), "", KEEP, ADMIN, "next start"),
    # DDI: how the device proves who it is: by the token, or by signing each request with its key.
    ("login", CHOICE, ("token", "key"), "token", KEEP, ADMIN, "next start"),
    # DDI: one-time token with which the device enrols at the server; forgotten once it is used.
    ("enrolment", SECRET, (1, 128), "", KEEP, ADMIN, "next poll"),
    # DDI: a server behind a proxy may write links with a wrong scheme or host; with this they are mended.
    ("keep_origin", FLAG, None, False, KEEP, ADMIN, "next start"),
    # DDI: origins besides the server's that files may be fetched from, without the token: "https://cdn.example".
    ("mirrors", NAMES, (4, 64), [], KEEP, ADMIN, "next start"),
    # Wi-Fi networks, tried in this order; passphrase "" for an open one. A change is kept only after it worked.
    ("wifi", NETWORKS, 8, [], KEEP, ADMIN, "next poll"),
    # Seconds between two looks at the server.
    ("poll", NUMBER, (MIN_POLL, MAX_POLL), POLL, POLL, ADMIN, "next poll"),
    # Whether updates are installed at all.
    ("update_enabled", FLAG, None, True, True, ADMIN, "next poll"),
    # Who starts an update: nobody has to, the user or an administrator at the device; an order always may.
    ("update_start", CHOICE, ("automatic", "user", "administrator"), "automatic", "automatic", ADMIN, "next poll"),
    # When updates may start, for example "mon-fri 02:00-04:30; sun 00:00-24:00"; "" for any time.
    ("update_window", WINDOW, 4, "", KEEP, ADMIN, "next poll"),
    # Devices that never restart together with this one, each asked first: "<device id>@<host>[:<port>]".
    ("peers", NAMES, (4, 96), [], KEEP, ADMIN, "next start"),
    # UDP port at which this device answers its peers.
    ("peer_port", NUMBER, (1, 65535), 7517, KEEP, ADMIN, "next start"),
    # Secret of the group of peers, the same in each; "" for the first group key that the factory issued.
    ("peer_key", SECRET, (16, 64), "", KEEP, ADMIN, "next start"),
    # Hours that an update waits at most for peers that do not answer or say no; 0 for ever.
    ("peer_wait", NUMBER, (0, 8760), 24, KEEP, ADMIN, "next poll"),
    # Minutes by which the device's local time is ahead of UTC.
    ("utc_offset", NUMBER, (-720, 840), 0, KEEP, USER, "at once"),
    # Which events people are told of.
    ("notify", WORDS, ("available", "installed", "failed"), [], KEEP, USER, "at once"),
    # Where they are told of: by the hook of the application, at the log server.
    ("notify_to", WORDS, ("application", "syslog"), ["application"], KEEP, ADMIN, "at once"),
    # Log server that gets the event log (RFC 5424), for example "udp://10.0.0.7:514".
    ("syslog", URL, ("udp://", "tcp://", "tls://"), "", KEEP, ADMIN, "next poll"),
    # DDI: hours between reports that nobody asked for; 0 for none but after updates and changes of the verdict.
    ("report_every", NUMBER, (0, 8760), 24, KEEP, ADMIN, "at once"),
    # Groups that this device belongs to, for operator orders.
    ("groups", NAMES, (8, 32), [], KEEP, ORDER, "at once"),
    # Interfaces that are open besides the network; a production build never opens more than its profile allows.
    ("interfaces", WORDS, INTERFACES, [], [], ADMIN, "next start"),
    # Wrong passwords in a row after which an account is locked.
    ("lockout_tries", NUMBER, (3, 20), 5, 5, ADMIN, "at once"),
    # Minutes that it stays locked.
    ("lockout_minutes", NUMBER, (1, 1440), 15, 15, ADMIN, "at once"),
    # A secret with which the administrator of the console may choose a new password, once.
    ("console_reset", SECRET, (12, 64), "", "", ORDER, "at once"),
    # Settings that from now on only orders may change.
    ("held", NAMES, (32, 32), [], [], ORDER, "at once"),
)  # fmt: skip

OF_ONE_DEVICE = "console_reset"  # comes by order only: in an image or a key set it would open every device
GUARDED = ("server", "ca", "wifi")  # kept only after the server was reached with them

# Per version that is left behind: (version, forward, backward), functions of a dict of values. forward makes the next
# version's values out of this one's; backward is run at every save, so that an application of that version, back after
# a rollback, finds what it understands.
MIGRATIONS: tuple = ()


def entry(name: str) -> tuple:
    """The line of the schema; Refused(SETTING) for a name that is not in it."""
    for line in SCHEMA:
        if line[0] == name:
            return line
    raise Refused(SETTING)


def check(name: str, value):
    """*value* as it is stored, if it may be the value of *name*; else Refused(SETTING)."""
    _, kind, limits, _, _, _, _ = entry(name)
    good = False
    if kind == FLAG:
        good = value is True or value is False
    elif kind == NUMBER:
        good = isinstance(value, int) and value is not True and value is not False and limits[0] <= value <= limits[1]
    elif kind == TEXT:
        good = _printable(value, limits)
    elif kind == CHOICE:
        good = isinstance(value, str) and value in limits
    elif kind == WORDS:
        good = _several(value, len(limits)) and all(word in limits and value.count(word) == 1 for word in value)
    elif kind == NAMES:
        good = _several(value, limits[0]) and all(_printable(text, limits[1]) and text for text in value)
    elif kind == URL:
        good = value == "" or (_printable(value, MAX_TEXT) and " " not in value and _host(value, limits))
    elif kind == NETWORKS:
        good = _several(value, limits) and all(_network(pair) for pair in value)
    elif kind == SECRET:
        good = value == "" or (_printable(value, limits[1]) and len(value.encode()) >= limits[0])
    elif _printable(value, MAX_TEXT):
        from .policy import windows

        good = len(windows(value)) <= limits
    if not good:
        raise Refused(SETTING)
    return [list(pair) for pair in value] if kind == NETWORKS else list(value) if isinstance(value, tuple) else value


def _several(value, most: int) -> bool:
    return isinstance(value, (list, tuple)) and len(value) <= most


def _printable(text, most: int) -> bool:
    return isinstance(text, str) and len(text.encode()) <= most and all(char >= " " and char != "\x7f" for char in text)


def _host(url: str, schemes) -> bool:
    for scheme in schemes:
        if url.startswith(scheme):
            return bool(url[len(scheme) :].split("/")[0].split(":")[0])
    return False


def _network(pair) -> bool:
    """[name of 1 to 32 bytes, passphrase of at most 64 or "" for an open network]."""
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        return False
    return _printable(pair[0], 32) and len(pair[0]) > 0 and _printable(pair[1], 64)


def migrated(version: int, values: dict) -> dict:
    """The values of an earlier *version* as this one has them."""
    for old, forward, _ in MIGRATIONS:
        if old >= version:
            values = forward(values)
    return values


def _built_in() -> dict:
    """What the product is built with, for the day its file system is gone: `SETTINGS` in `sekisho_config`."""
    try:
        import sekisho_config  # type: ignore[import-not-found]
    except ImportError:
        return {}
    return dict(getattr(sekisho_config, "SETTINGS", {}))


class Settings:
    """The values of this device. Raises nothing on damaged files: what cannot be read has its default.

    ``changed`` is called with the names after each change (the event log hangs there).
    """

    def __init__(self, changed=None) -> None:
        self.changed = changed
        self.values: dict = {}  # as kept, unknown names among them
        self.pending: dict = {}  # changes that have not been shown to work yet
        self.tries = 0
        kept = store.load(KEPT)
        document = None
        if kept is not None:
            try:
                document = json.loads(kept)
            except ValueError:
                pass
        if isinstance(document, dict) and isinstance(document.get("values"), dict):
            version, self.values = document.get("version"), document["values"]
            pending, tries = document.get("pending"), document.get("tries")
            if isinstance(pending, dict):
                self.pending = pending
                self.tries = tries if isinstance(tries, int) else MAX_TRIES
            if isinstance(version, int) and version < VERSION:
                self.values = migrated(version, self.values)
        else:
            self.values = migrated(0, settings.read(settings.SETTINGS) or _built_in())
            self.values.pop(OF_ONE_DEVICE, None)

    def get(self, name: str, pending: bool = False):
        """The value of *name*, its default where there is none that is valid; with *pending*, the one being tried."""
        line = entry(name)
        for values in (self.pending, self.values) if pending else (self.values,):
            if name in values:
                try:
                    return check(name, values[name])
                except Refused:
                    pass
        return line[3]

    def all(self, pending: bool = False) -> dict:
        """Every setting of the schema by name."""
        return {line[0]: self.get(line[0], pending) for line in SCHEMA}

    def change(self, changes: dict, role: int) -> None:
        """Sets all of *changes* or, on Refused (SETTING, KEY_RIGHTS, FLASH), none of them."""
        held = self.get("held")
        checked = {}
        for name in changes:
            line = entry(name)
            if role < line[5] or (role < ORDER and name in held):
                raise Refused(KEY_RIGHTS)
            checked[name] = check(name, changes[name])
        self._set(checked)

    def _set(self, checked: dict) -> None:
        now = {name: value for name, value in checked.items() if self.get(name, True) != value}
        guarded = {name: value for name, value in now.items() if name in GUARDED}
        if not now:
            return
        old = (self.values, self.pending, self.tries)
        self.values = dict(self.values)
        self.pending = dict(self.pending)
        for name in now:
            if name not in guarded:
                self.values[name] = now[name]
        if guarded:
            self.pending.update(guarded)
            self.tries = 0
        try:
            self.save()
        except Refused:
            self.values, self.pending, self.tries = old
            raise
        self._tell(now)

    def save(self) -> None:
        """Writes everything again; Refused(FLASH) where nothing can be kept."""
        values = self.values
        for _, _, backward in reversed(MIGRATIONS):
            values = backward(values)
        document = {"version": VERSION, "values": values, "pending": self.pending, "tries": self.tries}
        store.save(KEPT, json.dumps(document).encode())

    def _tell(self, names) -> None:
        if self.changed:
            self.changed(sorted(names))

    def restore(self, defaults=None, role: int = ORDER) -> None:
        """Back to the secure defaults: those of the key set (*defaults*, a dict) before those of the schema (STS06).

        Names that this version does not know are passed over, and those that *role* may not change. Raises
        Refused(SETTING) for a value that cannot be.
        """
        secure = {line[0]: line[4] for line in SCHEMA if line[4] is not KEEP}
        for name in defaults or ():
            if name != OF_ONE_DEVICE and any(line[0] == name for line in SCHEMA):
                secure[name] = check(name, defaults[name])
        if role < ORDER:
            held = self.get("held")
            secure = {name: secure[name] for name in secure if entry(name)[5] <= role and name not in held}
        self._set(secure)

    # -- server and networks: kept only after they worked ---------------------------------------------

    def proved(self) -> None:
        """The server was reached with the pending values: from now on they are the values."""
        if self.pending:
            names = list(self.pending)
            self.values = dict(self.values)
            self.values.update(self.pending)
            self.pending, self.tries = {}, 0
            self.save()
            self._tell(names)

    def failed(self) -> bool:
        """The server was not reached with them; True when that was once too often and the old values are back."""
        if not self.pending:
            return False
        self.tries += 1
        over = self.tries >= MAX_TRIES
        if over:
            names = list(self.pending)
            self.pending, self.tries = {}, 0
        self.save()
        if over:
            self._tell(names)
        return over

    # -- leaving the device -----------------------------------------------------------------------------

    def digest(self) -> bytes:
        """SHA-256 over all values in deterministic CBOR; it gives no secret away: of networks only the names count, of
        other secrets only that there is one."""
        from hashlib import sha256

        from .cbor import encode

        values = self.all()
        values["wifi"] = [pair[0] for pair in values["wifi"]]
        for line in SCHEMA:
            if line[1] == SECRET:
                values[line[0]] = values[line[0]] != ""
        return sha256(encode(values)).digest()
