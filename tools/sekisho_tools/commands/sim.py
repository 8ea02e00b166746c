"""`sekisho sim`: run a flash image on the simulated ESP32."""

from __future__ import annotations

import json
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.live import Live
from sekisho_sim import bootloader, device, fleet_view, personality
from sekisho_sim.device import Limits, RunResult
from sekisho_sim.efuse import Efuse
from sekisho_sim.flash import SHAPES, Flash, PowerCutError
from sekisho_sim.fleet import MAX_DEVICES, Fleet
from sekisho_sim.personality import Personalities, Personality
from sekisho_sim.world import HEAP, World

from .. import flashimage, imagefile, leftovers
from ..errors import ToolError
from ..files import read_file, write_atomic

app = typer.Typer(no_args_is_help=True)


class CauseName(StrEnum):
    """Why the chip starts."""

    POWER_ON = "power-on"
    RESET = "reset"
    WATCHDOG = "watchdog"


class StartName(StrEnum):
    """Where a firmware takes its Python from."""

    FROZEN = personality.FROZEN
    STOCK = personality.STOCK


class ProfileName(StrEnum):
    """How the bootloader was built."""

    ROLLBACK = "rollback"
    NO_ROLLBACK = "no-rollback"
    ANTI_ROLLBACK = "anti-rollback"


@app.callback()
def _group() -> None:
    """Run a flash image on the simulated ESP32."""
    leftovers.sweep(leftovers.place())


def read_flash(path: Path) -> bytearray:
    """The bytes of a flash image file; ToolError when it is missing or has no flash's size."""
    data = bytearray(read_file(path, "flash image"))
    if len(data) < 1 << 16 or len(data) % 4096:
        raise ToolError(
            "FLASH_IMAGE",
            f"{path} has {len(data)} bytes; a flash image is a whole number of 4 KiB sectors, 64 KiB or more.",
        )
    return data


def open_efuse(path: Path | None) -> Efuse:
    """The eFuses kept in *path*; unburnt ones without a file."""
    if path is None or not path.exists():
        return Efuse()
    try:
        return Efuse(read_file(path, "eFuse file"))
    except ValueError as error:
        raise ToolError("EFUSE_FILE", f"{path}: {error}.") from error


@app.command("bootloader")
def bootloader_command(
    flash_file: Annotated[Path, typer.Argument(metavar="FLASH.bin", help="The flash image; otadata is updated in it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    profile: Annotated[
        ProfileName, typer.Option(help="How the bootloader was built (rollback: MicroPython v1.26).")
    ] = ProfileName.ROLLBACK,
    cause: Annotated[CauseName, typer.Option(help="Why the chip starts.")] = CauseName.POWER_ON,
    efuse: Annotated[
        Path | None, typer.Option(metavar="FILE", help="eFuses (as espefuse --virt keeps them), for anti-rollback.")
    ] = None,
    power_cut_at: Annotated[
        int | None, typer.Option(min=0, help="Cut the power at this flash operation (0 = the first).")
    ] = None,
    torn: Annotated[str | None, typer.Option(metavar="SHAPE", help="How the cut leaves that operation.")] = None,
) -> None:
    """One power-on of the bootloader alone: which slot runs, and what becomes of otadata.

    Example: sekisho sim bootloader flash.bin --json
    """
    flash = Flash(read_flash(flash_file))
    _torn(torn, power_cut_at)
    flash.cut_at, flash.torn = power_cut_at, torn
    fuses = open_efuse(efuse)
    cut = None
    try:
        result = bootloader.power_on(flash, fuses, cause.value, bootloader.PROFILES[profile.value])
    except PowerCutError as error:
        cut = str(error)
        result = bootloader.BootResult(None, None, [cut])
    except ValueError as error:
        raise ToolError("TORN_SHAPE", f"{error}.") from error
    if power_cut_at is not None and cut is None:
        raise ToolError("NO_CUT", f"The power cut never happened: there were only {flash.count} flash operations.")
    if flash.count or cut:
        write_atomic(flash_file, bytes(flash.buffer))
    if efuse and fuses.burns:
        write_atomic(efuse, fuses.encode())
    if as_json:
        typer.echo(json.dumps({"running": result.running, "boot_partition": result.boot_partition, "log": result.log}))
        return
    console = Console(highlight=False, soft_wrap=True)
    for line in result.log:
        console.print(line, markup=False)
    console.print(f"runs: {result.running or 'nothing'}   otadata selects: {result.boot_partition or 'nothing'}")


def _torn(shape: str | None, power_cut_at: int | None) -> None:
    """Raise ToolError TORN_SHAPE for an unknown shape, or one without a cut."""
    if shape is not None and shape not in SHAPES:
        raise ToolError("TORN_SHAPE", f"There is no shape {shape!r}; known: {', '.join(SHAPES)}.")
    if shape is not None and power_cut_at is None:
        raise ToolError("TORN_SHAPE", "--torn says how a power cut leaves an operation; add --power-cut-at N.")


def _personalities(
    flash_file: Path, world: Path, table: Path | None, config: Path | None, start: StartName | None
) -> Personalities | None:
    """What app images stand for, from the options, or from what `image build` left; None leaves it to the world."""
    found = Personalities.load(table) if table else None
    if config is None and start is None:
        if found or (world / "personalities.json").exists():
            return found
        config_file = flashimage.config_beside(flash_file)
        config = config_file if config_file.exists() else None
        if config is None:
            start = StartName.STOCK
            data = bytes(read_flash(flash_file))
            if data.count(0xFF) == len(data):
                return None  # the bootloader will say what is wrong with it
            if not flashimage.is_stock(data):
                raise ToolError(
                    "NO_CONFIG",
                    f"Nothing says what firmware {flash_file} stands for: {config_file.name} beside it, which `sekisho "
                    "image build` writes, is missing, and its file system has no device code; name one with --config.",
                )
    default = found.default if found else Personality()
    if start is not None:
        default = replace(default, name=start.value, start=start.value)
    if config is not None:
        default = default.with_modules(sekisho_config=read_file(config, "device configuration").decode())
    return Personalities(default, found.images if found else {})


def _as_json(results: list[RunResult], trace: bool) -> str:
    boots = []
    for result in results:
        boot: dict[str, object] = {
            "cause": result.cause,
            "slot": result.slot,
            "personality": result.personality,
            "bootloader": result.boot.log,
            "console": result.console,
            "operations": len(result.ops),
            "heap_free": result.heap_free,
        }
        if trace:
            boot["trace"] = [[op.kind, op.address, op.length, op.data.hex()] for op in result.ops]
        boots.append(boot)
    return json.dumps({"boots": boots, "operations": sum(len(result.ops) for result in results)})


@app.command("run")
def run_command(
    flash_file: Annotated[Path, typer.Argument(metavar="FLASH.bin", help="The flash image; the device writes to it.")],
    power_cut_at: Annotated[
        int | None, typer.Option(min=0, help="Cut the power at this flash operation (0 = the first) and stop.")
    ] = None,
    torn: Annotated[str | None, typer.Option(metavar="SHAPE", help="How the cut leaves that operation.")] = None,
    seed: Annotated[int, typer.Option(help="What is left to chance in a torn operation.")] = 0,
    trace: Annotated[bool, typer.Option("--trace", help="List every flash operation.")] = False,
    until: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Switch off when the device has printed this.")
    ] = None,
    max_boots: Annotated[int, typer.Option(min=1, help="Switch off after so many starts.")] = 20,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds after which one start is given up.")] = 120,
    world: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where eFuses, RTC and network are kept [FLASH.bin.sim].")
    ] = None,
    personalities: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What Python each app image stands for (JSON).")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE.py", help="Frozen in as sekisho_config [FLASH.bin.config.py].")
    ] = None,
    start: Annotated[
        StartName | None, typer.Option(help="Start order: frozen (_boot.py first) or stock MicroPython's.")
    ] = None,
    profile: Annotated[ProfileName, typer.Option(help="How the bootloader was built.")] = ProfileName.ROLLBACK,
    heap: Annotated[int, typer.Option(min=16, help="Python heap of the device in KiB.")] = HEAP // 1024,
    speed: Annotated[int, typer.Option(min=1, help="Device seconds in one of ours.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end and nothing else.")] = False,
) -> None:
    """Switch the device on and watch its console until it comes to rest.

    Example: sekisho sim run flash.bin --power-cut-at 40 --torn program-random-bits
    """
    _torn(torn, power_cut_at)
    directory = world or flash_file.with_name(flash_file.name + ".sim")
    machine = World(
        directory,
        flash_file,
        personalities=_personalities(flash_file, directory, personalities, config, start),
        profile=bootloader.PROFILES[profile.value],
        heap=heap * 1024,
        speed=speed,
    )
    out = Console(highlight=False, soft_wrap=True, markup=False, quiet=as_json)
    results: list[RunResult] = []
    number = 0

    def on_boot(boot: bootloader.BootResult) -> None:
        for line in boot.log:
            out.print(f"  bootloader: {line}", style="dim")

    for result in device.power_cycle(
        machine,
        cut=power_cut_at,
        torn=torn,
        seed=seed,
        max_boots=max_boots,
        limits=Limits(seconds=timeout, until=until),
        console=None if as_json else lambda text: out.print(text, end=""),
        on_boot=on_boot,
    ):
        results.append(result)
        if trace:
            for at, op in enumerate(result.ops, number):
                out.print(f"  {at:5} {op.kind:7} 0x{op.address:06x} {op.length}", style="dim")
        number += len(result.ops)
        if result.cut_op:
            out.print(f"  power cut at operation {number} ({result.cut_op.kind} 0x{result.cut_op.address:06x})")
        out.print(
            f"-- {result.slot or 'nothing'} stopped: {result.cause}, {len(result.ops)} flash operations", style="bold"
        )
    if as_json:
        typer.echo(_as_json(results, trace))
    last = results[-1].cause
    if until is not None and last != "until":
        raise ToolError("UNTIL", f"The device never printed {until!r}; it stopped by {last}.")
    if last == "no-boot":
        raise ToolError("NO_BOOT", "Nothing in the flash boots; the lines of the bootloader say why.")
    if last == "timeout":
        raise ToolError(
            "TIMEOUT", f"The device did not come to rest in {timeout:g} s; raise --timeout or give --until."
        )


def _faulty(found: Personalities | None, image: Path | None) -> Personalities | None:
    """The same with *image* standing for firmware that fails its health check."""
    if image is None:
        return found
    found = found or Personalities()
    digest = imagefile.parse(read_file(image, "app image")).digest.hex()
    unhealthy = found.default.with_modules(
        application="import sekisho\nsekisho.on_health(lambda: False)\nasync def main():\n    pass\n"
    )
    return Personalities(found.default, found.images | {digest: replace(unhealthy, name="unhealthy")})


def _members(number: int, server: str, operator: str | None, password_file: Path | None) -> list[dict[str, object]]:
    """The settings of each device; with an operator they are registered at the server, and speak DDI."""
    common: dict[str, object] = {"server": server.rstrip("/"), "wifi": [["sekisho", "sekisho-lab"]], "poll": 30}
    names = [f"sim-{member:03}" for member in range(1, number + 1)]
    if operator is None:
        return [common] * number
    from .. import hawkbit

    api = hawkbit.Api(*hawkbit.credentials(server, operator, password_file))
    try:
        known = {target["controllerId"] for target in api.everything("/targets")}
        new = [{"controllerId": name, "name": name} for name in names if name not in known]
        made = api.call("POST", "/targets", new) if new else []
        tokens = {target["controllerId"]: target["securityToken"] for target in made}
        if len(tokens) < number:
            raise ToolError("FLEET", "Some of sim-001 and so on are registered already, and their tokens are not told.")
    finally:
        api.close()
    return [common | {"protocol": "ddi", "controller": name, "token": tokens[name]} for name in names]


class _Follow:
    """A rollout, asked for now and then by *read*; ``found`` is what is known of it."""

    OVER = ("finished", "stopped", "paused")
    EVERY = 1.0
    """Seconds between two questions."""

    def __init__(self, read: Callable[[], dict[str, Any] | None] | None) -> None:
        self.read = read
        self.found: dict[str, Any] | None = None
        self.trouble = ""
        self._next = 0.0

    def look(self) -> None:
        """Ask, unless it was just done. A server that does not answer is not the end of it."""
        if self.read is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self.EVERY
        try:
            self.found, self.trouble = self.read() or self.found, ""
        except ToolError as error:
            self.trouble = error.sentence

    def over(self) -> bool:
        """Whether it has ended or stopped itself."""
        return self.found is not None and self.found["status"] in self.OVER


def _rollout(server: str, operator: str | None, password_file: Path | None, name: str | None) -> _Follow:
    if name is None:
        return _Follow(None)
    if operator is None:
        raise ToolError("LOGIN", "A rollout is asked for at the server: name the operator with --user.")
    from .. import fleet, hawkbit

    api = hawkbit.Api(*hawkbit.credentials(server, operator, password_file))

    def read() -> dict[str, Any] | None:
        try:
            found = fleet.find_rollout(api, name)
        except ToolError as error:
            if error.code == "NOT_FOUND":
                return None  # not made yet
            raise
        return found | {"groups": fleet.rollout_groups(api, found["id"])}

    return _Follow(read)


@contextmanager
def _orderly_end() -> Iterator[None]:
    """A closed terminal or a plain `kill` ends the command as Ctrl-C does, so that nothing is left behind."""
    signals = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(one, signal.default_int_handler) for one in signals]
    try:
        yield
    finally:
        for one, handler in zip(signals, before, strict=True):
            signal.signal(one, handler)


def _watch(out: Console, fleet: Fleet, follow: _Follow, until: int | None, seconds: float) -> bool | None:
    """Show the fleet until it is done (True), for *seconds* (False), or until Ctrl-C (None); then how it ended."""
    begin = time.monotonic()

    def done(fleet: Fleet) -> bool:
        follow.look()
        over = follow.over() and not fleet.busy()
        return over or (until is not None and fleet.settled(until))

    def frame() -> RenderableType:
        return fleet_view.frame(fleet, time.monotonic() - begin, out.size, follow.found)

    ended: bool | None = None
    try:
        if not out.is_terminal:
            ended = fleet.wait(done, seconds)
        else:
            with Live(frame(), console=out, auto_refresh=False, transient=True) as live:
                ended = fleet.wait(done, seconds, lambda: live.update(frame(), refresh=True))
    except KeyboardInterrupt:
        pass
    out.print(fleet_view.frame(fleet, time.monotonic() - begin, rollout=follow.found))
    for line in fleet_view.conclusion(fleet, follow.found):
        out.print(line, markup=False, highlight=False)
    if follow.trouble:
        out.print(f"The rollout could not be asked for at the end: {follow.trouble}", markup=False, highlight=False)
    return ended


@app.command("fleet")
def fleet_command(
    flash_file: Annotated[Path, typer.Argument(metavar="FLASH.bin", help="What all devices begin with.")],
    server: Annotated[str, typer.Option(help="Address of the server: static, embedded or hawkBit.")],
    number: Annotated[int, typer.Option("-n", "--number", min=1, max=MAX_DEVICES, help="How many devices.")] = 50,
    user: Annotated[
        str | None,
        typer.Option(help="Register the devices as this operator (password in SEKISHO_PASSWORD) and speak DDI."),
    ] = None,
    password_file: Annotated[Path | None, typer.Option(metavar="FILE", help="The operator's password.")] = None,
    faulty: Annotated[
        Path | None, typer.Option(metavar="IMAGE.bin", help="This app image stands for firmware that fails its check.")
    ] = None,
    until: Annotated[
        int | None, typer.Option(metavar="N", help="End when every device runs release N, or rolled it back.")
    ] = None,
    rollout: Annotated[
        str | None, typer.Option(metavar="NAME", help="Show this rollout, also when it is made later (with --user).")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="End after so many seconds.")] = 600,
    speed: Annotated[int, typer.Option(min=1, help="Device seconds in one of ours.")] = 1,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE.py", help="Frozen in as sekisho_config [FLASH.bin.config.py].")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end and nothing else.")] = False,
) -> None:
    """Boot many devices against one server and watch them in a table.

    A sign stands for each device: . runs, v fetches, S staged, T on trial, + confirmed, x rolled back, ! fails, - off.
    With --rollout it ends when that rollout has ended or stopped itself and no device is busy with an update.

    Example: sekisho sim fleet flash.bin -n 50 --server http://127.0.0.1:8000 --until 2
    """
    out = Console(quiet=as_json)
    with _orderly_end(), tempfile.TemporaryDirectory(prefix="sekisho-fleet-") as directory:
        follow = _rollout(server, user, password_file, rollout)
        personalities = _faulty(_personalities(flash_file, Path(directory), None, config, None), faulty)
        settings = _members(number, server, user, password_file)
        flash = bytes(read_flash(flash_file))
        with Fleet(Path(directory), flash, settings, personalities, speed=speed) as fleet:
            fleet.start()
            ended = _watch(out, fleet, follow, until, seconds)
            rows = [
                {
                    "device": member.name,
                    "slot": member.slot,
                    "release": member.release,
                    "state": member.state,
                    "starts": member.starts,
                    "rollbacks": member.rollbacks,
                    "refused": member.refused,
                    "last": member.last,
                }
                for member in fleet.members
            ]
            words = fleet_view.conclusion(fleet, follow.found)
    if as_json:
        typer.echo(json.dumps({"devices": rows, "rollout": follow.found, "conclusion": words}))
    if ended is None and (rollout, until) != (None, None):
        raise KeyboardInterrupt
    if not ended and rollout is not None:
        raise ToolError("UNTIL", f"The rollout {rollout} had not come to its end after {seconds:g} s.")
    if not ended and until is not None:
        raise ToolError("UNTIL", f"Not every device runs release {until} after {seconds:g} s.")
