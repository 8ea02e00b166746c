"""`sekisho image build` and `inspect`: one reproducible file, right down to the ledger, or a reason why not."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import firmware, images, keys, releases
from sekisho_sim import bootloader
from sekisho_sim.device import Limits, power_cycle
from sekisho_sim.flash import Flash, MemPart
from sekisho_sim.personality import STOCK, Personalities, Personality
from sekisho_sim.world import World
from sekisho_tools import config, flashimage, imagefile, layout
from sekisho_tools.errors import ToolError
from sekisho_tools.identity import Identity
from sekisho_tools.imagefile import CHIPS

VENDOR, CLASS = "example.com", "lamp"
IDENTITY = Identity.of(VENDOR, CLASS)
KEYSET = keys.make_keyset()


def device(chip: str = "esp32", **changes: object) -> config.DeviceConfig:
    return replace(config.make(VENDOR, [CLASS], KEYSET.document, chip), **changes)  # type: ignore[arg-type]


def inputs(app: bytes | None = None, **changes: object) -> flashimage.Inputs:
    image = imagefile.parse(images.app() if app is None else app)
    made = flashimage.Inputs(
        app=image,
        table=layout.load("4MiB"),
        device=device(image.chip),
        bootloader=(CHIPS[image.chip], images.bootloader(image.chip)),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def refusal(made: flashimage.Inputs) -> ToolError:
    with pytest.raises(ToolError) as refused:
        flashimage.build(made)
    return refused.value


def state_of(data: bytes) -> MemPart:
    row = layout.load("4MiB")["sekisho"]
    return MemPart(row.size, Flash(bytearray(data)), row.offset)


def test_genuine_firmware_becomes_a_flash_that_boots_it() -> None:
    app = imagefile.parse(firmware.read("v1.15"))
    built = flashimage.build(replace(inputs(app.data), app=app, bootloader=None, payload_only=True))
    assert len(built.data) == 4 << 20
    assert app.bootloader is not None
    assert built.data[0x1000 : 0x1000 + len(app.bootloader)] == app.bootloader, "byte for byte: its flash size is right"
    assert built.data[0x10000 : 0x10000 + app.size] == app.data
    flash = Flash(bytearray(built.data))
    result = bootloader.power_on(flash)
    assert (result.running, result.boot_partition, flash.log) == ("ota_0", "ota_0", [])


@pytest.mark.requirement("UPC09")
def test_same_inputs_give_the_same_bytes() -> None:
    files = {"a.txt": b"a", "deep/er/b.txt": b"b" * 9000}
    first = flashimage.build(inputs(files=files, settings=b'{"server": "http://x"}'))
    second = flashimage.build(inputs(files=dict(reversed(files.items())), settings=b'{"server": "http://x"}'))
    assert first.digest == second.digest


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize(("name", "size"), [("4MiB", 4), ("8MiB", 8), ("16MiB", 16)])
def test_every_chip_and_layout_boots(chip: str, name: str, size: int) -> None:
    built = flashimage.build(inputs(images.app(chip=chip), table=layout.load(name)))
    assert len(built.data) == size << 20
    offset = CHIPS[chip].bootloader_offset
    assert imagefile.find_bootloader(built.data) is not None
    assert built.data[offset + 3] >> 4 == {4: 2, 8: 3, 16: 4}[size], "the bootloader refuses a table beyond its size"
    assert imagefile.parse_bootloader(built.data[offset:])[0].name == chip
    assert bootloader.power_on(Flash(bytearray(built.data))).running == "ota_0"


def test_bootloader_that_is_told_a_smaller_flash_refuses_the_table() -> None:
    """What would happen on a chip if the flash size in the header were left at 4 MB."""
    built = bytearray(flashimage.build(inputs(table=layout.load("8MiB"))).data)
    assert bootloader.power_on(Flash(built)).running == "ota_0"
    built[0x1000 : 0x1000 + len(images.bootloader())] = images.bootloader()
    assert bootloader.power_on(Flash(built)).running is None


def test_header_of_the_bootloader_gets_the_flash_size_and_a_fresh_hash() -> None:
    import hashlib

    patched = flashimage.bootloader_for(images.bootloader(), 16 << 20)
    assert patched[3] == 0x40
    assert hashlib.sha256(patched[:-32]).digest() == patched[-32:]
    assert flashimage.bootloader_for(images.bootloader(), 4 << 20) == images.bootloader()


def test_factory_release_proves_its_sequence_number_from_the_start() -> None:
    from sekisho_boot import keyset, ledger, records, suit

    app = images.app()
    release = releases.envelope(app, IDENTITY, KEYSET.release[0], 7)
    built = flashimage.build(inputs(app, release=release))
    part = state_of(built.data)
    log = ledger.Ledger(part)
    assert (log.lost, log.foreign, log.state.locked) == (False, False, False)
    assert (log.state.counters, log.state.chosen, log.state.pairs[0][1]) == ([7, 0], 0, 7)
    record = records.load_slot(part, suit.FW, 0)
    assert (record.sequence, record.size, bytes(record.digest)) == (7, len(app), imagefile.parse(app).digest)
    plan = suit.check(record.envelope, keyset.genesis(KEYSET.document), IDENTITY, None, 0)
    assert (plan.sequence, bytes(record.manifest)) == (7, plan.digest)
    assert records.load_slot(part, suit.FW, 1) is None
    assert built.device.floor_fw == 7
    assert part.flash.count == 0, "reading what the build wrote has nothing to repair"


def test_without_a_release_the_ledger_starts_at_zero() -> None:
    from sekisho_boot import ledger

    log = ledger.Ledger(state_of(flashimage.build(inputs()).data))
    assert (log.lost, log.state.counters, log.state.chosen) == (False, [0, 0], 0)


def test_release_that_the_engine_would_refuse_is_refused_at_the_desk() -> None:
    app = images.app()
    good = releases.envelope(app, IDENTITY, KEYSET.release[0], 7)
    cases = {
        "KEY_UNKNOWN": releases.envelope(app, IDENTITY, keys.signer("stranger"), 7),
        "CLASS": releases.envelope(app, Identity.of(VENDOR, "other"), KEYSET.release[0], 7),
        "VENDOR": releases.envelope(app, Identity.of("example.org", CLASS), KEYSET.release[0], 7),
        "IMAGE_DIGEST": releases.envelope(app, IDENTITY, KEYSET.release[0], 7, digest=bytes(32)),
        "ENVELOPE": b"\xd8\x6b\xa0",
        "SIGNATURE": good.replace(bytes.fromhex("0207"), bytes.fromhex("0208"), 1),
    }
    found = {name: refusal(inputs(app, release=data)).code for name, data in cases.items()}
    found["SIGNATURE"] = "SIGNATURE" if found["SIGNATURE"] in ("SIGNATURE", "MANIFEST_DIGEST") else found["SIGNATURE"]
    assert found == {name: name for name in cases}


@pytest.mark.parametrize(
    ("version", "fits"),
    [
        ("v1.15-108-g43e7e5f00-dirty", False),
        ("v1.25.0", False),
        ("v1.26.0-preview.12.gabc", True),
        ("v1.26.1", True),
        ("v1.29.0", True),
        ("v1.30.0", False),
        ("v2.0.0", False),
    ],
)
def test_firmware_must_load_our_mpy_files(version: str, fits: bool) -> None:
    made = inputs(images.app(micropython=version))
    if fits:
        flashimage.build(made)
        return
    refused = refusal(made)
    assert refused.code == "FIRMWARE_VERSION"
    assert "v1.26 to v1.29" in refused.sentence
    assert flashimage.build(replace(made, payload_only=True)).warnings


def test_firmware_without_a_version_is_refused() -> None:
    data = images.image([(0x3F400020, images.descriptor())])
    assert refusal(inputs(data)).code == "FIRMWARE_VERSION"


def test_frozen_mode_warns_when_the_firmware_brings_no_engine() -> None:
    assert "no Sekisho in this firmware" in flashimage.build(inputs()).warnings[0]
    assert flashimage.build(inputs(images.app("frozen: sekisho_boot"))).warnings == ()
    assert flashimage.build(inputs(mode=flashimage.STOCK)).warnings == ()


def test_app_that_does_not_fit_its_slot_is_refused() -> None:
    big = images.descriptor() + b"\0MicroPython v1.26.1 on 2025-09-11;\0".ljust(0x1B0000, b"\0")
    refused = refusal(inputs(images.image([(0x3F400020, big)])))
    assert (refused.code, "0x1b0000" in refused.sentence) == ("IMAGE_SIZE", True)


def test_bootloader_must_be_there_and_for_the_same_chip() -> None:
    assert refusal(inputs(bootloader=None)).code == "BOOTLOADER"
    assert refusal(inputs(bootloader=(CHIPS["esp32s3"], images.bootloader("esp32s3")))).code == "IMAGE_CHIP"
    assert refusal(inputs(device=device("esp32c3"))).code == "IMAGE_CHIP"


def test_layout_that_sekisho_cannot_use_is_refused() -> None:
    assert refusal(inputs(table=images.golden_layout())).code == "LAYOUT"


def test_files_that_do_not_fit_are_refused() -> None:
    assert refusal(inputs(files={"big": b"\x00\x01" * 70_000})).code == "FILES"


def test_files_and_settings_are_in_their_file_systems(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "index.html").write_text("<p>")
    settings = tmp_path / "settings.json"
    settings.write_text('{"poll": 60, "controller": "ä"}')
    built = flashimage.build(
        inputs(files=flashimage.read_tree(tmp_path / "pages"), settings=flashimage.read_settings(settings))
    )
    found = {row["label"]: row for row in flashimage.describe_flash(built.data)["partitions"]}
    assert found["vfs"]["files"] == {"/index.html": 3}
    assert found["data"]["files"] == {"/sekisho.json": len('{"controller": "ä", "poll": 60}'.encode())}
    assert found["ota_1"]["content"] == "blank"
    assert found["ota_0"]["app"]["micropython"] == "v1.26.1"


def test_littlefs_has_the_disk_version_that_every_supported_micropython_mounts() -> None:
    data = flashimage.make_littlefs(0x20000, {"a": b"x"}, "vfs")
    at = data.index(b"littlefs")
    assert data[at + 8 + 4 : at + 8 + 8] == (0x00020000).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (b"M\x05\x00\x1f", "version 5"),
        (b"M\x06\x2c\x1f", "native"),
        (b"M\x06\x00\x3f", "63 bits"),
        (b"xxxx", "no .mpy"),
    ],
)
def test_mpy_that_the_chip_cannot_load_is_refused(tmp_path: Path, code: bytes, words: str) -> None:
    (tmp_path / "module.mpy").write_bytes(code)
    with pytest.raises(ToolError, match=words):
        flashimage.read_tree(tmp_path)


def test_device_code_compiles_for_the_chip() -> None:
    from sekisho_tools.device_code import BOOT

    for chip in imagefile.CHIPS:
        code = flashimage.compile_device(BOOT / "sekisho_boot" / "cbor.py", chip)
        assert code[:4] == b"M\x06\x00\x1f"
        assert str(BOOT).encode() not in code


@pytest.mark.parametrize(("chip", "arch"), [("esp32", 10), ("esp32s3", 10), ("esp32c3", 11), ("esp32c6", 11)])
def test_machine_code_in_a_pack_is_that_of_its_chip(chip: str, arch: int) -> None:
    modules = flashimage.device_modules(config.render(device()), chip)
    native = {name: code[2] >> 2 for name, code in modules.items() if code[2]}
    assert native == {f"sekisho_boot/{name}_native.mpy": arch for name in ("ed25519", "sha512")}
    with pytest.raises(ToolError, match="one architecture"):
        flashimage.check_mpy(modules["sekisho_boot/sha512_native.mpy"], "x.mpy", 21 - arch)


def test_all_device_code_is_in_one_pack_that_fits_on_the_smallest_vfs() -> None:
    source = config.render(device())
    size = layout.load("4MiB")["vfs"].size
    files = flashimage.device_files(source, size, "esp32")
    pack = files[flashimage.PACK]
    index, _, contents = pack.partition(b"\n\n")
    rows = [line.split(" ") for line in index.decode().splitlines()]
    modules = flashimage.device_modules(source, "esp32", lean=True)
    assert [name for _, _, name in rows] == list(modules)
    assert contents == b"".join(modules.values())
    for at, length, name in rows:
        assert contents[int(at) : int(at) + int(length)] == modules[name]
    assert {"boot.py", "main.py", flashimage.PACK} == set(files)
    flashimage.make_littlefs(size, files, "vfs")  # applications have their own slots
    roomy = flashimage.device_files(source, layout.load("8MiB")["vfs"].size, "esp32")[flashimage.PACK]
    for name in flashimage.ROOMY:
        assert f"sekisho/{name}.mpy" not in modules
        assert f"sekisho/{name}.mpy".encode() in roomy


def test_stock_image_starts_engine_and_agent_from_vfs(tmp_path: Path) -> None:
    """Official MicroPython finds boot.py on `vfs`; from there on the engine runs as if it were frozen."""
    app = images.app()
    release = releases.envelope(app, IDENTITY, KEYSET.release[0], 7)
    built = flashimage.build(inputs(app, mode=flashimage.STOCK, release=release))
    stock = Personalities(Personality("stock", default=False, start=STOCK))
    # Official v1.26.1 has 160 KiB; objects of this 64-bit build are twice as large, and code from files lies there too.
    world = World.create(tmp_path / "world", built.data, personalities=stock, heap=168 * 1024)
    results = list(power_cycle(world, max_boots=4, limits=Limits(seconds=20, until="NETWORK")))
    assert [result.cause for result in results] == ["reset", "until"], "the first boot probes the bootloader"
    assert "sekisho: fw slot 0, release 7" in results[-1].console
    assert "Traceback" not in results[-1].console


def test_no_file_stands_in_for_a_built_in_module_while_the_engine_runs_in_stock_mode(tmp_path: Path) -> None:
    app = images.app()
    release = releases.envelope(app, IDENTITY, KEYSET.release[0], 7)
    stand_ins = {
        f"lib/{name}.py": b"print('stand-in')" for name in ("binascii", "collections", "hashlib", "os", "struct")
    }
    built = flashimage.build(inputs(app, mode=flashimage.STOCK, release=release, files=stand_ins))
    stock = Personalities(Personality("stock", default=False, start=STOCK))
    world = World.create(tmp_path / "world", built.data, personalities=stock, heap=168 * 1024)
    first = next(iter(power_cycle(world, max_boots=1, limits=Limits(seconds=20))))
    assert first.cause == "reset", "the engine ran, and probed the bootloader"
    assert "stand-in" not in first.console


def test_config_source_runs_and_says_what_was_asked(tmp_path: Path) -> None:
    made = config.make(VENDOR, [CLASS, "desk lamp"], KEYSET.document, "esp32s3", product='La"mp', floor_fw=3)
    module: dict[str, object] = {}
    exec(config.render(made), module)
    assert module["VENDOR"] == IDENTITY.vendor
    assert module["CLASSES"] == (IDENTITY.classes[0], Identity.of(VENDOR, "desk lamp").classes[0])
    assert (module["KEYSET"], module["CHIP"], module["PRODUCT"]) == (KEYSET.document, 9, 'La"mp')
    assert (module["BUILD_TIME"], module["FLOOR_FW"], module["FLOOR_APP"]) == (keys.ISSUED, 3, 0)
    assert module["TRIAL_SECONDS"] == 300
    assert not {"LED", "CONSOLE_PORT", "SETTINGS"} & set(module)


@pytest.mark.parametrize(
    "changes",
    [
        {"vendor": b"short"},
        {"classes": ()},
        {"classes": (bytes(16),) * 17},
        {"chip": "esp8266"},
        {"trial_seconds": 5},
        {"floor_fw": -1},
        {"keyset": b"no key set"},
        {"led": 34},  # an input of the ESP32, and no output
        {"led": 6},  # the flash hangs there
        {"led": -1},
        {"console_port": 0},
        {"console_port": 65536},
        {"settings": (("server", "ftp://example.com"),)},
        {"settings": (("sever", "http://example.com"),)},
        {"settings": (("console_reset", "open-sesame-open"),)},
    ],
)
def test_config_that_cannot_be_right_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ToolError):
        config.render(device(**changes))


# -- the commands ---------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[1]


def sekisho(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sekisho_tools", "image", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{ROOT / 'tools'}:{ROOT / 'host_sim'}", "PATH": ""},
        check=False,
    )


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    (tmp_path / "app.bin").write_bytes(images.app())
    (tmp_path / "bootloader.bin").write_bytes(images.bootloader())
    (tmp_path / "keyset.cose").write_bytes(KEYSET.document)
    (tmp_path / "settings.json").write_text("{}")
    return tmp_path


def options(desk: Path, **changes: object) -> list[object]:
    chosen: dict[str, object] = {
        "firmware": desk / "app.bin",
        "bootloader": desk / "bootloader.bin",
        "keyset": desk / "keyset.cose",
        "vendor": VENDOR,
        "class": CLASS,
        "out": desk / "out" / "flash.bin",
    }
    chosen.update(changes)
    return [
        word for name, value in chosen.items() if value is not None for word in (f"--{name.replace('_', '-')}", value)
    ]


def test_the_configuration_brings_led_port_and_product_settings(desk: Path) -> None:
    """Through the command, into the module that a firmware freezes in and that stock mode carries."""
    given = {"server": "https://updates.example.com", "wifi": [["plant", "a passphrase"]], "update_enabled": True}
    (desk / "product.json").write_text(json.dumps(given))
    chosen = options(desk, product_settings=desk / "product.json", led=2, console_port=8080)
    done = sekisho("build", *chosen)
    assert done.returncode == 0, done.stderr
    module: dict[str, object] = {}
    exec((desk / "out" / "flash.bin.config.py").read_text(), module)
    assert (module["LED"], module["CONSOLE_PORT"], module["SETTINGS"]) == (2, 8080, given)
    refused = sekisho("build", *options(desk, led=35))
    assert refused.returncode == 1
    assert "error[CONFIG]: Pin 35 of the esp32 drives no LED; pins: 0-5, 12-19" in " ".join(refused.stderr.split())


@pytest.mark.requirement("STS12")
@pytest.mark.parametrize("option", ["settings", "product_settings"])
@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"console_reset": "open-sesame-open"}, "console_reset is a secret of one device"),
        ({"poll": 1}, "poll cannot be 1"),
        ({"pol": 60}, "there is no setting of that name"),
    ],
)
def test_settings_that_no_device_would_take_or_that_open_all_of_them_stay_out(
    desk: Path, option: str, values: dict[str, object], why: str
) -> None:
    (desk / "settings.json").write_text(json.dumps(values))
    done = sekisho("build", *options(desk, **{option: desk / "settings.json"}))
    assert done.returncode == 1
    assert "error[SETTING]" in done.stderr
    assert why in " ".join(done.stderr.split())
    assert not (desk / "out").exists()


def test_build_and_inspect_commands_agree(desk: Path) -> None:
    done = sekisho("build", *options(desk), "--json")
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout)
    assert built["esptool"] == f"esptool --chip esp32 write-flash 0x0 {desk / 'out' / 'flash.bin'}"
    seen = json.loads(sekisho("inspect", desk / "out" / "flash.bin", "--json").stdout)
    assert (seen["kind"], seen["sha256"], seen["chip"]) == ("flash", built["sha256"], "esp32")
    assert seen["otadata"] == ["seq 1 VALID", "empty"]
    assert seen["sekisho"]["ledger"] == "ok"
    app = json.loads(sekisho("inspect", desk / "app.bin", "--json").stdout)
    assert (app["kind"], app["micropython"], app["supported"]) == ("app", "v1.26.1", True)


def test_build_and_inspect_print_for_people(desk: Path) -> None:
    done = sekisho("build", *options(desk, config_out=desk / "sekisho_config.py"))
    assert "esptool --chip esp32 write-flash 0x0" in done.stdout
    assert "KEYSET" in (desk / "sekisho_config.py").read_text()
    assert "otadata 0: seq 1 VALID" in sekisho("inspect", desk / "out" / "flash.bin").stdout
    assert "v1.26.1" in sekisho("inspect", desk / "app.bin").stdout


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"firmware": "missing.bin"}, "FILE"),
        ({"firmware": "."}, "FILE"),
        ({"keyset": "missing.cose"}, "FILE"),
        ({"bootloader": None}, "BOOTLOADER"),
        ({"firmware": "BOOTLOADER"}, "IMAGE_FORMAT"),
        ({"keyset": "APP"}, "COSE"),
        ({"layout": "5MiB"}, "LAYOUT"),
        ({"chip": "esp32c3"}, "IMAGE_CHIP"),
        ({"settings": "APP"}, "SETTINGS"),
        ({"files": "missing"}, "FILE"),
        ({"release": "APP"}, "ENVELOPE"),
        ({"vendor": " "}, "IDENTITY"),
        ({"trial-seconds": 1}, "CONFIG"),
    ],
)
def test_build_refuses_with_one_sentence_and_leaves_the_old_file(
    desk: Path, changes: dict[str, object], code: str
) -> None:
    old = desk / "out" / "flash.bin"
    old.parent.mkdir()
    old.write_bytes(b"old")
    names = {"BOOTLOADER": desk / "bootloader.bin", "APP": desk / "app.bin"}
    changes = {name: names.get(str(value), value) for name, value in changes.items()}
    done = sekisho("build", *options(desk, **changes))
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith(f"error[{code}]: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert old.read_bytes() == b"old"
    assert list(old.parent.iterdir()) == [old]


def test_inspect_refuses_what_is_no_firmware(desk: Path) -> None:
    for name, code in (("settings.json", "IMAGE_FORMAT"), ("nothing", "FILE"), ("bootloader.bin", "IMAGE_FORMAT")):
        done = sekisho("inspect", desk / name)
        assert (done.returncode, done.stderr.split(":")[0]) == (1, f"error[{code}]")
