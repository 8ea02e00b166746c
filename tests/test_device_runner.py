"""The device runner: start orders, resets, sleep, power cuts, watchdog, heap - shown with firmware of a few lines."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from pathlib import Path

import pytest
from helpers.images import app, flash_with
from helpers.simulated import SOON, Bench, boots, causes
from littlefs import LittleFS
from sekisho_sim import device
from sekisho_sim.bootloader import VALID, Entry
from sekisho_sim.device import Limits, machine, power_cycle
from sekisho_sim.driver import ForkDriver, ProcessDriver
from sekisho_sim.flash import Flash, decode_ops, encode_ops, replay
from sekisho_sim.personality import STOCK, Personalities, Personality
from sekisho_sim.shims import _sim_layout as at
from sekisho_sim.world import World
from sekisho_tools.errors import ToolError

VFS = 0x350000
VFS_SIZE = 0xB0000

STEPS = """
import machine
from esp32 import Partition
part = Partition.find(Partition.TYPE_DATA, label="vfs")[0]
mark = bytearray(1)
part.readblocks(0, mark)
print("step", mark[0], machine.reset_cause())
if mark[0] == 0xFF:
    part.writeblocks(0, b"\\xfe", 0)
    machine.reset()
if mark[0] == 0xFE:
    part.writeblocks(0, b"\\xfc", 0)
    machine.deepsleep(5000)
if mark[0] == 0xFC:
    part.ioctl(6, 1)
    part.writeblocks(1, b"data", 100)
print("done")
"""
"""Four operations over three power-ups; the bootloader adds two at the very first."""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def stock_flash(files: dict[str, str | bytes]) -> Flash:
    """A flash whose vfs partition is a littlefs with *files*."""
    fs = LittleFS(
        block_size=4096, block_count=VFS_SIZE // 4096, read_size=32, prog_size=32, lookahead_size=32,
        disk_version=0x00020000,
    )  # fmt: skip
    for name, content in files.items():
        with fs.open(name, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
    flash = flash_with({"ota_0": app()}, (Entry.make(1, VALID), None))
    flash.buffer[VFS : VFS + VFS_SIZE] = fs.context.buffer
    return flash


# -- starting -------------------------------------------------------------------------------------------------------


def test_frozen_start_order_is_boot_stage_then_boot_then_main(bench: Bench) -> None:
    world = bench.world(
        "print('main', __name__)",
        boot="import sys; print('_boot', __name__, sys.path)",
        modules={"boot.py": "print('boot', __name__)"},
    )
    result = machine().run(world)
    assert result.console.splitlines() == [
        "_boot __main__ ['', '.frozen', '/lib']",
        "boot __main__",
        "main __main__",
    ]
    assert result.cause == "idle"


def test_stock_start_mounts_the_file_system_and_runs_its_scripts(bench: Bench) -> None:
    files = {
        "boot.py": "import sys, os\nprint('boot', __name__, sys.path, os.listdir('/'))\nimport extra\n",
        "main.py": "print('main', extra)",
        "extra.py": "print('extra', __name__)",
    }
    flash = stock_flash(files)
    result = machine().run(bench.world(flash=flash, start=STOCK))
    assert result.console.splitlines()[:2] == [
        "boot __main__ ['', '.frozen', '/lib'] ['boot.py', 'extra.py', 'main.py']",
        "extra extra",
    ]


def test_stock_start_formats_a_blank_file_system_and_hangs_on_a_damaged_one(bench: Bench) -> None:
    flash = flash_with({"ota_0": app()}, (Entry.make(1, VALID), None))
    world = bench.world(flash=flash, start=STOCK)
    assert machine().run(world, limits=SOON).cause == "idle"
    assert any(op.kind == "program" for op in decode_ops((world.directory / "ops.bin").read_bytes()))
    flash.buffer[VFS : VFS + 8] = b"no fs..."
    world = bench.world(flash=flash, start=STOCK)
    result = machine().run(world, limits=Limits(seconds=10, until="corrupted"))
    assert result.cause == "until"


def test_exception_in_one_script_does_not_stop_the_next(bench: Bench) -> None:
    lines = machine().run(bench.world("print('main ran')", boot="raise ValueError('in _boot')")).console
    assert "ValueError: in _boot" in lines
    assert lines.endswith("main ran\n")


def test_personality_follows_the_image_that_runs(bench: Bench) -> None:
    old, new = app("old"), app("new")
    table = {
        hashlib.sha256(image).hexdigest(): Personality(
            name, default=False, modules={"main.py": f"import sys; print('{name}', sys.implementation[1][1])"},
            version=(1, minor, 0),
        )
        for image, name, minor in ((old, "old", 26), (new, "new", 27))
    }  # fmt: skip
    for seq, expected in ((1, "old 26"), (2, "new 27")):
        flash = flash_with({"ota_0": old, "ota_1": new}, (Entry.make(seq, VALID), None))
        world = bench.world(flash=flash, personalities=Personalities(images=table))
        result = machine().run(world)
        assert result.console == expected + "\n"
        assert result.personality == expected.split()[0]


def test_device_code_cannot_see_the_host(bench: Bench) -> None:
    probe = """
import os, vfs, sys
for name in ("/etc/passwd", "/proc/self/maps", "/dev/shm"):
    try:
        os.stat(name)
        print("sees", name)
    except OSError:
        pass
print([n for n in dir(vfs) + dir(os) if n in ("VfsPosix", "VfsRom", "VfsLfs1", "system", "getenv")])
print([n for n in sys.modules if n.startswith("_sim")])
for name in ("_sim_dev", "_sim_layout", "termios", "ffi"):
    try:
        __import__(name)
        print("imports", name)
    except ImportError:
        pass
"""
    assert bench.printed(probe) == ["[]", "[]"]


# -- stopping -------------------------------------------------------------------------------------------------------


def test_device_resets_sleeps_and_comes_to_rest(bench: Bench) -> None:
    results = boots(bench.world(STEPS))
    assert causes(results) == ["reset", "deep-sleep", "idle"]
    assert [result.console.splitlines()[0] for result in results] == ["step 255 1", "step 254 5", "step 252 4"]
    assert results[1].sleep_ms == 5000
    assert [len(result.ops) for result in results] == [3, 1, 2]
    assert "woken from deep sleep" in results[2].boot.log[0]


def test_reset_is_no_exception_that_code_could_catch(bench: Bench) -> None:
    result = bench.run(
        "import machine\ntry:\n    machine.reset()\nexcept BaseException:\n    print('caught')\n"
        "finally:\n    print('finally')"
    )
    assert (result.cause, result.console) == ("reset", "")


def test_soft_reset_skips_the_bootloader_and_keeps_the_clock(bench: Bench) -> None:
    main = """
import machine
rtc = machine.RTC()
print(rtc.memory(), machine.reset_cause())
if not rtc.memory():
    rtc.memory(b"once")
    machine.soft_reset()
"""
    first, second = boots(bench.world(main))
    assert (first.cause, second.cause) == ("soft-reset", "idle")
    assert second.boot.log == []
    assert second.console == "b'once' 1\n"


def test_rtc_memory_outlives_a_reset_and_not_a_power_cut(bench: Bench) -> None:
    main = """
import machine, time
rtc = machine.RTC()
print(rtc.memory(), time.gmtime()[0])
if not rtc.memory():
    rtc.memory(b"kept")
    rtc.datetime((2026, 11, 23, 0, 12, 0, 0, 0))
    machine.reset()
"""
    world = bench.world(main)
    first, second = boots(world)
    assert first.console == "b'' 2000\n"
    assert second.console == "b'kept' 2026\n"
    assert boots(world, max_boots=1)[0].console == "b'' 2000\n"


def test_writing_the_running_slot_panics_and_changes_nothing(bench: Bench) -> None:
    world = bench.world(
        "from esp32 import Partition\np = Partition(Partition.RUNNING)\ntry:\n    p.writeblocks(0, b'x', 0)\n"
        "except BaseException:\n    print('caught')"
    )
    before = world.flash_path.read_bytes()[0x10000:]
    result = machine().run(world)
    assert result.cause == "panic"
    assert "caught" not in result.console
    assert world.flash_path.read_bytes()[0x10000:] == before


def test_nothing_bootable_is_said(bench: Bench) -> None:
    result = machine().run(bench.world("print(1)", flash=flash_with({})))
    assert (result.cause, result.slot, result.console) == ("no-boot", None, "")


# -- watchdog and time ----------------------------------------------------------------------------------------------


def test_watchdog_ends_a_hang_and_is_the_reset_cause(bench: Bench) -> None:
    main = """
import machine
print(machine.reset_cause())
if machine.reset_cause() != machine.WDT_RESET:
    machine.WDT(timeout=60000)
    while True:
        pass
"""
    results = boots(bench.world(main, speed=600))
    assert causes(results) == ["watchdog", "idle"]
    assert results[1].console == "3\n"


def test_watchdog_that_is_fed_lets_the_device_live(bench: Bench) -> None:
    main = """
import machine, time
dog = machine.WDT(timeout=100000)
for _ in range(3):
    time.sleep(50)
    dog.feed()
print("alive")
machine.reset()
"""
    result = bench.run(main, speed=100)
    assert (result.cause, result.console) == ("reset", "alive\n")


def test_armed_watchdog_bites_at_the_prompt(bench: Bench) -> None:
    assert bench.run("import machine; machine.WDT(timeout=5000)").cause == "watchdog"


def test_armed_watchdog_outlives_a_soft_reset(bench: Bench) -> None:
    main = """
import machine
if not machine.RTC().memory():
    machine.RTC().memory(b"1")
    machine.WDT(timeout=5000)
    machine.soft_reset()
"""
    assert causes(boots(bench.world(main), max_boots=2)) == ["soft-reset", "watchdog"]


def test_sped_up_time_is_consistent_under_asyncio(bench: Bench) -> None:
    main = """
import asyncio, time
async def slow():
    await asyncio.sleep(600)
async def main():
    start, clock = time.ticks_ms(), time.time()
    try:
        await asyncio.wait_for(slow(), 60)
    except asyncio.TimeoutError:
        waited = time.ticks_diff(time.ticks_ms(), start) // 1000
        print(60 <= waited < 120, 59 <= time.time() - clock < 120)
    async def nap(n):
        await asyncio.sleep(n)
        return n
    print(await asyncio.gather(nap(2), nap(1)))
asyncio.run(main())
"""
    assert bench.printed(main, speed=500) == ["True True", "[2, 1]"]


def test_asyncio_works_at_ordinary_speed(bench: Bench) -> None:
    main = "import asyncio\nasync def m():\n    await asyncio.sleep_ms(5)\n    print('ok')\nasyncio.run(m())"
    assert bench.printed(main) == ["ok"]


# -- power cuts -----------------------------------------------------------------------------------------------------


def test_power_cut_at_every_operation_is_recovered(bench: Bench) -> None:
    for number in range(6):
        world = bench.world(STEPS)
        cut = boots(world, cut=number)
        assert cut[-1].cause == "cut", number
        assert sum(len(result.ops) for result in cut) == number
        again = boots(world)
        assert again[-1].console.endswith("done\n"), number
        assert again[0].console.splitlines()[0].endswith(" 1"), "a cut is followed by a power-on reset"


def test_power_cut_that_never_fires_is_an_error(bench: Bench) -> None:
    with pytest.raises(ToolError, match="never happened") as caught:
        boots(bench.world(STEPS), cut=6)
    assert caught.value.code == "NO_CUT"
    with pytest.raises(ToolError, match="never happened"):
        machine().run(bench.world(STEPS), cut=5)


def test_torn_operation_leaves_its_mark_in_flash(bench: Bench) -> None:
    world = bench.world(STEPS)
    result = boots(world, cut=5, torn="program-low-half")[-1]
    assert result.cut_op is not None
    assert (result.cut_op.kind, result.cut_op.data) == ("program", b"data")
    at = result.cut_op.address
    assert world.flash_path.read_bytes()[at : at + 4] == b"da\xff\xff"


def test_torn_shape_for_another_kind_of_operation_is_refused(bench: Bench) -> None:
    with pytest.raises(ToolError) as caught:
        machine().run(bench.world(STEPS), cut=2, torn="erase-noise")
    assert caught.value.code == "TORN_SHAPE"


def test_power_cut_cannot_be_caught(bench: Bench) -> None:
    main = """
from esp32 import Partition
part = Partition.find(Partition.TYPE_DATA, label="vfs")[0]
try:
    part.ioctl(6, 0)
except BaseException:
    print("caught")
finally:
    print("finally")
"""
    result = machine().run(bench.world(main), cut=2)
    assert (result.cause, result.console) == ("cut", "")


def test_cut_inside_a_call_of_the_system_kills_the_device(bench: Bench) -> None:
    flash = flash_with({"ota_0": app(), "ota_1": app("two")}, (Entry.make(1, VALID), None))
    world = bench.world("from esp32 import Partition\nPartition('ota_1').set_boot()\nprint('after')", flash=flash)
    result = machine().run(world, cut=1)
    assert (result.cause, result.console) == ("cut", "")
    assert [op.kind for op in result.ops] == ["erase"]
    assert result.cut_op is not None
    assert result.cut_op.kind == "program"


def test_operation_log_replayed_gives_the_flash(bench: Bench) -> None:
    world = bench.world(STEPS)
    base = world.flash_path.read_bytes()
    for result in power_cycle(world):
        base = bytes(replay(base, result.ops))
        assert base == world.flash_path.read_bytes()
        assert decode_ops((world.directory / "ops.bin").read_bytes()) == result.ops


# -- heap -----------------------------------------------------------------------------------------------------------


def test_heap_is_the_devices_own(bench: Bench) -> None:
    free = "import gc; gc.collect(); print(gc.mem_free())"
    bare = int(bench.printed(free)[0])
    assert abs(bare - 100 * 1024) < 6000
    large = "\n".join(f"def f{i}(a, b):\n    return [a + b, a - b, '{i} is a constant']" for i in range(120))
    frozen = "import large, gc; gc.collect(); print(gc.mem_free())"
    with_module = int(bench.printed(frozen, modules={"large.py": large})[0])
    # What remains is what a chip pays too: the module's dictionary and its function objects.
    assert bare - with_module < 24 * 120 * 2


def test_too_much_memory_is_a_memory_error(bench: Bench) -> None:
    main = (
        "try:\n    bytearray(110 * 1024)\nexcept MemoryError:\n    print('MemoryError')\n"
        "bytearray(60 * 1024)\nprint('fits')"
    )
    assert bench.printed(main) == ["MemoryError", "fits"]
    assert bench.printed(main, heap=200 * 1024) == ["fits"]


# -- traps of the official firmware ---------------------------------------------------------------------------------

MOUNT = "import vfs\nfrom esp32 import Partition\nvfs.mount(Partition.find(1, label='vfs')[0], '/')\n"


def test_file_on_the_path_shadows_a_builtin_module_unless_the_path_is_pinned(bench: Bench) -> None:
    flash = stock_flash({"hashlib.py": "print('shadowed')\nsha256 = None", "mine.py": "print('mine shadowed')"})
    main = "import hashlib\nimport mine\nprint(hashlib.sha256 is None)"
    modules = {"mine.py": "print('mine frozen')"}
    assert bench.printed(main, boot=MOUNT, flash=flash, modules=modules) == ["shadowed", "mine shadowed", "True"]
    pinned = "import sys\nsys.path[:] = ['.frozen']\n" + MOUNT
    assert bench.printed(main, boot=pinned, flash=flash, modules=modules) == ["mine frozen", "False"]


def test_frozen_modules_need_frozen_on_the_path(bench: Bench) -> None:
    main = "import sys\nsys.path[:] = []\ntry:\n    import mine\nexcept ImportError as e:\n    print(e)"
    assert bench.printed(main, modules={"mine.py": ""}) == ["no module named 'mine'"]


def test_frozen_packages_import_relatively_and_later(bench: Bench) -> None:
    modules = {
        "pack/__init__.py": "print('pack', __name__)",
        "pack/one.py": "from .two import value\nprint(__name__, value)",
        "pack/two.py": "value = 2",
    }
    main = "import pack.one\ndef late():\n    from pack import two\n    return two.value\nprint(late())"
    assert bench.printed(main, modules=modules) == ["pack pack", "pack.one 2", "2"]


# -- other interpreters, sharing, faults ----------------------------------------------------------------------------


def test_any_other_micropython_runs_the_same_device(bench: Bench, repo: Path) -> None:
    command = repo / ".venv/bin/micropython"
    if not command.exists():
        pytest.skip("needs the micropython command in .venv")
    with device.Machine(ProcessDriver(str(command))) as other:
        world = bench.world(STEPS)
        results = list(power_cycle(world, cut=5, torn="program-done", on=other))
        assert causes(results) == ["reset", "deep-sleep", "cut"]
        assert list(power_cycle(world, on=other))[-1].console.endswith("done\n")


def test_warm_starts_are_the_same_devices(bench: Bench) -> None:
    """A warm start shares what comes before the first touch of the world; everything after is as in a cold one."""
    main = "import machine\nprint('imported')\n" + STEPS
    outcomes = []
    for warm in (False, True):
        with device.Machine(ForkDriver(warm=warm)) as runner:
            seen: list[object] = []
            for number in range(6):
                world = bench.world(main)
                cut = list(power_cycle(world, cut=number, torn=None, on=runner))
                again = list(power_cycle(world, on=runner))
                seen += [(result.cause, result.console, result.ops) for result in cut + again]
                seen.append(hashlib.sha256(world.flash_path.read_bytes()).digest())
            outcomes.append(seen)
    assert outcomes[0] == outcomes[1]


def test_warm_firmware_that_hangs_on_import_is_stopped(bench: Bench) -> None:
    with device.Machine(ForkDriver(warm=True)) as runner:
        world = bench.world("while True:\n    pass")
        assert runner.run(world, limits=Limits(seconds=0.2)).cause == "timeout"
        assert runner.run(bench.world("print('next')")).console == "next\n"


def test_a_helper_that_does_not_answer_is_replaced(bench: Bench) -> None:
    """A computer under heavy load; what the old helper held must not be mistaken for the new one's."""
    driver = ForkDriver()
    with device.Machine(driver) as runner:
        runner.run(bench.world("print('first')"))
        stop = threading.Timer(0.3, os.kill, (driver._cold._process.pid, signal.SIGSTOP))
        stop.start()
        world = bench.world("print('on')\nwhile True:\n    pass")
        assert runner.run(world, limits=Limits(seconds=1)).cause == "timeout"
        assert runner.run(bench.world("print('next')")).console == "next\n"


def test_an_answer_that_a_stopped_device_did_not_read_is_not_the_next_ones(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a busy computer does now and then, done on purpose: the device does not run between answer and kill."""
    driver, limits, answer = ForkDriver(), Limits(), device._Host.answer
    helper = driver._cold._process.pid

    def slow(host: device._Host, what: int, payload: bytes) -> bytes:
        child = Path(f"/proc/{helper}/task/{helper}/children").read_text()
        os.kill(int(child), signal.SIGSTOP)
        limits.stop = True
        return answer(host, what, payload)

    main = "import esp32\nnvs = esp32.NVS('n')\nnvs.set_i32('a', 7)\nprint(nvs.get_i32('a'))"
    with device.Machine(driver) as runner:
        monkeypatch.setattr(device._Host, "answer", slow)
        assert runner.run(bench.world(main), limits=limits).cause == "timeout"
        assert limits.stop
        monkeypatch.setattr(device._Host, "answer", answer)
        assert runner.run(bench.world(main), limits=SOON).console == "7\n"


def test_an_operation_that_was_complete_when_the_device_was_stopped_is_not_done_twice(tmp_path: Path) -> None:
    """Stopped after it has counted the operation, before it has taken back that one is in progress."""
    board, flash = device._Board(tmp_path / "board"), bytearray(b"\xff" * 8192)
    board[at.CUT], board[at.CAPACITY] = at.NEVER, 1 << 20
    both = device._BoardFlash(flash, board)  # type: ignore[arg-type]
    both.program(0, b"first")
    both.erase(4096)  # an older run's, whose record is still in the memory
    first = len(encode_ops(board.ops()[:1]))
    board[at.USED], board[at.COUNT], board[at.PENDING] = 0, 0, 0
    both.program(0, b"first")
    for pending, op in ((1, None), (first + 1, "erase"), (0, None)):
        board[at.PENDING] = pending
        found = board.pending()
        assert (found.kind if found else None) == op
    board.memory.close()


def test_missing_micropython_is_said_in_one_sentence() -> None:
    with pytest.raises(ToolError) as caught:
        ProcessDriver("no-such-micropython")
    assert caught.value.code == "MICROPYTHON"


def test_device_that_never_ends_is_stopped(bench: Bench) -> None:
    world = bench.world("print('on')\nwhile True:\n    pass")
    assert machine().run(world, limits=Limits(seconds=0.2)).cause == "timeout"
    assert machine().run(world, limits=Limits(until="on")).cause == "until"


def test_console_is_given_as_it_comes(bench: Bench) -> None:
    parts: list[str] = []
    result = machine().run(bench.world("print('one')\nprint('two')"), console=parts.append)
    assert "".join(parts) == result.console == "one\ntwo\n"


def test_two_machines_run_side_by_side(bench: Bench) -> None:
    with device.Machine() as one, device.Machine() as two:
        first, second = bench.world(STEPS), bench.world(STEPS)
        for _ in range(3):
            one.run(first)
            two.run(second)
    assert first.flash_path.read_bytes() == second.flash_path.read_bytes()


def test_world_refuses_what_is_no_flash_or_no_network(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as caught:
        World(tmp_path / "none")
    assert caught.value.code == "FILE"
    with pytest.raises(ToolError) as caught:
        World.create(tmp_path / "short", b"\xff" * 1000)
    assert caught.value.code == "FLASH_IMAGE"
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "net.json").write_text(json.dumps({"ssid": "x", "wrong": 1}))
    with pytest.raises(ToolError) as caught:
        World.create(tmp_path / "w", b"\xff" * 0x10000)
    assert caught.value.code == "WORLD"
