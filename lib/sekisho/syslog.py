"""The event log to a log server: RFC 5424 over UDP (RFC 5426), TCP (RFC 6587, octet counting) or TLS (RFC 5425)."""

import socket
from binascii import hexlify
from struct import unpack_from

from micropython import const
from sekisho_boot.reasons import NETWORK, SERVER, name

from . import eventlog

_FACILITY = const(13)  # log audit
_WARNING = const(4)
_NOTICE = const(5)
_PORTS = {"udp": 514, "tcp": 601, "tls": 6514}
_SENT = "/data/syslog"
_OTHERS = ("ENTRY", "BODY", "ENTRIES", "MAX_UNTRUSTED")  # numbers in `eventlog` that are no events


def event_name(event: int) -> str:
    """The name of an event, EVENT_<number> for one that is not known."""
    for key in dir(eventlog):
        if key == key.upper() and key not in _OTHERS and getattr(eventlog, key) == event:
            return key
    return "EVENT_%d" % event


def timestamp(seconds: int) -> str:
    """RFC 3339 in UTC, of seconds since 1970; the same whatever epoch the port has."""
    days, rest = seconds // 86400, seconds % 86400
    shifted = days + 719468  # to 0000-03-01 (H. Hinnant, chrono-compatible date algorithms)
    era, day_of_era = shifted // 146097, shifted % 146097
    year = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    day = day_of_era - (365 * year + year // 4 - year // 100)
    month = (5 * day + 2) // 153
    parts = (
        year + era * 400 + (month >= 10),
        month + 3 if month < 10 else month - 9,
        day - (153 * month + 2) // 5 + 1,
        rest // 3600,
        rest // 60 % 60,
        rest % 60,
    )
    return "%04d-%02d-%02dT%02d:%02d:%02dZ" % parts


def line(entry: bytes, host: str) -> str:
    """One entry of the event log as a syslog message."""
    number, when, event, reason, trusted, _, value, detail = unpack_from("<IIBBBBI16s", entry)
    severity = _WARNING if event in eventlog.WARNINGS else _NOTICE
    text = "value=%d detail=%s" % (value, str(hexlify(detail), "utf-8"))
    if reason:
        text = "reason=%s %s" % (name(reason), text)
    quality = 'timeQuality tzKnown="1" isSynced="%d"' % trusted
    return '<%d>1 %s %s sekisho - %s [%s][meta sequenceId="%d"] %s' % (
        _FACILITY * 8 + severity,
        timestamp(when),
        host,
        event_name(event),
        quality,
        number & 0x7FFFFFFF,
        text,
    )


def target(url: str) -> tuple:
    """(scheme, host, port) of the setting `syslog`. Raises http.Failed(SERVER) for any other text."""
    from .http import Failed

    scheme, _, rest = url.partition("://")
    host, _, port = rest.partition("/")[0].partition(":")
    if scheme not in _PORTS or not host or not (port or "0").isdigit() or len(port) > 5:
        raise Failed(SERVER, "not a usable log server: %r" % url[:80])
    return scheme, host, int(port) if port else _PORTS[scheme]


async def send(url: str, entries, host: str, ca=None) -> int:
    """Sends entries (64 bytes each) in order; returns the number of the last one that was handed to the network.

    Raises http.Failed: NETWORK, SERVER. UDP tells nobody whether anything arrived; the sequence numbers do.
    """
    from . import http

    scheme, name_or_address, port = target(url)
    last = 0
    if scheme == "tls" and not ca:
        raise http.Failed(SERVER, "a log server over TLS needs the CA certificate in the settings")
    if scheme == "udp":
        try:
            place = socket.getaddrinfo(name_or_address, port, 0, socket.SOCK_DGRAM)[0]
            sock = socket.socket(place[0], place[1], place[2])
        except OSError as error:
            raise http.Failed(NETWORK, "no way to the log server (%s)" % error)
        try:
            for entry in entries:
                sock.sendto(line(entry, host).encode(), place[-1])
                last = unpack_from("<I", entry)[0]
        except OSError as error:
            raise http.Failed(NETWORK, "no way to the log server (%s)" % error)
        finally:
            sock.close()
        return last
    stream = await http._connect(name_or_address, port, ca if scheme == "tls" else None)
    try:
        for entry in entries:
            message = line(entry, host).encode()
            await http._send(stream, b"%d %s" % (len(message), message))
            last = unpack_from("<I", entry)[0]
    finally:
        stream.close()
    return last


def sent() -> int:
    """Number of the last entry that went to the log server."""
    from . import store

    kept = store.load(_SENT)
    return unpack_from("<I", kept)[0] if kept and len(kept) == 4 else 0


async def forward(log: eventlog.Log, settings, host: str, ca=None) -> int:
    """Sends what the log server has not had yet; returns how many entries went. Raises http.Failed, Refused(FLASH).

    Security events always go; of the update events those that `notify` names while `notify_to` has "syslog".
    """
    url = settings.get("syslog")
    if not url:
        return 0
    from struct import pack

    from . import store

    done = sent()
    if done > log.number:
        done = 0  # the log began anew
    wanted = [""] + (settings.get("notify") if "syslog" in settings.get("notify_to") else [])
    batch = [entry for entry in log.entries(done) if eventlog.UPDATES.get(entry[8], "") in wanted]
    if batch:
        await send(url, batch, host, ca)
    if done != log.number:
        store.save(_SENT, pack("<I", log.number))
    return len(batch)
