# Runs on CPython and on MicroPython: the DDI agent with a pretended engine against tests/ddi_server.py.
import asyncio
import gc

from sekisho import ddi, http, settings, store
from sekisho_boot.ledger import IDLE, READY
from sekisho_boot.reasons import ATTEMPTS, BUSY, CLASS, EXPIRED_KEYSET, HEALTH, IMAGE_FORMAT, SIGNATURE, Refused, name

from .agent_cases import CLASS_ID, Engine, Forgetful, settings_of
from .http_cases import be_patient

OPTIONS = {"controller": "lamp 1", "token": "secret-token-of-the-lamp"}
SINS = (
    "truncates ignores-range changes-midway always-changes wrong-bytes says-longer says-shorter wrong-range status/401 "
    "status/404 status/410 status/416 status/429 status/500 chunked resets silent drips redirect redirect-away "
    "localhost"
).split()
ANSWERS = (
    "chunked endless chunk-size chunk-huge chunk-negative chunk-line chunk-end chunk-trailer chunk-cut status-401 "
    "status-403 status-404 status-409 status-429 status-500 away silent html array text empty open deep huge not-utf8 "
    "odd-links null no-href bad-href long-href"
).split()
ORDERS = "no-release two-releases no-payload odd foreign-links chunked huge status-404".split()


def device(base, engine=None, **more):
    options = settings_of(base, **OPTIONS)
    options.update(more)
    said = []
    made = ddi.Agent(engine or Engine(), options, CLASS_ID, said.append)
    made.lines = said
    return made


def forget() -> None:
    store.remove(ddi.KEPT)
    settings.write(settings.STATE, {})


def main(base: str, folder: str) -> None:
    be_patient("")
    settings.STATE = folder + "/state.json"
    ddi.KEPT = folder + "/ddi"
    ddi.agent.BREATH = 0 if ddi.agent.BREATH == 1 else ddi.agent.BREATH
    asyncio.run(everything(base))


async def do(base: str, **what) -> None:
    for key, value in what.items():
        (await http.get("%s/do/%s/%s" % (base, key, value))).close()


async def look(agent) -> str:
    """One poll: what it came to, what it asked of the engine, what the server heard."""
    gc.collect()
    try:
        outcome = "staged" if await agent.poll() else "?"
    except Refused as refused:
        outcome = name(refused.code)
    asked, agent.engine.log = agent.engine.log, []
    heard = str((await http.fetch(agent.server + "/log/x", 4096))[0], "utf-8")
    return "%s | %s | %s" % (outcome, ", ".join(asked), heard)


async def start(base: str, **what) -> None:
    forget()
    await do(base, reset="x")
    await do(base, **what)


async def everything(base: str) -> None:
    await first_contact(base)
    await deployments(base)
    await results(base)
    await progress(base)
    await dropped(base)
    await overload(base)
    await people(base)
    await cancelling(base)
    await confirming(base)
    for sin in SINS:
        await start(base, kind="deployment", payload_path=sin)
        be_patient(sin)
        print("payload", sin, "=", await look(device(base)))
        be_patient("")
    for how in ANSWERS:
        await start(base, root=how)
        be_patient(how if how == "silent" else "")
        agent = device(base)
        print("root", how, "=", await look(agent), agent.every)
        be_patient("")
    for how in ORDERS:
        await start(base, kind="deployment", order=how)
        print("order", how, "=", await look(device(base)))
    for how in ("html", "status-404", "status-500", "huge"):
        await start(base, kind="deployment", suit=how)
        print("envelope", how, "=", await look(device(base)))


async def first_contact(base: str) -> None:
    await start(base, config=1)
    agent = device(base)
    print("first poll =", await look(agent), agent.every)
    print("second poll =", await look(agent))
    agent.engine.keyset = 2
    print("attributes changed =", await look(agent))
    await start(base, config=1, feedback="status-400")
    print("attributes refused =", await look(device(base)))
    for sleep in ("00:00:01", "99:00:00", "PT36H", "P1DT1S", "PT1H30M", "soon", "PT", "1:2"):
        await do(base, reset="x", sleep=sleep)
        agent = device(base)
        await look(agent)
        print("sleep", sleep, "=", agent.every)
    print("wrong token =", await look(device(base, token="guessed")))
    print("no server =", await look_alone(device("")))


async def look_alone(agent) -> str:
    try:
        return str(await agent.poll())
    except Refused as refused:
        return name(refused.code)


async def deployments(base: str) -> None:
    await start(base, kind="deployment")
    agent = device(base)
    print("deployed =", await look(agent))
    print("staged already =", await look(agent))
    for value in ("right", "0" * 64):
        await start(base, kind="deployment", sum=value)
        print("sum", value[:5], "=", await look(device(base)))
    await start(base, kind="deployment", keys=4)
    print("with key sets =", await look(device(base)))
    for label, have in (("key sets alone", 1), ("key sets that it has", 4)):
        await start(base, kind="deployment", keys=4, order="key-sets")
        agent = device(base)
        agent.engine.keyset = have
        print(label, "=", await look(agent))
    for code in (SIGNATURE, BUSY):
        await start(base, kind="deployment", keys=2, order="key-sets")
        agent = device(base)
        agent.engine.refuse_keyset = code
        print("key set alone, refused,", name(code), "=", await look(agent))
        agent.engine.refuse_keyset = 0
        print("and then not,", name(code), "=", await look(agent))
    await start(base, kind="deployment", keys=3)
    agent = device(base, Forgetful())
    print("key set lost =", await look(agent))
    print("and found again =", await look(agent))
    await start(base, kind="deployment", release="running")
    print("runs already =", await look(device(base)))
    for code in (CLASS, EXPIRED_KEYSET):
        await start(base, kind="deployment")
        agent = device(base)
        agent.engine.refuse = code
        print("engine refuses,", name(code), "=", await look(agent))
        print("and again,", name(code), "=", await look(agent))
    await start(base, kind="deployment")
    agent = device(base)
    agent.engine.refuse_bytes = IMAGE_FORMAT
    print("engine refuses the bytes =", await look(agent))
    await start(base, kind="deployment", update="skip", download="skip")
    print("nothing yet =", await look(device(base)))
    await start(base, kind="deployment", update="skip")
    agent = device(base)
    print("download only =", await look(agent))
    print("still waiting =", await look(agent))
    await do(base, update="forced")
    print("window opens =", await look(agent))
    await start(base, kind="deployment", payload_path="truncates")
    ddi.agent.MAX_FAILURES, kept = 0, ddi.agent.MAX_FAILURES
    engine = Engine()
    print("cut in the middle =", await look(device(base, engine)))
    ddi.agent.MAX_FAILURES = kept
    print("goes on after it =", await look(device(base, engine)))
    await start(base, kind="deployment")
    await do(base, payload_path="localhost")
    print("from a mirror =", await look(device(base, mirrors=[base.replace("127.0.0.1", "localhost")])))
    await start(base, kind="deployment", order="foreign-links")
    print("kept origin =", await look(device(base, keep_origin=True)))


def finish(engine, code: int) -> None:
    """What the engine would know after the restart."""
    engine.phase = IDLE
    engine.last = (code, engine.plan.digest, engine.plan.sequence)
    if not code:
        engine.pair = (255, engine.plan.sequence, 0)


async def results(base: str) -> None:
    for label, code in (("confirmed", 0), ("rolled back", HEALTH)):
        await start(base, kind="deployment")
        engine = Engine()
        await look(device(base, engine))
        finish(engine, code)
        print(label, "=", await look(device(base, engine)))
        print(label, "again =", await look(device(base, engine)))
    await start(base, kind="deployment")
    engine = Engine()
    for turn in range(5):
        agent = device(base, engine)
        print("trial without a network,", turn, "=", await look(agent))
        agent._reached(False)
        finish(engine, ATTEMPTS)
    await start(base, kind="deployment")
    engine = Engine()
    await look(device(base, engine))
    engine.phase, engine.last = IDLE, (0, bytes(32), 5)
    print("nobody knows how it ended =", await look(device(base, engine)))
    await start(base, kind="deployment")
    engine = Engine()
    await look(device(base, engine))
    finish(engine, 0)
    await do(base, feedback="status-500")
    print("not heard =", await look(device(base, engine)))
    await do(base, feedback="status-401")
    print("not allowed =", await look(device(base, engine)))
    await do(base, feedback="")
    print("heard after all =", await look(device(base, engine)))
    for status in ("status-404", "status-410"):
        await start(base, kind="deployment")
        engine = Engine()
        await look(device(base, engine))
        finish(engine, 0)
        await do(base, feedback=status, kind="")
        print("gone", status, "=", await look(device(base, engine)))
        print("gone", status, "again =", await look(device(base, engine)))
    await start(base, kind="deployment")  # the power goes between the last word and the engine's record
    engine = Engine()
    engine.stage = crash
    agent = device(base, engine)
    try:
        await agent.poll()
    except OSError:
        pass
    del engine.stage
    engine.log = []
    await do(base, log="x")
    print("cut before staging =", await look(device(base, engine)))
    ddi.KEPT, kept = "/nowhere/ddi", ddi.KEPT
    await do(base, reset="x", kind="deployment")
    engine = Engine()
    print("no file system =", await look(device(base, engine)))
    finish(engine, 0)
    print("told all the same =", await look(device(base, engine)))
    ddi.KEPT = kept
    # gooseBit: the number is that of the software, and the same when it is assigned again
    await start(base, kind="deployment")
    engine = Engine()
    await look(device(base, engine))
    finish(engine, HEALTH)
    await look(device(base, engine))
    await do(base, kind="deployment")
    print("same number again =", await look(device(base, engine)))
    await do(base, number=8)
    print("new number =", await look(device(base, engine)))


def crash():
    raise OSError("power")


async def progress(base: str) -> None:
    for how in ("", "status-500", "status-404"):
        await start(base, kind="deployment", payload_path="status/500")
        agent = device(base)
        await look(agent)
        await do(base, feedback=how)
        agent._quarter = 2
        try:
            await agent._progress()
            outcome = "goes on"
        except Refused as refused:
            outcome = name(refused.code)
        heard = str((await http.fetch(base + "/log/x", 4096))[0], "utf-8")
        print("progress", how or "heard", "=", outcome, "|", heard)


class Large(Engine):
    """Takes `ddi_server.BIG`, whose sectors consist of their number, without keeping it."""

    def room(self):
        return self

    def __setitem__(self, where, data):
        assert bytes(data) == bytes([where.start // 4096]) * 4096

    def stage(self):
        assert self.at == self.plan.targets[0].size
        self.phase = READY
        self.log.append("stage")


async def dropped(base: str) -> None:
    """The connection of the payload breaks, or that of the report does not answer, while progress is told."""
    for how in ("closed", "reset", "silent"):
        await start(base, kind="deployment", release="big", meanwhile=how)
        http.PATIENCE = 3000 if how == "silent" else http.PATIENCE
        agent = device(base, Large())
        print("while progress is told,", how, "=", await look(agent))
        words = [line for line in agent.lines if "going on" in line or "not told" in line]
        print("and said,", how, "=", "; ".join(words))
        be_patient("")


async def overload(base: str) -> None:
    """A server with too much to do says 503 and how long it wants to be left alone."""
    for where in ("root", "order", "suit", "feedback"):
        await start(base, kind="deployment")
        engine = Engine()
        if where == "feedback":
            await look(device(base, engine))
            finish(engine, 0)
        agent = device(base, engine)
        await do(base, **{where: "status-503"})
        print("busy server,", where, "=", await agent.look(), name(agent.result), agent.failures)
        print("asked again,", where, "=", await agent.look(), name(agent.result), agent.failures)
        await do(base, **{where: "", "log": "x"})
        print("no longer busy,", where, "=", await look(agent))
    await start(base, kind="deployment", payload_path="busy-midway")
    agent = device(base)
    print("busy server, payload =", await agent.look(), name(agent.result), agent.engine.at)
    print("no longer busy, payload =", await look(agent))
    await start(base, kind="deployment", payload_path="retry-after/999999999")
    print("busy for years =", await device(base).look())


async def people(base: str) -> None:
    await start(base, kind="deployment")
    print("switched off =", await look(device(base, update_enabled=False)))
    await do(base, reset="x", kind="deployment")
    agent = device(base, update_start="user")
    print("user not asked yet =", await look(agent))
    agent.decide = lambda digest: (1, 0, 1)
    print("user agrees =", await look(agent))
    await start(base, kind="deployment")
    agent = device(base, update_start="administrator")
    agent.decide = lambda digest: (1, 0, 1)
    print("user is not enough =", await look(agent))
    agent.decide = lambda digest: (2, 0, 2)
    print("administrator declines =", await look(agent))
    await start(base, kind="deployment")
    ddi.agent.clock._told = True
    print("own window shut =", await look(device(base, update_window="wed 00:00-00:01")))
    ddi.agent.clock._told = False
    print("own window without a clock =", await look(device(base, update_window="wed 00:00-00:01")))
    for update in ("attempt", "forced"):
        await start(base, kind="deployment", update=update)
        agent = device(base)
        agent.ask = lambda release: False
        print("application is busy,", update, "=", await look(agent))
    told = []
    await start(base, kind="deployment")
    agent = device(base, update_start="user")
    agent.tell = lambda *what: told.append(what)
    await look(agent)
    print("people are told =", told[0])


async def cancelling(base: str) -> None:
    await start(base, kind="cancel")
    print("cancelled before it began =", await look(device(base)))
    await start(base, kind="deployment", payload_path="status/500")
    engine = Engine()
    agent = device(base, engine)
    await look(agent)
    await do(base, kind="cancel", payload_path="")
    print("cancelled while fetching =", await look(agent))
    await start(base, kind="deployment", after="kind=cancel")
    agent = device(base)
    print("cancelled at the last moment =", await look(agent))
    print("and then =", await look(agent))
    await start(base, kind="deployment", after="update=skip")
    print("window shut at the last moment =", await look(device(base)))
    await start(base, kind="deployment")
    engine = Engine()
    agent = device(base, engine)
    await look(agent)
    assert engine.phase == READY
    await do(base, kind="cancel")
    print("cancelled when staged =", await look(agent))
    finish(engine, 0)
    await do(base, feedback="status-404")
    agent = device(base, engine)
    agent._outcome()
    await agent._deliver()
    await do(base, feedback="", log="x")
    print("cancelled when it runs =", await look(agent))


async def confirming(base: str) -> None:
    await start(base, kind="confirmation")
    print("confirmed by itself =", await look(device(base)))
    for code in (0, SIGNATURE):
        await start(base, kind="confirmation", keys=2, order="key-sets")
        agent = device(base, update_start="user")
        agent.engine.refuse_keyset = code
        print("confirms key sets,", code, "=", await look(agent))
    await start(base, kind="confirmation")
    agent = device(base, update_start="user")
    print("user not asked =", await look(agent))
    agent.decide = lambda digest: (2, 0, 1)
    print("user says no =", await look(agent))
    print("not said twice =", await look(agent))
    agent.decide = lambda digest: (1, 0, 1)
    print("user says yes after all =", await look(agent))
    await start(base, kind="confirmation")
    agent = device(base)
    agent.engine.refuse = CLASS
    print("not for this device =", await look(agent))
    await start(base, kind="confirmation", suit="status-404")
    print("cannot be read yet =", await look(device(base)))
