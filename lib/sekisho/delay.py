"""Counts a `policy.DELAY`: a release that people put off on a device which does not know the time.

Counted in seconds of running, in the agent's state, which is written by the hour. A start counts as the time between
two looks, an hour at most, since nobody knows what came before it: restarts neither lose a delay nor prolong it for
ever. Where nothing can be kept, it ends with the start.
"""

import time

from micropython import const

from . import settings

MAX_DELAY = const(2592000)  # s
_START = const(3600)  # s that a start counts for at most
_HOUR = const(3600)


def passed(agent, delay: int) -> int:
    """At a look: counts what has passed since the last one. Returns the seconds that are left of *delay*."""
    now, before = time.ticks_ms(), agent.state.get("ran", 0)
    first = agent.ran is None
    seconds = min(agent.every, _START) if first else max(0, time.ticks_diff(now, agent.ran) // 1000)
    agent.ran = now if first else time.ticks_add(agent.ran, seconds * 1000)
    agent.state["ran"] = before + seconds
    if first or (before + seconds) // _HOUR != before // _HOUR:
        kept = settings.write(settings.STATE, agent.state)
        if first and not kept:
            agent.state["ran"] = MAX_DELAY
    return left(agent, delay)


def left(agent, delay: int) -> int:
    """Seconds that were left of *delay* at the last look."""
    return max(0, min(delay, MAX_DELAY) - agent.state.get("ran", 0))


def begin(agent) -> None:
    """A delay begins now."""
    if agent.state.pop("ran", 0):
        settings.write(settings.STATE, agent.state)
    agent.ran = time.ticks_ms()
