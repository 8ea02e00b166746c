"""`_asyncio` (asyncio's task queue and task) over the shim's ticks. Only there when time is sped up.

The built-in one is C and reads the host's ticks, so that tasks would become due at another speed than the device's
clock runs. Behaviour and attributes are those that asyncio/core.py expects.
"""

import sys
from time import ticks_diff, ticks_ms

__name__ = "_asyncio"


def _core():
    return sys.modules["asyncio.core"]


class TaskQueue:
    def __init__(self):
        self._tasks = []  # in the order in which they become due

    def peek(self):
        return self._tasks[0] if self._tasks else None

    def push(self, task, key=None):
        assert task not in self._tasks
        task.data = None
        task.ph_key = ticks_ms() if key is None else key
        at = len(self._tasks)
        while at and ticks_diff(self._tasks[at - 1].ph_key, task.ph_key) > 0:
            at -= 1
        self._tasks.insert(at, task)

    def pop(self):
        return self._tasks.pop(0)

    def remove(self, task):
        self._tasks.remove(task)


class Task:
    def __init__(self, coro, globals=None):
        self.coro = coro
        self.data = None
        self.state = True  # True: running, TaskQueue: awaited by these, False or None: done
        self.ph_key = 0

    def __iter__(self):
        if not self.state:
            self.state = False
        elif self.state is True:
            self.state = TaskQueue()
        elif not isinstance(self.state, TaskQueue):
            raise RuntimeError("can't wait")
        return self

    def __next__(self):
        if not self.state:
            if self.data is None:
                raise StopIteration
            raise self.data
        waiting = _core().cur_task
        self.state.push(waiting)
        waiting.data = self

    def done(self):
        return not self.state

    def cancel(self):
        core = _core()
        task = self
        if not task.state:
            return False
        if task is core.cur_task:
            raise RuntimeError("can't cancel self")
        while isinstance(task.data, Task):
            task = task.data
        if hasattr(task.data, "remove"):
            task.data.remove(task)
            core._task_queue.push(task)
        elif ticks_diff(task.ph_key, ticks_ms()) > 0:
            core._task_queue.remove(task)
            core._task_queue.push(task)
        task.data = core.CancelledError
        return True
