"""`select` whose timeouts pass as fast as the device's clock. Only there when that is not the host's speed."""

import select as _s
from select import *  # noqa: F403

from _sim_dev import port
from _sim_layout import SPEED

__name__ = "select"

_speed = port.get(SPEED)


def _scale(timeout):
    return timeout if timeout <= 0 else max(1, timeout // _speed)


class poll:  # noqa: N801
    def __init__(self):
        self._p = _s.poll()
        self.register = self._p.register
        self.unregister = self._p.unregister
        self.modify = self._p.modify

    def poll(self, timeout=-1, *flags):
        return self._p.poll(_scale(timeout), *flags)

    def ipoll(self, timeout=-1, *flags):
        return self._p.ipoll(_scale(timeout), *flags)
