"""Starting afresh after Sekisho itself broke down: a pause before each restart that grows while starts do not last.

Loaded only then: `sekisho.run` calls `wait`, and a start that has lasted calls `lasted`. The number of starts in a row
that broke down is kept in NVS, where neither a damaged file system nor a restart touches it.
"""

import time

FIRST_PAUSE = 10  # s, give or take an eighth; it doubles each time
MAX_PAUSE = 3600
_COUNT = "broken"  # i32


def _broken(count: int = -1) -> int:
    """Starts in a row that broke down soon; *count* sets it."""
    from esp32 import NVS

    store = NVS("sekisho")
    try:
        kept = store.get_i32(_COUNT)
    except OSError:
        kept = 0
    if count >= 0 and count != kept:
        store.set_i32(_COUNT, count)
        store.commit()
    return kept


def wait() -> None:
    """The pause. The watchdog is fed meanwhile; on trial it is not, and ends the trial at its deadline as ever."""
    from . import _print_exception, watchdog

    pause = FIRST_PAUSE
    try:
        from .agent import doubling, jitter

        count = min(max(_broken(), 0), 99) + 1
        _broken(count)
        pause = jitter(doubling(FIRST_PAUSE, count, MAX_PAUSE))
    except Exception as error:  # whatever is broken: the first pause always works
        _print_exception(error)
    print("sekisho: starting afresh in %d s" % pause)
    for _ in range(pause):
        watchdog()
        time.sleep(1)


def lasted() -> None:
    """This start has lasted: the next pause is the first again."""
    try:
        _broken(0)
    except Exception:
        pass  # no NVS: nothing was counted
