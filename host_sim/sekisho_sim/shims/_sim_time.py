"""`time` with the chip's epoch (2000) and clock, and with seconds that the host can make shorter.

Ticks are 30 bits wide, as on the chip, only where time is sped up.
"""

import time as _t
from time import *  # noqa: F403

from _sim_dev import port
from _sim_layout import CLOCK, SPEED, START

__name__ = "time"

_EPOCH = 946684800
_speed = port.get(SPEED)
_mask = (1 << 30) - 1


def _elapsed():
    return (_t.ticks_us() - port.get64(START)) * _speed


def _now():
    return port.get64(CLOCK) + _elapsed()


def _set(us):
    port.put64(CLOCK, us)
    port.put64(START, _t.ticks_us())


def _whole(n):
    if not isinstance(n, int):  # mp_obj_get_int
        raise TypeError("can't convert %s to int" % type(n).__name__)
    return n


def time():
    return _now() // 1000000


def time_ns():
    return _now() * 1000


def gmtime(secs=None):
    return _t.gmtime((time() if secs is None else secs) + _EPOCH)[:8]


localtime = gmtime


def mktime(when):
    return int(_t.mktime(tuple(when)[:8] + (0,) if len(when) == 8 else when)) - _EPOCH  # noqa: RUF005 (no stars in MicroPython)


if _speed != 1:  # asyncio's C part reads the host's ticks, so they are left alone where they can be

    def ticks_ms():
        return _elapsed() // 1000 & _mask

    def ticks_us():
        return _elapsed() & _mask

    ticks_cpu = ticks_us

    def ticks_diff(a, b):
        return ((a - b + (1 << 29)) & _mask) - (1 << 29)


def ticks_add(ticks, delta):
    if not -(1 << 29) < _whole(delta) < 1 << 29:  # so do sleeps of asyncio that are longer than six days
        raise OverflowError("ticks interval overflow")
    return ticks + delta & _mask if _speed != 1 else _t.ticks_add(ticks, delta)


def sleep_us(us):
    if _whole(us) > 0:
        _t.sleep_us(us // _speed)


def sleep_ms(ms):
    sleep_us(_whole(ms) * 1000)


def sleep(s):
    sleep_us(int(s * 1000000))
