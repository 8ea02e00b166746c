"""Raising the hardware floor: ESP32 eFuse bits that say below which security version no image is chosen again.

Opt-in by the product (``EFUSE_FLOOR`` in `sekisho_config`), ESP32 only, through registers (no C module). Bits burn from
0 to 1 for ever, so the level never goes past what the confirmed running image itself carries. The engine and, where it
is built so, the bootloader's anti-rollback read the same field (thermometer code: n bits set means version n).

Tried on an emulated ESP32 only. Real silicon also needs programming times in bus clocks; `_TIMING` holds those of the
ESP32 reference manual (eFuse controller, timing configuration) for the 80 MHz bus that MicroPython runs with.
"""

from micropython import const

_BASE = const(0x3FF5A000)
_WRITE = const(_BASE + 0xE8)  # BLOCK3, word 4: SECURE_VERSION
_WRITES = ((0x1C, 7), (0x98, 8), (0xB8, 8), (0xD8, 8))  # (offset, words) of the write registers of BLOCK0 to BLOCK3
_CODING = const(_BASE + 0x18)  # BLOCK0, word 6: its lowest two bits are the coding scheme
_READ = const(_BASE + 0x88)
_CLOCK = const(_BASE + 0xF8)
_CONF = const(_BASE + 0xFC)
_COMMAND = const(_BASE + 0x104)
_DAC = const(_BASE + 0x118)
_TIMING = ((_CLOCK, 0xFFFF, 0x8050), (_DAC, 0xFF, 100))  # (register, mask, value): sel0 80, sel1 128, DAC 100
_PROGRAM_CODE = const(0x5A5A)
_READ_CODE = const(0x5AA5)
_READ_COMMAND = const(1)
_PROGRAM_COMMAND = const(2)
_BITS = const(32)
_PATIENCE = const(10000)  # polls of the command register before giving up


def level(mem32) -> int:
    """The level burnt so far: the number of bits set."""
    return bin(mem32[_READ] & 0xFFFFFFFF).count("1")


def _run(mem32, code: int, command: int) -> None:
    mem32[_CONF] = code
    mem32[_COMMAND] = command
    for _ in range(_PATIENCE):
        if not mem32[_COMMAND] & command:
            break
    else:
        raise OSError("eFuse controller does not answer")


def burn(mem32, target: int) -> None:
    """Burns the field up to *target* (1..32) and reads it back; OSError if it then says anything else, and before that
    on chips whose blocks are coded: there bits cannot be added one by one (ESP-IDF refuses, too)."""
    if not 0 < target <= _BITS:
        raise ValueError("eFuse level out of range")
    if mem32[_CODING] & 3:
        raise OSError("eFuse blocks of this chip are coded")
    missing = (1 << target) - 1 & ~mem32[_READ]
    if missing:
        for register, mask, value in _TIMING:
            mem32[register] = mem32[register] & ~mask | value
        for first, words in _WRITES:  # one command burns them all: what other code left there must not go with it
            for word in range(words):
                mem32[_BASE + first + 4 * word] = 0
        mem32[_WRITE] = missing
        _run(mem32, _PROGRAM_CODE, _PROGRAM_COMMAND)
        mem32[_WRITE] = 0
        _run(mem32, _READ_CODE, _READ_COMMAND)
    if level(mem32) < target:
        raise OSError("eFuse did not take the level")


def raise_floor(engine, component) -> int:
    """Raises the floor as far as key set and running image allow; returns the level then burnt.
    component: `secure.component()`, whose counter is the floor.

    Does nothing unless the product opted in and the running image is confirmed, chosen and as expected. An idle image
    below the new level is made unbootable first, so that a fallback never meets a bootloader that refuses both.
    """
    from sekisho_boot import image
    from sekisho_boot.flash import is_blank

    port, state = engine.port, engine.state
    now = component.counter()
    if not getattr(port.config, "EFUSE_FLOOR", False):
        return now
    if state.phase or state.degraded or state.chosen != port.running:
        return now
    target = min(engine.keyset().hw_floor, image.secure_version(port.fw[port.running]), _BITS)
    if target > now:
        idle = port.fw[1 - port.running]
        if not is_blank(idle, 0) and image.secure_version(idle) < target:
            idle.erase(0)
        now = component.advance(target)
    return now
