"""`esp32`, `machine`, `network`, `time` and the rest as a device sees them: values, limits and errors of the chip.

The errors of `esp32.Partition` are those of the table in the platform notes (ESP-IDF's checks, in their order, through
MicroPython's `check_esp_err`); numbers measured on official firmware are marked.
"""

from __future__ import annotations

import hashlib
import socket
import threading
from pathlib import Path

import pytest
from helpers.images import app, flash_with
from helpers.simulated import Bench, boots, causes
from sekisho_sim.bootloader import NEW, PENDING, VALID, Entry, read_entries
from sekisho_sim.device import machine
from sekisho_sim.efuse import Efuse
from sekisho_sim.flash import Flash, MemPart
from sekisho_sim.nvs import mount
from sekisho_sim.world import Network
from sekisho_tools.layout import parse_csv

CSV = """
nvs,      data, nvs,      0x9000,   0x4000,
otadata,  data, ota,      0xd000,   0x2000,
phy_init, data, phy,      0xf000,   0x1000,
ota_0,    app,  ota_0,    0x10000,  0x10000,
ota_1,    app,  ota_1,    0x20000,  0x10000,
sekisho,  data, 0x40,     0x30000,  0x4000,
secret,   data, 0x41,     0x34000,  0x4000, encrypted
fixed,    data, 0x42,     0x38000,  0x4000, readonly
vfs,      data, littlefs, 0x3c000,  0x4000,
"""

PRELUDE = """
from esp32 import Partition
def of(label, size=4096):
    return Partition.find(Partition.TYPE_DATA, label=label, block_size=size)[0]
def error(call):
    try:
        return call()
    except Exception as e:
        return type(e).__name__, e.args
part = of("sekisho")
"""


def flash(**otadata: Entry) -> Flash:
    entries = (otadata.get("first", Entry.make(1, VALID)), otadata.get("second"))
    return flash_with({"ota_0": app(), "ota_1": app("other")}, entries, parse_csv(CSV, 1 << 20))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def ask(bench: Bench, *expressions: str, **options: object) -> list[str]:
    """What a device answers to each expression, one line each."""
    main = PRELUDE + "".join(f"print({expression})\n" for expression in expressions)
    return bench.printed(main, flash=options.pop("flash", None) or flash(), **options)


# -- esp32.Partition ------------------------------------------------------------------------------------------------

ERRORS = [
    # condition, expression, what MicroPython shows
    ("write read-only", "of('fixed').writeblocks(0, b'x', 0)", -269, "ESP_ERR_NOT_ALLOWED"),
    ("erase read-only", "of('fixed').ioctl(6, 0)", -269, "ESP_ERR_NOT_ALLOWED"),
    ("read behind the end", "part.readblocks(5, bytearray(1))", -258, "ESP_ERR_INVALID_ARG"),
    ("read over the end", "part.readblocks(3, bytearray(4097))", -260, "ESP_ERR_INVALID_SIZE"),
    ("program behind the end", "part.writeblocks(4, b'x', 1)", -258, "ESP_ERR_INVALID_ARG"),
    ("program over the end", "part.writeblocks(3, b'xy', 4095)", -260, "ESP_ERR_INVALID_SIZE"),
    ("erase behind the end", "part.ioctl(6, 5)", -258, "ESP_ERR_INVALID_ARG"),
    ("erase at the end", "part.ioctl(6, 4)", -260, "ESP_ERR_INVALID_SIZE"),
    ("write that is no whole sector", "part.writeblocks(0, b'x')", -260, "ESP_ERR_INVALID_SIZE"),
    ("write between sectors", "of('sekisho', 8192 - 512).writeblocks(1, bytes(4096))", -258, "ESP_ERR_INVALID_ARG"),
    ("encrypted, address", "of('secret').writeblocks(0, bytes(16), 8)", -258, "ESP_ERR_INVALID_ARG"),
    ("encrypted, length", "of('secret').writeblocks(0, bytes(8), 16)", -260, "ESP_ERR_INVALID_SIZE"),
    ("negative block", "part.readblocks(-1, bytearray(1))", -258, "ESP_ERR_INVALID_ARG"),
    ("no such image", "Partition('vfs').set_boot()", -5379, "ESP_ERR_OTA_VALIDATE_FAILED"),
]


@pytest.mark.parametrize(("expression", "errno", "name"), [row[1:] for row in ERRORS], ids=[row[0] for row in ERRORS])
def test_partition_error_is_the_chips(bench: Bench, expression: str, errno: int, name: str) -> None:
    assert ask(bench, f"error(lambda: {expression})") == [f"('OSError', ({errno}, '{name}'))"]


def test_partition_lookup_errors(bench: Bench) -> None:
    assert ask(
        bench,
        "error(lambda: Partition('nothing'))",
        "error(lambda: Partition(2))[0]",
        "error(lambda: Partition(None))[0]",
        "Partition.find(7)",
    ) == ["('OSError', (2,))", "ValueError", "TypeError", "[]"]


def test_partition_tells_what_the_table_says(bench: Bench) -> None:
    assert ask(
        bench,
        "part.info()",
        "repr(Partition('ota_1'))",
        "[p.info()[4] for p in Partition.find()]",
        "[p.info()[4] for p in Partition.find(Partition.TYPE_DATA)]",
        "[p.info()[4] for p in Partition.find(Partition.TYPE_DATA, 0x41)]",
        "of('secret').info()[5]",
        "Partition(Partition.RUNNING).info()[4], Partition(Partition.BOOT).info()[4]",
        "Partition('ota_0').get_next_update().info()[4], Partition('ota_1').get_next_update().info()[4]",
    ) == [
        "(1, 64, 196608, 16384, 'sekisho', False)",
        "<Partition type=0, subtype=17, address=131072, size=65536, label=ota_1, encrypted=0>",
        "['ota_0', 'ota_1']",
        "['nvs', 'otadata', 'phy_init', 'sekisho', 'secret', 'fixed', 'vfs']",
        "['secret']",
        "True",
        "ota_0 ota_0",
        "ota_1 ota_0",
    ]


def test_partition_ioctl(bench: Bench) -> None:
    assert ask(
        bench,
        "part.ioctl(1, 0), part.ioctl(2, 0), part.ioctl(3, 0)",
        "part.ioctl(4, 0), part.ioctl(5, 0), of('sekisho', 512).ioctl(4, 0), of('sekisho', 512).ioctl(5, 0)",
        "part.ioctl(6, 0), of('sekisho', 512).ioctl(6, 0), part.ioctl(7, 0)",
    ) == ["0 0 0", "4 4096 32 512", "0 -22 None"]


def test_programming_only_clears_bits_and_erasing_sets_them(bench: Bench) -> None:
    main = (
        PRELUDE
        + """
buf = bytearray(4)
def show():
    part.readblocks(0, buf, 254)
    print(bytes(buf))
part.writeblocks(0, b"\\xf0\\xf0\\xf0\\xf0", 254)
show()
part.writeblocks(0, b"\\x3c\\x3c", 255)
show()
part.writeblocks(0, bytes(4096))
show()
part.ioctl(6, 0)
show()
of("sekisho", 512).writeblocks(0, b"abcdef")
part.readblocks(0, buf)
print(bytes(buf))
"""
    )
    world = bench.world(main, flash=flash())
    result = machine().run(world)
    assert result.console.splitlines() == [
        r"b'\xf0\xf0\xf0\xf0'",
        r"b'\xf00" + r"0\xf0'",
        r"b'\x00\x00\x00\x00'",
        r"b'\xff\xff\xff\xff'",
        "b'abcd'",
    ]
    assert [(op.kind, op.length) for op in result.ops] == [
        ("program", 4),
        ("program", 2),
        ("erase", 4096),
        ("program", 4096),
        ("erase", 4096),
        ("erase", 4096),
        ("program", 4096),
    ]


def test_set_boot_writes_the_other_entry_as_new(bench: Bench) -> None:
    world = bench.world(PRELUDE + "Partition('ota_1').set_boot()\nimport machine\nmachine.reset()", flash=flash())
    assert machine().run(world).cause == "reset"
    table = parse_csv(CSV, 1 << 20)
    with_entries = Flash(bytearray(world.flash_path.read_bytes()))
    assert table.otadata is not None
    assert [(e.seq, e.state) for e in read_entries(with_entries, table.otadata)] == [(1, VALID), (2, NEW)]
    assert machine().run(world).slot == "ota_1"


def test_mark_valid_acts_on_the_active_entry_and_only_when_needed(bench: Bench) -> None:
    main = PRELUDE + "print(error(Partition.mark_app_valid_cancel_rollback))"
    for first, state, writes in ((Entry.make(1, NEW), PENDING, 2), (Entry.make(1, VALID), VALID, 0)):
        world = bench.world(main, flash=flash(first=first))
        result = machine().run(world)
        assert result.console == "None\n"
        own = [op for op in result.ops if op.kind == "program"][-1:] if state == PENDING else []
        assert len(result.ops) - (2 if state == PENDING else 0) == writes
        assert not own or Entry.decode(own[0].data).state == VALID


def test_mark_valid_without_an_active_entry_is_esp_fail(bench: Bench) -> None:
    bare = flash()
    entry = Entry(5, VALID, 0)  # wrong CRC: nothing is active, and the bootloader tries what there is
    bare.buffer[0xD000 : 0xD000 + 32] = entry.encode()
    assert ask(bench, "error(Partition.mark_app_valid_cancel_rollback)", flash=bare) == ["('OSError', (1, 'ESP_FAIL'))"]


def test_partition_behind_the_table_appears_as_vfs(bench: Bench) -> None:
    table = parse_csv("\n".join(line for line in CSV.splitlines() if not line.startswith("vfs")), 1 << 20)
    bare = flash_with({"ota_0": app()}, (Entry.make(1, VALID), None), table)
    assert ask(bench, "of('vfs').info()", flash=bare) == ["(1, 129, 245760, 802816, 'vfs', False)"]


# -- esp32.NVS ------------------------------------------------------------------------------------------------------

NVS = """
from esp32 import NVS
def error(call):
    try:
        return call()
    except Exception as e:
        return type(e).__name__, e.args
n = NVS("app")
"""


def test_nvs_keeps_values_in_the_real_format_over_a_reset(bench: Bench) -> None:
    main = (
        NVS
        + """
import machine
if machine.reset_cause() == 1:
    n.set_i32("count", -7)
    n.set_blob("key", b"\\0binary\\0")
    n.commit()
    machine.reset()
buf = bytearray(20)
print(n.get_i32("count"), n.get_blob("key", buf), bytes(buf[:8]))
n.erase_key("count")
print(error(lambda: n.get_i32("count")))
"""
    )
    world = bench.world(main, flash=flash())
    _, last = boots(world)
    assert last.console.splitlines() == [
        "-7 8 b'\\x00binary\\x00'",
        "('OSError', (-4354, 'ESP_ERR_NVS_NOT_FOUND'))",
    ]
    part = MemPart(0x4000, Flash(bytearray(world.flash_path.read_bytes())), 0x9000)
    assert mount(part)[0].dump() == {"app": {"key": b"\0binary\0"}}


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("error(lambda: n.set_i32('k', 2**31))[0]", "OverflowError"),
        ("error(lambda: n.set_i32('k', -2**31 - 1))[0]", "OverflowError"),
        ("n.set_i32('k', -2**31), n.get_i32('k')", "None -2147483648"),
        ("error(lambda: n.set_i32('k' * 16, 1))", "('OSError', (-4361, 'ESP_ERR_NVS_KEY_TOO_LONG'))"),
        ("error(lambda: NVS('n' * 16))[1]", "(-4358, 'ESP_ERR_NVS_INVALID_NAME')"),
        (
            "n.set_blob('b', bytes(9)), error(lambda: n.get_blob('b', bytearray(8)))",
            "None ('OSError', (-4364, 'ESP_ERR_NVS_INVALID_LENGTH'))",
        ),
    ],
)
def test_nvs_limits(bench: Bench, expression: str, answer: str) -> None:
    assert bench.printed(NVS + f"print({expression})", flash=flash()) == [answer]


def test_nvs_write_can_be_cut_between_its_programs(bench: Bench) -> None:
    main = NVS + "print(n.set_i32('a', 1))"
    whole = machine().run(bench.world(main, flash=flash()))
    assert len(whole.ops) >= 4
    for number in range(len(whole.ops)):
        world = bench.world(main, flash=flash())
        result = machine().run(world, cut=number)
        assert (result.cause, result.console) == ("cut", "")
        assert machine().run(world).console == "None\n"


# -- machine --------------------------------------------------------------------------------------------------------


def test_reset_causes(bench: Bench) -> None:
    main = """
import machine
n = len(machine.RTC().memory())
print(machine.reset_cause())
machine.RTC().memory(b"x" * (n + 1))
if n == 0:
    machine.reset()
if n == 1:
    machine.deepsleep(10)
if n == 2:
    from esp32 import Partition
    Partition(Partition.RUNNING).ioctl(6, 0)
if n == 3:
    machine.WDT(timeout=100)
    while True:
        pass
"""
    results = boots(bench.world(main, flash=flash()))
    assert causes(results) == ["reset", "deep-sleep", "panic", "watchdog", "idle"]
    printed = [result.console.splitlines()[0] for result in results]
    assert printed == ["1", "5", "4", "5", "3"]


def test_deep_sleep_advances_the_clock_and_returns_in_the_same_slot(bench: Bench) -> None:
    main = """
import machine, time
from esp32 import Partition
print(time.time() // 3600)
if machine.reset_cause() == machine.PWRON_RESET:
    Partition("ota_1").set_boot()
    machine.deepsleep(3 * 3600 * 1000)
"""
    first, second = boots(bench.world(main, flash=flash()))
    assert (first.console, second.console) == ("0\n", "3\n")
    assert second.slot == "ota_0", "set_boot and deep sleep come back in the old image"


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("error(lambda: __import__('machine').WDT(1))[0]", "ValueError"),
        ("error(lambda: __import__('machine').WDT(timeout=0))[0]", "ValueError"),
        ("error(lambda: __import__('machine').RTC().memory(bytes(2049)))", "('ValueError', ('buffer too long',))"),
        ("len(__import__('machine').unique_id())", "6"),
        ("__import__('machine').freq()", "160000000"),
        ("error(lambda: __import__('machine').freq(1))[0]", "ValueError"),
    ],
)
def test_machine_limits(bench: Bench, expression: str, answer: str) -> None:
    assert ask(bench, expression) == [answer]


def test_efuse_is_burnt_through_registers_and_never_unburnt(bench: Bench) -> None:
    main = """
import machine
reg = machine.mem32
BASE = 0x3FF5A000
def burn(value):
    reg[BASE + 0xD8 + 16] = value
    reg[BASE + 0xFC] = 0x5A5A
    reg[BASE + 0x104] = 2
    reg[BASE + 0xFC] = 0x5AA5
    reg[BASE + 0x104] = 1
    print(reg[BASE + 0x78 + 16])
print(reg[BASE + 0x78 + 16])
burn(1 if machine.reset_cause() == 1 else 2)
machine.reset() if machine.reset_cause() == 1 else None
"""
    world = bench.world(main, flash=flash())
    assert [result.console.split() for result in boots(world)] == [["0", "1"], ["1", "3"]]
    assert world.efuse.secure_version == 2
    assert Efuse.open(world.directory / "efuse.bin").secure_version == 2


def test_unique_id_is_the_mac_in_the_efuses(bench: Bench) -> None:
    world = bench.world("import machine\nprint(machine.unique_id().hex())", flash=flash())
    world.efuse.fuses[0][1:3] = [0x33445566, 0x1122]
    assert machine().run(world).console == "112233445566\n"


# -- what the chip's build has and has not --------------------------------------------------------------------------


def test_numbers_and_names_of_the_platform(bench: Bench) -> None:
    main = """
import sys, os, time
print(sys.platform, sys.implementation[0], sys.implementation[1][:2], sys.implementation._mpy & 0xFF, os.uname()[0])
print(time.gmtime(0), time.mktime((2000, 1, 2, 0, 0, 0, 0, 0)), time.time() < 60)
print(sys.maxsize == 0x7FFFFFFF)
"""
    assert bench.printed(main) == [
        "esp32 micropython (1, 26) 6 esp32",
        "(2000, 1, 1, 0, 0, 0, 5, 1) 86400 True",
        "True",
    ]


def test_cryptography_is_what_the_official_build_has(bench: Bench) -> None:
    main = """
import hashlib, cryptolib
print([name for name in ("sha256", "sha1", "md5", "sha512", "sha384") if hasattr(hashlib, name)])
for mode in (1, 2, 6):
    try:
        print(mode, len(cryptolib.aes(bytes(16), mode, bytes(16)).encrypt(bytes(16))))
    except ValueError as e:
        print(mode, "ValueError")
"""
    assert bench.printed(main) == ["['sha256', 'sha1', 'md5']", "1 16", "2 16", "6 ValueError"]


def test_littlefs_on_a_partition_keeps_its_files(bench: Bench) -> None:
    main = """
import vfs, os, machine
from esp32 import Partition
part = Partition.find(Partition.TYPE_DATA, label="vfs")[0]
try:
    vfs.mount(part, "/data")
except OSError:
    vfs.VfsLfs2.mkfs(part)
    vfs.mount(part, "/data")
    with open("/data/hello.txt", "w") as f:
        f.write("kept")
    machine.reset()
print(os.listdir("/data"), open("/data/hello.txt").read())
"""
    results = boots(bench.world(main))
    assert results[-1].console == "['hello.txt'] kept\n"


# -- network --------------------------------------------------------------------------------------------------------

JOIN = """
import network, time
w = network.WLAN(network.WLAN.IF_STA)
def join(ssid="sekisho", key="sekisho-lab"):
    w.active(True)
    w.connect(ssid, key)
    while w.status() == network.STAT_CONNECTING:
        time.sleep_ms(5)
    return w.status()
"""


def test_station_connects_and_has_an_address(bench: Bench) -> None:
    main = JOIN + "print(w.active(), w.isconnected(), w.status())\nprint(join(), w.isconnected(), w.ifconfig()[0])"
    assert bench.printed(main) == ["False False 1000", "1010 True 192.168.4.2"]


@pytest.mark.parametrize(
    ("network", "call", "status"),
    [
        (Network(), "join(key='wrong')", 202),
        (Network(), "join(ssid='elsewhere')", 201),
        (Network(ap=False), "join()", 201),
    ],
    ids=["wrong password", "unknown network", "access point off"],
)
def test_station_fails_as_on_the_chip(bench: Bench, network: Network, call: str, status: int) -> None:
    assert bench.printed(JOIN + f"print({call}, w.isconnected())", network=network) == [f"{status} False"]


def test_names_resolve_only_as_the_world_says_and_only_when_connected(bench: Bench) -> None:
    main = (
        JOIN
        + """
import socket
def look(name):
    try:
        return socket.getaddrinfo(name, 80)[0][-1] is not None
    except OSError as e:
        return e.args
print(look("127.0.0.1"), look("updates.example"))
join()
print(look("127.0.0.1"), look("updates.example"), look("example.org"))
"""
    )
    hosts = Network(hosts={"updates.example": "127.0.0.1"})
    assert bench.printed(main, network=hosts) == ["(-202,) (-202,)", "True True (-202,)"]


def test_device_talks_to_a_server_on_this_host(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.sendall(hashlib.sha256(peer.recv(100)).digest())

        thread = threading.Thread(target=serve)
        thread.start()
        main = (
            JOIN
            + f"""
import socket
join()
s = socket.socket()
s.connect(socket.getaddrinfo("updates.example", {server.getsockname()[1]})[0][-1])
s.send(b"hello")
print(s.read(32).hex())
"""
        )
        printed = bench.printed(main, network=Network(hosts={"updates.example": "127.0.0.1"}))
        thread.join()
    assert printed == [hashlib.sha256(b"hello").hexdigest()]


def test_time_comes_from_the_network_or_not_at_all(bench: Bench) -> None:
    main = JOIN + "join()\nimport ntptime\ntry:\n    ntptime.settime()\n    print(time.gmtime()[0] > 2020)\n"
    main += "except OSError:\n    print('no time')"
    assert bench.printed(main) == ["True"]
    assert bench.printed(main, network=Network(time=False)) == ["no time"]
