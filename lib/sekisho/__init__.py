"""On the device: what applications and the update agent use. Imports `sekisho_boot`, never the other way round.

A whole application::

    import sekisho

    async def app():
        ...

    sekisho.on_health(lambda: sensor.answers())
    sekisho.run(app)

`run` polls for updates beside the application, confirms a new image once its health checks pass, and restarts into an
update that is staged. Whoever wants to do that otherwise uses the functions below, which only wrap the engine.
"""

__version__ = "0.1.0"

STOCK_ROOM = 150_000  # bytes of heap that must be free for everything but the updates in stock mode
MAX_DRAIN = 30  # s that the application gets to finish its work before a restart
LASTED = 600  # s that a start must last to count as good (see `afresh`)

_port = None
_engine = None
_agent = None
_decision = None
_health: list = []
_drain: list = []
_notify: list = []
_ask: list = []


def started(port, decision) -> None:
    """Called once by `_boot.py` or `boot.py`: the port the engine ran on, and what it decided (None after a fault)."""
    global _port, _decision
    _port, _decision = port, decision


def started_port():
    """The port that the engine ran on at this start, or None."""
    return _port


def engine():
    """The one engine of this device."""
    global _engine, _port
    if _engine is None:
        from sekisho_boot.engine import Engine

        if _port is None:
            import sekisho_config  # type: ignore[import-not-found]
            from sekisho_boot.port import Port

            _port = Port(sekisho_config)
        _engine = Engine(_port)
    return _engine


def on_trial() -> bool:
    """True while the running image must still be confirmed."""
    return engine().status()["trial"]


def confirm() -> int:
    """The running image is good: ends its trial. Returns 0, or the reason code why there is nothing to confirm."""
    return engine().confirm()


def fail(reason: int) -> None:
    """The running image is not good: back to the old one, with this reason code. Does not return on trial; raises
    Refused(NOTHING) otherwise."""
    engine().fail(reason)


def watchdog() -> None:
    """Feeds the watchdog, which the engine starts with a trial and nothing can stop again.

    During the trial it is not fed: the trial then ends at its deadline, whatever the application does.
    """
    dog = getattr(_port, "wdt", None)
    if dog and not on_trial():
        dog.feed()


def on_health(check) -> None:
    """Adds a health check: a function or coroutine function; False or an exception sends the new image back."""
    _health.append(check)


def on_drain(hook) -> None:
    """Adds a function or coroutine function that is called before a restart; together they get MAX_DRAIN seconds, after
    which coroutines are cancelled (a plain function cannot be)."""
    _drain.append(hook)


def on_notify(hook) -> None:
    """Adds a function that is called with (event, release number, reason) for the events that the settings `notify`
    and `notify_to` name: ``available``, ``installed``, ``failed``; once for each release."""
    _notify.append(hook)


def on_ask(hook) -> None:
    """Adds a function that is called with the release number before an update that the operator did not force (DDI
    "soft"); False puts it off to the next look at the server."""
    _ask.append(hook)


def decide(what: int, until: int = 0, rank: int = 1) -> bool:
    """What a person said to the release that was offered last (``available``): `policy.APPROVE`, `policy.REFUSE`, or
    `policy.POSTPONE` until *until* (s since 1970), or, where the device does not know the time, `policy.DELAY` for
    *until* seconds of running (30 days at most). rank: 1 the user, 2 an administrator; who that is, the application
    must know. False where nothing is offered, or somebody of higher rank has decided already.

    Kept across restarts; without `duties` (a small stock image) only until the next.
    """
    if _agent is None or not _agent.offered:
        return False
    digest = _agent.offered  # type: ignore[unreachable]
    if _agent.duties:
        if not _agent.duties.record.decide(digest, what, until, rank):
            return False
    else:
        _agent.decide = lambda asked: (what, until, rank) if asked == digest else None
    from . import delay

    delay.begin(_agent)
    _agent.again()
    _agent.call()
    return True


def obey(order: bytes) -> bool:
    """An operator order that came by SD card, serial line or any other way: judged like one from the server.

    Returns True where it takes effect with a restart, which `restart` makes.
    """
    if _agent is None or _agent.duties is None:
        raise OSError("no orders on this device")
    return _agent.duties.obey(order, _agent)  # type: ignore[unreachable]


def offline():
    """The offline door of this device (`sekisho.door`): key sets, orders and releases that people bring by hand.

    Raises OSError where there is no agent.
    """
    from . import byhand

    return byhand.offline(_agent)


def folder(path: str) -> None:
    """Has the folder *path* looked at, now and before each look at the server, for example one of an SD card that the
    application has mounted. The module `card` says what may be in it."""
    from . import byhand

    byhand.folder(_agent, path)


def serial(source, target=None) -> None:
    """Has the serial line *source* (a stream that can be polled; *target* where it is written to, if elsewhere)
    answered, where the interface `serial` is open. See the module `line`. Raises OSError where it is closed."""
    from . import byhand

    byhand.serial(_agent, source, target or source)


async def restart() -> None:
    """Restarts after the drain hooks."""
    await _restart()


def status() -> dict:
    """What runs, what the engine knows, and how the last look at the server ended; plain values."""
    import sys

    from sekisho_boot.reasons import name

    values = engine().status()
    values["version"] = __version__
    values["last result"] = name(values["last"][0]) if values["last"][0] else "confirmed" if values["last"][2] else ""
    values["fault"] = _decision is None  # the engine broke down at this start
    mounts = sys.modules.get("sekisho.mounts")
    values["mounts"] = tuple(mounts.problems) if mounts else ()
    if _agent:
        values["server"] = _agent.server
        values["poll"] = name(_agent.result) if _agent.result else "staged"
        values["detail"] = _agent.detail
    return values


def _tell(event: str, release: int, reason: str = "") -> None:
    """Passes an event on to the application, once."""
    from . import settings

    options = _agent.options if _agent else {}
    if event not in options.get("notify", ()) or "application" not in options.get("notify_to", ()):
        return
    told = settings.read(settings.TOLD)
    if told.get(event) == release:
        return
    told[event] = release
    settings.write(settings.TOLD, told)
    for hook in _notify:
        try:
            hook(event, release, reason)
        except Exception as error:
            print("sekisho: notify hook raised %r" % error)


def _asked(release: int) -> bool:
    return all(hook(release) is not False for hook in _ask)


async def _restart() -> None:
    import asyncio
    import time

    if _agent and _agent.group:
        _agent.group.leaving = True
    start = time.ticks_ms()
    for hook in _drain:
        try:
            answer = hook()
            if hasattr(answer, "send"):
                await asyncio.wait_for(answer, max(0, MAX_DRAIN - time.ticks_diff(time.ticks_ms(), start) // 1000))
        except asyncio.TimeoutError:
            print("sekisho: a drain hook takes too long")
        except Exception as error:
            print("sekisho: drain hook raised %r" % error)
    print("sekisho: restarting")
    engine().port.reset()


def _load(app):
    """The application's coroutine function; None where the module of that name does not exist."""
    if not isinstance(app, str):
        return app
    try:
        return __import__(app).main
    except ImportError as error:
        if app in str(error):
            return None
        raise


async def _guard(app) -> None:
    """Runs the application. If it cannot run, the image goes back where it is on trial; else the device is in the safe
    state from here on, and the agent goes on alone."""
    import gc

    number = 0
    try:
        number = _unfit(app) if _agent else 0
        if not number:
            loaded = _load(app)
            if loaded:
                await loaded()
            elif _decision and _decision.app:
                number = 2  # safe.MISSING
    except Exception as error:
        gc.collect()
        _print_exception(error)
        print("sekisho: the application broke down; the agent goes on alone")
        number = 4 if isinstance(error, MemoryError) else 3  # safe.MEMORY, safe.BROKE
    if number:
        if _agent and on_trial():
            from sekisho_boot.reasons import HEALTH

            fail(HEALTH)
        from . import safe

        safe.enter(number)


def _unfit(app) -> int:
    """Why the application is not even started, or 0; the module `safe` is loaded only where something is wrong."""
    import sys

    status, mounts = engine().status(), sys.modules.get("sekisho.mounts")
    if status["degraded"] or (mounts and mounts.problems):
        from . import safe

        number = safe.unfit(status, mounts.problems if mounts else (), _decision)
        if number:
            return number
    return 5 if app and _starts().loops(status["trial"]) else 0  # safe.LOOPS


def _starts():
    """The module `starts`, which on a small stock device does not stay on the heap."""
    import sys

    from . import starts

    if "/pack" in sys.path:
        sys.modules.pop("sekisho.starts")
        globals().pop("starts", None)
    return starts


async def _lasted() -> None:
    """This start has lasted: the next restart is the first again."""
    import asyncio
    import sys

    await asyncio.sleep(120)
    safe = sys.modules.get("sekisho.safe")
    if not (safe and safe.why() == "application-loops"):
        _starts().settled()


def _print_exception(error) -> None:
    import sys

    sys.print_exception(error)


async def _feed() -> None:
    import asyncio

    left = LASTED  # s
    while True:
        watchdog()
        await asyncio.sleep(10)
        left -= 10
        if left == 0:
            from . import afresh

            afresh.lasted()


async def main(app=None) -> None:
    """What `run` runs, with the same argument; for applications that start asyncio themselves."""
    global _agent
    import asyncio
    import sys

    if "/pack" not in sys.path:  # there it would lie on the heap
        from . import safe

        return await safe.main(app)
    try:
        import sekisho_config  # type: ignore[import-not-found]

        _agent = _make_agent(sekisho_config.CLASSES[0])
        _report()
        _begin_duties()
    except Exception as error:
        _print_exception(error)
        print("sekisho: no engine; the application goes on alone, without updates")
        return await _guard(app)
    tasks = [asyncio.create_task(_guard(app)), asyncio.create_task(_lasted())]
    await asyncio.sleep(0)  # the application starts first, so that its health checks are known
    if _agent.options["peers"]:
        tasks.append(asyncio.create_task(_join_peers(_agent)))
    code, _, release = engine().status()["last"]
    if code:
        _tell("failed", release, _name(code))
    if on_trial() and await _agent.prove(_health) == 0:
        _tell("installed", engine().status()["last"][2])
        if not getattr(sekisho_config, "WATCHDOG", True):
            return await _restart()  # the product wants no watchdog beyond the trial, and only a restart ends it
    if getattr(sekisho_config, "EFUSE_FLOOR", False):
        _raise_floor()
    tasks.append(asyncio.create_task(_feed()))
    await _agent.forever()
    _starts().settled()
    return await _restart()


def look() -> int:
    """One look at the server, for applications that do not run under asyncio: those with a loop of their own, and those
    that sleep most of the time. On trial it first proves and confirms the running image. Blocks until it is done.

    Returns the seconds after which the next one is due. Restarts the device, after the drain hooks, into an update that
    is staged or for an order. Raises whatever keeps the agent from being made; nothing the network does is raised.
    """
    import asyncio

    return asyncio.run(_look())


async def _look() -> int:
    global _agent
    if _agent is None:
        import sekisho_config

        _agent = _make_agent(sekisho_config.CLASSES[0])
        _report()
        _begin_duties()
        code, _, release = engine().status()["last"]
        if code:
            _tell("failed", release, _name(code))
    if on_trial() and await _agent.prove(_health) == 0:  # type: ignore[unreachable]
        _tell("installed", engine().status()["last"][2])
    pause = await _agent.look()
    if not pause:
        await _restart()
    return pause


def _make_agent(class_id: bytes):
    import gc
    import sys

    from . import settings

    gc.collect()
    options = settings.load(on_trial())
    if "/pack" in sys.path:  # code from files lies on the heap, and this is not needed again
        sys.modules.pop("sekisho.values", None)
        globals().pop("values", None)
        gc.collect()
    if options["protocol"] == "ddi":
        from . import ddi as transport
    else:
        from . import agent as transport  # type: ignore[no-redef]
    gc.collect()
    made = transport.Agent(engine(), options, class_id)
    made.tell, made.ask = _tell, _asked
    return made


def _begin_duties() -> None:
    """Orders, event log, reports. Where they break down or find no memory, the device still updates.

    In stock mode their code would lie on the heap: there they take a chip with more of it (PSRAM).
    """
    import gc
    import sys

    try:
        gc.collect()
        if "/pack" in sys.path and gc.mem_free() < STOCK_ROOM:
            return _reopen()
        from .duties import Duties

        duties = Duties(engine(), _decision)
        duties.start(_agent)
        if "serial" in duties.reporter.open:
            serial(sys.stdin.buffer, sys.stdout.buffer)
    except Exception as error:
        _print_exception(error)
        print("sekisho: no orders, no event log")
        _reopen()


def production() -> bool:
    """Whether this device is one for the field: by its key set's environment, or by an order, for good."""
    if _agent and _agent.duties:
        return _agent.duties.reporter.production()
    from sekisho_boot import keyset

    return keyset.parse(engine().port.config.KEYSET).environment == keyset.RELEASE


def _reopen() -> None:
    """Ctrl-C, which `main.py` closed, where nothing else opens it: on devices that are not for the field."""
    if not production():
        from micropython import kbd_intr

        kbd_intr(3)


async def _join_peers(agent) -> None:
    """Takes part in the group lock, also on trial; without it updates wait as the settings say (`peer_wait`)."""
    try:
        from . import peer
    except ImportError:
        print("sekisho: this image has no code for the group lock")
    else:
        await peer.join(agent, on_trial)


def _raise_floor() -> None:
    try:
        from . import secure
        from .efuse import raise_floor

        raise_floor(engine(), secure.component())
    except Exception as error:  # a floor that cannot be raised must not keep the device from updates
        print("sekisho: the hardware floor stays (%r)" % error)


def _name(code: int) -> str:
    from sekisho_boot.reasons import name

    return name(code)


def _report() -> None:
    """One line on what runs, one on how the last update ended."""
    from sekisho_boot.reasons import name

    values = engine().status()
    running = values["pair"][1] if values["pair"] else values["counters"][0]
    print("sekisho: fw slot %d, release %d%s" % (values["running"], running, ", on trial" if values["trial"] else ""))
    code, _, sequence = values["last"]
    if sequence:
        print("sekisho: release %d %s" % (sequence, "failed: " + name(code) if code else "is confirmed"))
    if values["degraded"]:
        print("sekisho: degraded: %s" % name(values["degraded"]))
    if values["locked"]:
        print("sekisho: locked: nothing proves a counter any more")


def run(app=None) -> None:
    """Runs the agent and the application under asyncio; on a device it does not return.

    app: a coroutine function, or the name of a module with a coroutine function `main` (a missing one is no error).
    """
    import asyncio

    try:
        asyncio.run(main(app))
    except (Exception, SystemExit) as error:  # nothing the agent can handle: start afresh, but not in a tight loop
        if isinstance(error, SystemExit) and not production():
            raise  # to the REPL, which no device for the field has
        from machine import reset

        _print_exception(error)
        from . import afresh

        afresh.wait()
        reset()
