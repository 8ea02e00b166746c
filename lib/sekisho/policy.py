"""When an update that the engine accepts may be fetched and installed: switched on, approved, inside a window.

Pure functions and one small class; the engine's own checks come before and after, whatever is said here.
"""

from micropython import const
from sekisho_boot.reasons import APPROVAL, DECLINED, DISABLED, SETTING, WINDOW, Refused

APPROVE = const(1)  # decisions on one release
REFUSE = const(2)
POSTPONE = const(3)  # until a time
DELAY = const(4)  # for seconds of running, on a device that does not know the time

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = const(86400)


def windows(text: str) -> list:
    """[(bit mask of days from Monday, first minute, minute after the last)]; Refused(SETTING) where it is none."""
    found = []
    for part in text.split(";") if text else ():
        words = part.split()
        if not 1 <= len(words) <= 2:
            raise Refused(SETTING)
        times = words[-1].split("-")
        if len(times) != 2:
            raise Refused(SETTING)
        found.append((_days(words[0]) if len(words) == 2 else 127, _minute(times[0]), _minute(times[1])))
    return found


def _days(text: str) -> int:
    mask = 0
    for part in text.split(","):
        ends = part.split("-")
        if len(ends) > 2 or any(end not in _DAYS for end in ends):
            raise Refused(SETTING)
        day, last = _DAYS.index(ends[0]), _DAYS.index(ends[-1])
        while True:
            mask |= 1 << day
            if day == last:
                break
            day = (day + 1) % 7
    return mask


def _minute(text: str) -> int:
    hour, colon, minute = text.partition(":")
    if not colon or len(hour) != 2 or len(minute) != 2 or not (hour + minute).isdigit():
        raise Refused(SETTING)
    value = int(hour) * 60 + int(minute)
    if int(minute) > 59 or value > 1440:
        raise Refused(SETTING)
    return value


def inside(text: str, now: int, offset: int) -> bool:
    """Whether *now* (s since 1970, UTC) lies in a window; *offset* minutes make local time. A window whose end is not
    after its beginning goes on into the next day."""
    if not text:
        return True
    minutes = now // 60 + offset
    day, minute = (minutes // 1440 + 3) % 7, minutes % 1440  # 1970 began on a Thursday
    for mask, first, last in windows(text):
        if first < last:
            if mask >> day & 1 and first <= minute < last:
                return True
        elif (mask >> day & 1 and minute >= first) or (mask >> (day + 6) % 7 & 1 and minute < last):
            return True
    return False


def verdict(options: dict, decision, now: int, clock: bool) -> int:
    """0 when a release may start now, else the reason: DISABLED, DECLINED, APPROVAL, WINDOW.

    *decision* is (what, until, rank) or None (`record.Record.decision`), with what is left of a DELAY in place of
    *until*; *clock* tells whether *now* can be trusted. A device without a clock cannot keep windows: they then hold
    nothing back, since a device that never updates is worse.
    """
    if not options["update_enabled"]:
        return DISABLED
    what, until, rank = decision or (0, 0, 0)
    if what == REFUSE:
        return DECLINED
    if (what == POSTPONE and clock and now < until) or (what == DELAY and until > 0):
        return WINDOW
    needed = {"automatic": 0, "user": 1, "administrator": 2}[options["update_start"]]
    if needed and (what != APPROVE or rank < needed):
        return APPROVAL
    return 0 if not clock or inside(options["update_window"], now, options["utc_offset"]) else WINDOW
