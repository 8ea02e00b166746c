"""Maintenance windows as hawkBit has them: a Quartz cron schedule, a duration, a time zone offset."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache

from .errors import wrong

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_LOOK_AHEAD = 366 * 5
MAX_WINDOW = timedelta(hours=24)


def _number(text: str, names: tuple[str, ...], first: int) -> int:
    if text.upper() in names:
        return names.index(text.upper()) + first
    return int(text)


def _field(text: str, low: int, high: int, names: tuple[str, ...] = (), first: int = 1) -> frozenset[int]:
    """The numbers that one field of a schedule allows. Raises ValueError."""
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        every = int(step) if step else 1
        if every < 1:
            raise ValueError(part)
        if span in ("*", "?"):
            start, stop = low, high
        elif "-" in span:
            start, stop = (_number(end, names, first) for end in span.split("-", 1))
        else:
            start = _number(span, names, first)
            stop = high if step else start
        if not low <= start <= stop <= high:
            raise ValueError(part)
        found.update(range(start, stop + 1, every))
    return frozenset(found)


@dataclass(frozen=True)
class Window:
    """A schedule that has been read: when windows begin, how long they are, and in which time zone."""

    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    years: frozenset[int]
    duration: timedelta
    zone: timezone

    def begins_after(self, moment: datetime) -> datetime | None:
        """The first beginning that is later than *moment*, or None within five years."""
        local = moment.astimezone(self.zone).replace(microsecond=0) + timedelta(seconds=1)
        for ahead in range(_LOOK_AHEAD):
            day = (local + timedelta(days=ahead)).date()
            if not (
                day.month in self.months
                and day.day in self.days
                and day.year in self.years
                and day.isoweekday() % 7 + 1 in self.weekdays
            ):
                continue
            for hour in sorted(self.hours):
                for minute in sorted(self.minutes):
                    for second in sorted(self.seconds):
                        found = datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=self.zone)
                        if found >= local:
                            return found
        return None

    def state(self, now: int) -> tuple[bool, int | None]:
        """At *now* (ms): whether a window is open, and the ms at which it ends or the next begins (None: never)."""
        moment = datetime.fromtimestamp(now / 1000, self.zone)
        begin = self.begins_after(moment - self.duration)
        if begin is None:
            return False, None
        if begin <= moment:
            return True, int((begin + self.duration).timestamp() * 1000)
        return False, int(begin.timestamp() * 1000)


@lru_cache(maxsize=256)
def read(schedule: str, duration: str, zone: str) -> Window:
    """A window from hawkBit's three texts, such as ``0 15 10 * * ? *``, ``02:00:00``, ``+09:00``. Raises Problem."""
    parts = schedule.split()
    if len(parts) == 6:
        parts.append("*")
    length = re.fullmatch(r"(\d\d):([0-5]\d):([0-5]\d)", duration)
    offset = re.fullmatch(r"([+-])(\d\d):([0-5]\d)", zone.replace("Z", "+00:00"))
    try:
        if len(parts) != 7 or not length or not offset:
            raise ValueError
        span = timedelta(hours=int(length[1]), minutes=int(length[2]), seconds=int(length[3]))
        if not timedelta(0) < span <= MAX_WINDOW:
            raise ValueError
        away = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        return Window(
            _field(parts[0], 0, 59),
            _field(parts[1], 0, 59),
            _field(parts[2], 0, 23),
            _field(parts[3], 1, 31),
            _field(parts[4], 1, 12, _MONTHS),
            _field(parts[5], 1, 7, _DAYS),
            _field(parts[6], 1970, 2199),
            span,
            timezone(-away if offset[1] == "-" else away),
        )
    except ValueError:
        example = "schedule '0 15 10 * * ? *', duration '02:00:00', timezone '+09:00'"
        raise wrong(f"The maintenance window does not read like {example}.") from None
