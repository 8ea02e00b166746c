"""The safe state: the application does not run, everything that could mend it does.

The agent polls, installs and reports, the console takes files, the LED of `sekisho_config.LED` blinks the number of the
reason. It ends with the restart into an update that works, or with the power. A trial never comes here: an image that
cannot run its application goes back. docs/safe-state.md says what people see and do.
"""

import asyncio
import sys

from micropython import const

from . import starts

# Reasons, and how often the LED blinks: never renumbered. The comment is the meaning.
NO_APPLICATION = const(1)  # The application image fails its digest or cannot be mounted.
MISSING = const(2)  # The application image has no module `application`.
BROKE = const(3)  # The application raised an exception, at its import or later.
MEMORY = const(4)  # The application found no memory.
LOOPS = const(5)  # The application restarted the chip, or hung it, over and over.
DATA = const(6)  # The file system `data` is damaged, and with it the settings.
AGENT = const(7)  # The agent itself broke down; it begins again with growing pauses.
WORDS = (
    "",
    "no-application",
    "application-missing",
    "application-broke",
    "no-memory",
    "application-loops",
    "data-damaged",
    "agent-broke",
)

FIRST_PAUSE = const(10)  # s before the agent begins again after it broke down; it doubles each time
MAX_PAUSE = const(3600)

_reason = 0
_blinking = None


def why() -> str:
    """Why the device is in the safe state, in a word; "" where it is not."""
    return WORDS[_reason]


def reason() -> int:
    """The number of the reason, 0 where the device is not in the safe state."""
    return _reason


def enter(number: int) -> None:
    """From now on the device is in the safe state. The first reason stays, except that DATA and AGENT give way."""
    global _reason, _blinking
    if _reason and not (_reason in (DATA, AGENT) and number not in (DATA, AGENT)):
        return
    _reason = number
    print("sekisho: safe state: %s" % why())
    if _blinking is None:
        _blinking = asyncio.create_task(_blink())


def leave(number: int) -> None:
    """The trouble of this number is over."""
    global _reason
    if _reason == number:
        _reason = 0
        print("sekisho: safe state left")


async def main(app) -> None:
    """What `sekisho.main` does, with whatever can break down caught."""
    import sekisho

    tasks: list = []
    try:
        import sekisho_config  # type: ignore[import-not-found]

        sekisho._agent = sekisho._make_agent(sekisho_config.CLASSES[0])
    except Exception as error:
        sys.print_exception(error)  # type: ignore[attr-defined]
        print("sekisho: no agent; the application goes on alone, without updates")
        tasks = [asyncio.create_task(sekisho._guard(app))]
        sekisho._agent = await again(sekisho._make_agent)
        import sekisho_config
    agent = sekisho._agent
    sekisho._report()
    sekisho._begin_duties()
    if not tasks:
        tasks = [asyncio.create_task(sekisho._guard(app))]
    tasks.append(asyncio.create_task(sekisho._lasted()))
    await asyncio.sleep(0)  # the application starts first, so that its health checks are known
    if agent.options["peers"]:
        tasks.append(asyncio.create_task(sekisho._join_peers(agent)))
    code, _, release = sekisho.engine().status()["last"]
    if code:
        sekisho._tell("failed", release, sekisho._name(code))
    if sekisho.on_trial() and await agent.prove(sekisho._health) == 0:
        sekisho._tell("installed", sekisho.engine().status()["last"][2])
        if not getattr(sekisho_config, "WATCHDOG", True):
            return await sekisho._restart()  # the product wants no watchdog beyond the trial: only a restart ends it
    if getattr(sekisho_config, "EFUSE_FLOOR", False):
        sekisho._raise_floor()
    tasks.append(asyncio.create_task(sekisho._feed()))
    await forever(agent)
    return await sekisho._restart()


def unfit(status: dict, problems, decision) -> int:
    """Why the application is not even started, or 0. status: of the engine; problems: partitions that could not be
    mounted; decision: of the engine at this start, or None."""
    from sekisho_boot.reasons import TARGET_LOST

    if "data" in problems:
        enter(DATA)  # the application may live without
    lost = status["degraded"] == TARGET_LOST and not (decision and decision.app)
    return NO_APPLICATION if lost or any(label[:4] == "app_" for label in problems) else 0


async def again(make):
    """The agent, once it can be made: tried with growing pauses."""
    enter(AGENT)
    rest = FIRST_PAUSE
    while True:
        await asyncio.sleep(rest)
        rest = min(2 * rest, MAX_PAUSE)
        try:
            import sekisho_config  # type: ignore[import-not-found]

            made = make(sekisho_config.CLASSES[0])
        except Exception as error:
            sys.print_exception(error)  # type: ignore[attr-defined]
            continue
        leave(AGENT)
        return made


async def forever(agent) -> None:
    """`agent.forever`, begun again with growing pauses when it breaks down; the application runs on."""
    rest = FIRST_PAUSE
    while True:
        try:
            await agent.forever()
            return starts.settled()
        except Exception as error:  # a fault of ours
            sys.print_exception(error)  # type: ignore[attr-defined]
        enter(AGENT)
        await asyncio.sleep(rest)
        rest = min(2 * rest, MAX_PAUSE)


async def _blink() -> None:
    """As many short flashes as the number of the reason, then a pause."""
    try:
        import sekisho_config  # type: ignore[import-not-found]

        number = getattr(sekisho_config, "LED", None)
        if number is None:
            return
        from machine import Pin

        led = Pin(number, Pin.OUT)
        while True:
            for _ in range(_reason):
                led.value(1)
                await asyncio.sleep(0.2)
                led.value(0)
                await asyncio.sleep(0.3)
            await asyncio.sleep(2)
    except Exception as error:  # a light that is not there keeps nothing from being mended
        print("sekisho: no LED (%r)" % error)
