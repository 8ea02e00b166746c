"""`machine` as on the chip, as far as a device that updates itself needs it."""

import struct
import time as _time

from _sim_dev import call, die, panic, port
from _sim_layout import (
    CAUSE,
    FED,
    MAC,
    RPC_EFUSE_READ,
    RPC_EFUSE_WRITE,
    RTC_LENGTH,
    STOP_DEEPSLEEP,
    STOP_RESET,
)
from _sim_layout import (
    RTC as _RTC,
)
from _sim_layout import (
    WDT as _WDT,
)
from machine import mem8, mem16  # noqa: F401

__name__ = "machine"

PWRON_RESET = 1
HARD_RESET = 2
WDT_RESET = 3
DEEPSLEEP_RESET = 4
SOFT_RESET = 5

SLEEP = 2
DEEPSLEEP = 4
PIN_WAKE = 2
TIMER_WAKE = 4

_EPOCH = 946684800
_frequency = 160000000


def reset():
    die(STOP_RESET)


def soft_reset():
    raise SystemExit


def deepsleep(*time_ms):
    die(STOP_DEEPSLEEP, *time_ms)


def lightsleep(*time_ms):
    if time_ms:
        _time.sleep_ms(*time_ms)


sleep = lightsleep


def idle():
    _time.sleep_us(100)


def reset_cause():
    return port.get(CAUSE)


def wake_reason():
    return TIMER_WAKE if reset_cause() == DEEPSLEEP_RESET else 0


def unique_id():
    return port.peek(MAC, 6)


def freq(hz=None):
    global _frequency
    if hz is None:
        return _frequency
    if hz not in (20000000, 40000000, 80000000, 160000000, 240000000):
        raise ValueError("frequency must be 20MHz, 40MHz, 80Mhz, 160MHz or 240MHz")
    _frequency = hz
    return None


def disable_irq():
    return 0


def enable_irq(state):
    pass


class WDT:
    def __init__(self, id=0, timeout=5000):
        if id != 0:
            raise ValueError
        if not isinstance(timeout, int):
            raise TypeError("can't convert %s to int" % type(timeout).__name__)
        if timeout > 0x7FFFFFFF:
            raise OverflowError("overflow converting long int to machine word")
        if timeout <= 0:
            raise ValueError("WDT timeout too short")
        self.feed()
        port.put(_WDT, timeout)

    def feed(self):
        port.put64(FED, _time._t.ticks_us())


class RTC:
    def memory(self, data=None):
        if data is None:
            return port.peek(_RTC, port.get(RTC_LENGTH))
        data = memoryview(data)
        if len(data) > 2048:
            raise ValueError("buffer too long")
        port.poke(_RTC, data)
        port.put(RTC_LENGTH, len(data))
        return None

    def datetime(self, when=None):
        if when is None:
            y, mo, d, h, mi, s, wd, _ = _time.gmtime()
            return (y, mo, d, wd, h, mi, s, _time._now() % 1000000)
        y, mo, d, _, h, mi, s, us = when
        _time._set(_time.mktime((y, mo, d, h, mi, s, 0, 0)) * 1000000 + us)
        return None

    def init(self, when):  # the same numbers in another order (ports/esp32/machine_rtc.c)
        y, mo, d, h, mi, s, _, us = when
        self.datetime((y, mo, d, 0, h, mi, s, us))


_REVISION = {0x3FF6607C: 1 << 31, 0x60007058: 3 << 24, 0x60008858: 3 << 24, 0x600B0850: 3 << 22}  # ESP32, S3, C3, C6


def _check(address):
    if address & 3:
        raise ValueError("address %08x is not aligned to 4 bytes" % address)
    if not (0x3FF00000 <= address < 0x3FF80000 or 0x60000000 <= address < 0x60100000):
        panic("LoadStoreError at 0x%08x" % address)  # nothing answers there


class _Registers:
    """32-bit registers: the eFuse controller of the ESP32 is modelled, and what tells a chip's revision (3.0, as the
    bootloader model has it); other peripherals read 0 and ignore writes."""

    def __getitem__(self, address):
        _check(address)
        if 0x3FF5A000 <= address < 0x3FF5A120:
            return struct.unpack("<I", call(RPC_EFUSE_READ, struct.pack("<I", address)))[0]
        return _REVISION.get(address, 0)

    def __setitem__(self, address, value):
        _check(address)
        if 0x3FF5A000 <= address < 0x3FF5A120:
            call(RPC_EFUSE_WRITE, struct.pack("<II", address, value & 0xFFFFFFFF))


mem32 = _Registers()


class Pin:
    IN = 1
    OUT = 3
    OPEN_DRAIN = 7
    PULL_UP = 2
    PULL_DOWN = 1
    IRQ_RISING = 1
    IRQ_FALLING = 2

    def __init__(self, id, mode=-1, pull=-1, *, value=None):
        self._value = 1 if value is None and pull == 2 else value or 0

    def init(self, mode=-1, pull=-1, *, value=None):
        if value is not None:
            self._value = value

    def value(self, x=None):
        if x is None:
            return self._value
        self._value = 1 if x else 0
        return None

    __call__ = value

    def on(self):
        self._value = 1

    def off(self):
        self._value = 0

    def irq(self, handler=None, trigger=3):
        pass
