"""The device's clock: never before what is proved, and right once a server that was verified has told the time.

Certificates have dates, so the clock must be plausible before the first TLS connection; a chip wakes up in the year
2000. The engine knows a time that has certainly passed (build, key set): that is the floor. A server's certificate may
be younger than that: its first second has passed as well, if everything else about it is right (`proved`).
"""

import time

_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"
_SLACK = 120  # s of difference that are not worth setting the clock

_told = False
_before = 0  # the clock as it was before a certificate moved it on


def trusted() -> bool:
    """Whether a verified server has told the time since the start, so that windows can be kept."""
    return _told


def _epoch() -> int:
    return 946684800 if time.gmtime(0)[0] == 2000 else 0


def now() -> int:
    """Seconds since 1970 by the clock, right or not."""
    return int(time.time()) + _epoch()


def put(seconds: int) -> None:
    """Sets the clock to *seconds* since 1970."""
    from machine import RTC

    at = time.gmtime(seconds - _epoch())
    RTC().datetime((at[0], at[1], at[2], at[6], at[3], at[4], at[5], 0))


def raise_to(floor: int) -> None:
    """Before TLS: the clock is not left before *floor* (s since 1970)."""
    if now() < floor:
        put(floor)


def told(date: str, floor: int) -> None:
    """Takes the Date header of a server whose certificate was verified; one before *floor* is not believed."""
    global _told
    seconds = parse(date)
    if seconds > floor:
        if abs(seconds - now()) > _SLACK:
            put(seconds)
        _told = True


def proved(born: int) -> bool:
    """Moves the clock on to *born* (s since 1970), the first second of a certificate that only its youth is against,
    so that it can be verified; 0 takes that back. False where the clock is known, or is not before it."""
    global _before
    if born:
        _before = now()
        if _told or born <= _before:
            return False
        put(born + 1)
    elif _before:
        put(_before)
        _before = 0
    return True


def born(der) -> int:
    """The first second (s since 1970) of an X.509 certificate in DER (RFC 5280 section 4.1), 0 where there is none."""
    try:
        at = _inside(der, _inside(der, 0)[0])[0]
        if der[at] == 0xA0:  # version
            at = _inside(der, at)[1]
        for _ in range(3):  # serial number, algorithm, issuer
            at = _inside(der, at)[1]
        first, last = _inside(der, _inside(der, at)[0])
        text = str(bytes(der[first:last]), "utf-8")
        if len(text) == 13:
            text = ("20" if text < "5" else "19") + text
        if len(text) != 15 or text[14] != "Z" or not text[:14].isdigit():
            return 0
        return _seconds(int(text[:4]), int(text[4:6]) - 1, *[int(text[n : n + 2]) for n in (6, 8, 10, 12)])
    except (IndexError, ValueError):
        return 0


def _inside(der, at: int) -> tuple:
    """(first byte, byte after the last) of the content of the element at *at*."""
    size, at = der[at + 1], at + 2
    if size & 0x80:
        more = at + (size & 0x7F)
        size, at = int.from_bytes(bytes(der[at:more]), "big"), more
    return at, at + size


def parse(date: str) -> int:
    """Seconds since 1970 of ``Sun, 06 Nov 1994 08:49:37 GMT`` (RFC 9110 section 5.6.7), 0 for any other text."""
    words = date.split()
    if len(words) != 6 or words[5] != "GMT" or len(words[2]) != 3:
        return 0
    month, rest = divmod(_MONTHS.find(words[2]), 3)
    clock = words[4].split(":")
    numbers = [words[1], words[3]]
    numbers.extend(clock)
    if rest or month < 0 or len(clock) != 3 or not all(number.isdigit() and len(number) < 5 for number in numbers):
        return 0
    day, year, hour, minute, second = [int(number) for number in numbers]
    return _seconds(year, month, day, hour, minute, second)


def _seconds(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int:
    """Since 1970; *month* from 0. 0 outside this century."""
    if not (2000 <= year < 2100 and 0 <= month < 12):
        return 0
    days = (year - 1970) * 365 + (year - 1969) // 4  # 1970 to 2099: every fourth year is a leap year
    for before in range(month):
        days += 28 + (year % 4 == 0) if before == 1 else 30 if before in (3, 5, 8, 10) else 31
    return ((days + day - 1) * 24 + hour) * 3600 + minute * 60 + second
