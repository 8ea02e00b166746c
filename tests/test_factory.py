"""What must not leave the factory is named, and what leaves it is what was meant."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import factory as production
from helpers import images, keys
from helpers.cli import Runner
from sekisho_sim import nvs
from sekisho_sim.flash import Flash, MemPart
from sekisho_tools import factory, flasher, flashimage, issued, issuing, layout
from sekisho_tools.errors import ToolError

RELEASE = keys.make_keyset(environment="release")
DEVELOPMENT = keys.make_keyset()
NOW = keys.ISSUED + 86_400
TABLE = layout.load("4MiB")
WANTED = factory.Wanted(now=NOW)
PASSPHRASE = "p" * 12


@pytest.fixture(autouse=True)
def _cheap_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuing, "SCRYPT_N", 1 << 10)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(capsys, monkeypatch)


def codes(data: bytes, wanted: factory.Wanted = WANTED) -> set[str]:
    return {finding.code for finding in factory.check(data, wanted).findings}


def patched(data: bytes, label: str, content: bytes, at: int = 0) -> bytes:
    out = bytearray(data)
    start = TABLE[label].offset + at
    out[start : start + len(content)] = content
    return bytes(out)


@pytest.fixture(scope="module")
def good() -> bytes:
    return production.build(RELEASE)


@pytest.mark.requirement("HLC01", "UPC04")
def test_a_production_image_is_fit(good: bytes) -> None:
    found = factory.check(good, WANTED)
    assert found.findings == []
    assert (found.chip, found.mode, found.environment) == ("esp32", "frozen", "release")
    assert found.firmware is not None
    assert found.firmware.sequence == 7


@pytest.mark.requirement("HLC01", "UPC03", "UPC04")
def test_a_development_key_set_never_leaves_the_factory() -> None:
    image = production.build(DEVELOPMENT)
    assert codes(image) == {"KEYSET_ENVIRONMENT"}
    assert codes(image, factory.Wanted("development", now=NOW)) == set()
    assert codes(production.build(RELEASE), factory.Wanted("development", now=NOW)) == {"KEYSET_ENVIRONMENT"}


@pytest.mark.requirement("HLC01", "UPC04")
def test_a_development_key_set_beside_the_right_one_is_found_too() -> None:
    app = production.app(RELEASE.document, more=DEVELOPMENT.document)
    assert "KEYSET_ENVIRONMENT" in codes(production.build(RELEASE, firmware=app))


@pytest.mark.requirement("HLC01", "UPC04")
def test_development_keys_are_found_wherever_they_lie() -> None:
    key = keys.signer("operator", 9).public_key
    wanted = factory.Wanted(now=NOW, development_keys=[("bench", key)])
    in_app = production.build(RELEASE, firmware=production.app(RELEASE.document, more=key))
    in_file = production.build(RELEASE, files={"keys.bin": bytes(5000) + key})
    assert codes(in_app, wanted) == codes(in_file, wanted) == {"DEVELOPMENT_KEY"}
    assert codes(in_file) == set()


@pytest.mark.requirement("HLC01")
def test_a_private_key_on_the_file_system_is_found() -> None:
    text = b"Statement: {}\n-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
    assert codes(production.build(RELEASE, files={"tls/key.pem": text})) == {"PRIVATE_KEY"}


@pytest.mark.requirement("STS11")
def test_an_open_prompt_is_refused_in_the_release_environment() -> None:
    for profile in ("(development)", "", "production"):
        app = production.app(RELEASE.document, profile=profile)
        assert codes(production.build(RELEASE, firmware=app)) == {"REPL_OPEN"}
    stock = production.build(RELEASE, firmware=images.app(), mode=flashimage.STOCK)
    assert codes(stock) == {"REPL_OPEN"}
    assert factory.check(stock).mode == "stock"


def test_an_image_without_engine_is_refused() -> None:
    app = production.app(RELEASE.document, engine=b"")
    assert codes(production.build(RELEASE, firmware=app)) == {"NO_ENGINE"}


def test_an_image_without_key_set_or_with_another_one_is_refused(good: bytes) -> None:
    assert "NO_KEYSET" in codes(production.build(RELEASE, firmware=production.app(b"")))
    other = RELEASE.next().document
    assert codes(good, factory.Wanted(now=NOW, keyset=other)) == {"KEYSET_CONTENT"}
    assert codes(good, factory.Wanted(now=NOW, keyset=RELEASE.document)) == set()
    assert codes(good, factory.Wanted(now=keys.ISSUED + 11 * keys.YEAR)) == {"EXPIRED_KEYSET"}


def test_the_app_in_the_slot_must_be_signed(good: bytes) -> None:
    assert codes(production.build(RELEASE, signed=False)) == {"UNSIGNED_SLOT"}
    other = production.app(RELEASE.document, more=b"another")
    assert "IMAGE_DIGEST" in codes(patched(good, "ota_0", other))
    stranger = keys.make_keyset(environment="release", release=0)
    image = patched(production.build(RELEASE), "nvs", b"")
    swapped = image.replace(RELEASE.document, stranger.document.ljust(len(RELEASE.document), b"\0"))
    assert codes(swapped) & {"KEY_UNKNOWN", "IMAGE"}, "a key that is not in the key set cannot have signed it"


def test_what_is_not_as_the_tools_made_it_is_refused(good: bytes) -> None:
    table = bytearray(good)
    table[layout.TABLE_OFFSET + 4] ^= 1
    assert codes(bytes(table)) == {"LAYOUT"}
    boot = bytearray(good)
    boot[0x1000:0x8000] = b"\xff" * 0x7000
    assert codes(bytes(boot)) == {"BOOTLOADER"}
    assert codes(patched(good, "ota_0", b"\0" * 64, 0x40)) >= {"IMAGE"}
    assert codes(patched(good, "ota_1", production.app(b""))) == {"SLOT"}
    assert codes(patched(good, "otadata", b"\xff" * 32)) == {"OTADATA"}
    assert codes(patched(good, "vfs", b"\0" * 8192)) == {"FILES"}
    assert codes(patched(good, "sekisho", b"\xff" * 8192)) >= {"LEDGER"}
    assert codes(production.build(RELEASE, files={"main.py": b"print(1)"})) == {"FILES"}


@pytest.mark.parametrize("data", [b"", b"\xff" * 4096, bytes(1 << 20), b"\xff" * (4 << 20), b"\xe9" * 0x9001])
def test_what_is_no_flash_image_is_named(data: bytes) -> None:
    assert codes(data) & {"FLASH_IMAGE", "LAYOUT"}


def test_no_damage_makes_the_check_fall_over(good: bytes) -> None:
    """Each part in turn replaced by noise; the check must name something and return."""
    noise = hashlib.shake_256(b"noise").digest(0x2000)
    for start in [0x1000, 0x8000, 0xD000, *(row.offset for row in TABLE)]:
        if start in (TABLE["phy_init"].offset, TABLE["nvs"].offset):
            continue
        damaged = bytearray(good)
        damaged[start : start + len(noise)] = noise
        assert codes(bytes(damaged)), hex(start)


# -- one device -----------------------------------------------------------------------------------------------------


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Runner, good: bytes) -> Path:
    """A production line: flash.bin, a batch of two, one folder."""
    monkeypatch.chdir(tmp_path)
    Path("k.cose").write_bytes(RELEASE.document)
    Path("flash.bin").write_bytes(good)
    assert run("issue batch b -n 2 --keyset k.cose --vendor example.com --class lamp", PASSPHRASE).code == 0
    assert run("issue take b --out d", PASSPHRASE).code == 0
    return next(Path("d").iterdir())


@pytest.mark.requirement("STS01")
def test_the_image_of_a_device_holds_its_identity_and_nothing_else_changes(
    run: Runner, line: Path, good: bytes
) -> None:
    assert run(f"factory image flash.bin --device {line}").code == 0
    made = (line / "flash.bin").read_bytes()
    assert (line / "flash.bin").stat().st_mode & 0o077 == 0
    row = TABLE["nvs"]
    assert made[: row.offset] + good[row.offset : row.end] + made[row.end :] == good
    store = nvs.Nvs(MemPart(row.size, Flash(bytearray(made[row.offset : row.end]))))
    assert store.get(store.open("sekisho"), "id", nvs.BLOB_INDEX).hex() == line.name.replace("-", "")
    record = issued.read_record(line)
    assert record.chip == "esp32"
    assert record.firmware is not None
    assert record.firmware.digest == hashlib.sha256(production.app(RELEASE.document)).hexdigest()
    assert run(f"factory check {line}/flash.bin").code == 1
    assert run(f"factory check {line}/flash.bin --device {line} --keyset k.cose").code == 0
    assert run(f"factory image {line}/flash.bin --device {line}").error == "IDENTITY", "no second identity on top"


@pytest.mark.requirement("HLC01", "UPC03")
def test_a_device_issued_for_one_environment_gets_no_image_of_the_other(run: Runner, line: Path) -> None:
    Path("dev.bin").write_bytes(production.build(DEVELOPMENT))
    assert run(f"factory image dev.bin --device {line}").error == "KEYSET_ENVIRONMENT"
    Path("other.bin").write_bytes(production.build(keys.make_keyset(environment="release", roots=2)))
    assert run(f"factory image other.bin --device {line}").error == "KEYSET_CONTENT"
    assert not (line / "flash.bin").exists()


def test_the_check_command_names_every_finding(run: Runner, line: Path) -> None:
    app = production.app(DEVELOPMENT.document, profile="")
    Path("bad.bin").write_bytes(production.build(DEVELOPMENT, firmware=app, signed=False))
    done = run("factory check bad.bin")
    assert done.code == 1
    for code in ("KEYSET_ENVIRONMENT", "REPL_OPEN", "UNSIGNED_SLOT"):
        assert f"error[{code}]" in done.err
    shown = json.loads(run("factory check bad.bin --json").out)
    assert shown["fit"] is False
    assert {one["code"] for one in shown["findings"]} == {"KEYSET_ENVIRONMENT", "REPL_OPEN", "UNSIGNED_SLOT"}


@pytest.mark.requirement("STS02")
def test_a_board_is_written_verified_read_back_and_bound(run: Runner, line: Path, good: bytes) -> None:
    """Through the real esptool, against a mock of the chip's ROM that speaks the serial protocol."""
    mock = pytest.importorskip("esp32_mock_bootloader")
    with mock.mock_bootloader(chip="esp32") as board:
        done = run(
            f"factory flash flash.bin --port {board.url()} --device {line} --batch b --read-back rom", PASSPHRASE
        )
        assert done.code == 0, done.err
        for said in ("wrote", "verified", "read back", line.name):
            assert said in done.out
        mac = flasher.read_mac(flasher.Port(board.url(), "esp32"))
        assert issued.read_record(line).physical == mac
        assert issuing.load(Path("b")).find(mac).id == line.name
        # The same chip cannot become a second device.
        assert run("issue take b --out d", PASSPHRASE).code == 0
        other = next(folder for folder in Path("d").iterdir() if folder != line)
        again = run(f"factory flash flash.bin --port {board.url()} --device {other} --batch b", PASSPHRASE)
        assert again.error == "PHYSICAL_USED"
        row = TABLE["nvs"]
        words = ("--no-stub", "read-flash", f"0x{row.offset:x}", f"0x{row.size:x}", "back.bin")
        flasher.Port(board.url(), "esp32").must("X", "x", *words)
        assert factory.read_identity(Path("back.bin").read_bytes()) == line.name


@pytest.mark.requirement("HLC01")
def test_an_unfit_image_is_never_written(run: Runner, line: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("esptool was started")

    monkeypatch.setattr(flasher.subprocess, "run", never)
    Path("bad.bin").write_bytes(production.build(DEVELOPMENT))
    assert run("factory flash bad.bin --port socket://localhost:1").err.count("error[") == 2


def test_a_board_that_is_not_there_or_is_another_chip_is_named(run: Runner, line: Path) -> None:
    mock = pytest.importorskip("esp32_mock_bootloader")
    assert run("factory flash flash.bin --port socket://127.0.0.1:9").error == "FLASH_CONNECT"
    with mock.mock_bootloader(chip="esp32s3") as board:
        assert run(f"factory flash flash.bin --port {board.url()}").error == "FLASH_CONNECT"


@pytest.mark.parametrize("step", ["verify-flash", "read-flash"])
def test_a_board_that_holds_something_else_is_noticed(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def esptool(self: flasher.Port, *words: str) -> subprocess.CompletedProcess[str]:
        if words[0] == "read-flash":
            Path(words[3]).write_bytes(b"\x01" * 4095 + b"\0")
        failed = words[0] == step == "verify-flash"
        return subprocess.CompletedProcess([], int(failed), "A fatal error occurred: Verify failed\n", "")

    monkeypatch.setattr(flasher.Port, "esptool", esptool)
    with pytest.raises(ToolError) as caught:
        flasher.flash(flasher.Port("x", "esp32"), b"\xff" * 4096 + b"\x01" * 4096, lambda _: None)
    assert caught.value.code == {"verify-flash": "FLASH_VERIFY", "read-flash": "FLASH_READ_BACK"}[step]
    assert step == "verify-flash" or "0x1fff" in caught.value.sentence


def test_everything_that_is_not_blank_is_read_back() -> None:
    image = bytearray(b"\xff" * (1 << 20))
    for at in (0, 0x1FFF, 0x40000, 0xFFFFF):
        image[at] = 0
    assert flasher.extents(bytes(image)) == [(0, 0x2000), (0x40000, 0x41000), (0xFF000, 0x100000)]


@pytest.mark.parametrize("open_port", ["", "MICROPY_HW_ENABLE_UART_REPL", "MICROPY_VFS_ROM"])
def test_the_mark_of_the_production_profile_follows_the_settings(open_port: str, tmp_path: Path) -> None:
    """The C preprocessor reads the board files; a setting that is left out opens the prompt."""
    compiler = shutil.which("cc") or pytest.skip("needs a C preprocessor")
    boards = tmp_path / "boards"
    shutil.copytree(Path(__file__).parents[1] / "firmware" / "boards", boards)
    header = boards / "sekisho.h"
    lines = header.read_text().splitlines()
    header.write_text("\n".join(line for line in lines if not (open_port and line.startswith(f"#define {open_port} "))))
    source = '#include "mpconfigboard.h"\nNAME MICROPY_HW_BOARD_NAME " with " MICROPY_HW_MCU_NAME\n'
    for board in sorted(boards.glob("SEKISHO_*")):
        done = subprocess.run(
            [compiler, "-E", "-P", "-I", board, "-"], input=source, capture_output=True, text=True, check=True
        )
        name = done.stdout.split("NAME", 1)[1].replace('" "', "").strip().strip('"')
        marked = factory.PRODUCTION_MARK.search(f"MicroPython v1.26.1 on 2025-09-11; {name}".encode())
        assert bool(marked) == (not open_port), name


def test_the_documentation_lists_every_code_of_the_check() -> None:
    source = Path(factory.__file__).read_text()
    table = (Path(__file__).parents[1] / "docs" / "factory.md").read_text()
    used = set(re.findall(r'self\.refuse\(\s*"([A-Z_]+)"', source))
    assert used
    assert {code for code in used if f"`{code}`" not in table} == set()
