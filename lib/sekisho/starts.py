"""Starts that do not last: how often the application has restarted the chip, or hung it, in a row. Counted in NVS."""

from micropython import const

MAX_STARTS = const(5)  # restarts in a row, none of which lasted, after which the application is left out
_DEEPSLEEP = const(4)  # machine.DEEPSLEEP_RESET
_POWER = const(1)  # machine.PWRON_RESET
_COUNT = "starts"  # i32 in the NVS namespace `sekisho`


def _store():
    from esp32 import NVS

    from .issued import NAMESPACE

    return NVS(NAMESPACE)


def _starts(store) -> int:
    try:
        return max(0, store.get_i32(_COUNT))
    except OSError:
        return 0


def loops(trial: bool) -> bool:
    """Once at each start: whether the application has restarted the chip too often to be tried again.

    Counted in NVS, and only restarts: switching the power off and on tries the application once more, and a device that
    sleeps between two measurements writes nothing. A trial counts its own attempts.
    """
    try:
        from machine import reset_cause

        cause = reset_cause()
        if cause == _DEEPSLEEP:
            return False
        store = _store()
        count = 0 if trial or cause == _POWER else _starts(store) + 1
        _keep(store, count)
        return count > MAX_STARTS
    except Exception:  # no NVS: nothing is counted
        return False


def _keep(store, count: int) -> None:
    if count != _starts(store):
        store.set_i32(_COUNT, min(count, 1000))
        store.commit()


def settled() -> None:
    """The restart that comes is a wanted one."""
    try:
        _keep(_store(), 0)
    except Exception:
        pass
