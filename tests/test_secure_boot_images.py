"""Images signed for secure boot v2 keep their signature: without it the chip would not start them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import factory, images, keys
from helpers.cli import Runner
from sekisho_tools import config, flashimage, imagefile, layout, release, release_check, secure_boot
from sekisho_tools import factory as check
from sekisho_tools.errors import ToolError
from sekisho_tools.imagefile import CHIPS


def espsecure(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "espsecure", *map(str, words)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """``app`` and ``bootloader``, signed by Espressif's own tool."""
    home = tmp_path_factory.mktemp("signed")
    espsecure("generate-signing-key", "--version", 2, "--scheme", "rsa3072", home / "k.pem")
    found = {}
    for name, data in (("app", images.app()), ("bootloader", images.bootloader())):
        (home / name).write_bytes(data)
        espsecure("sign-data", "--version", 2, "--keyfile", home / "k.pem", "--output", home / "out.bin", home / name)
        found[name] = (home / "out.bin").read_bytes()
    return found


def test_the_signature_belongs_to_the_app(signed: dict[str, bytes]) -> None:
    app = imagefile.parse(signed["app"] + b"what follows")
    assert app.data == signed["app"]
    assert app.appended_hash == imagefile.parse(images.app()).appended_hash


def test_a_damaged_signature_is_no_part_of_the_app(signed: dict[str, bytes]) -> None:
    for at in (4096, 4097, 4100, 4096 + 1196):
        broken = bytearray(signed["app"])
        broken[at] ^= 0x40
        assert imagefile.parse(bytes(broken)).data == images.app()
    assert imagefile.parse(signed["app"][:-1]).data == images.app()


@pytest.mark.requirement("UPE15")
def test_flash_image_and_release_carry_the_signatures(
    signed: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bootloader = imagefile.parse_bootloader(signed["bootloader"])
    assert bootloader[1] == signed["bootloader"]
    device = config.make("example.com", ["lamp"], keys.make_keyset().document, "esp32")
    table = layout.load("4MiB")
    unsigned = (CHIPS["esp32"], images.bootloader())
    app = imagefile.parse(signed["app"])
    data = flashimage.build(flashimage.Inputs(app, table, device, bootloader=unsigned)).data
    start = table["ota_0"].offset
    assert data[start : start + len(signed["app"])] == signed["app"]
    run = Runner(capsys, monkeypatch)
    monkeypatch.chdir(tmp_path)
    Path("app.bin").write_bytes(signed["app"])
    run("keys generate root --role root --env development --no-passphrase")
    run("keys generate release --role release --env development --no-passphrase")
    run("keyset create k.cose --root keys/root.key --release keys/release.pub")
    line = "release create --firmware app.bin --version 1 --sequence 1 --key keys/release.key --keyset k.cose"
    done = run(f"{line} --vendor example.com --class lamp --out r")
    assert done.code == 0, done.err
    payloads = [path.read_bytes() for path in Path("r/payload").iterdir()]
    assert signed["app"] in payloads


def test_a_signed_bootloader_is_never_changed(signed: dict[str, bytes]) -> None:
    size = imagefile.flash_size(signed["bootloader"])
    other = next(one for one in (4 << 20, 8 << 20) if one != size)
    with pytest.raises(ToolError) as caught:
        flashimage.bootloader_for(signed["bootloader"], other)
    assert caught.value.code == "BOOTLOADER"
    assert flashimage.bootloader_for(signed["bootloader"], size or 0) == signed["bootloader"]


# -- the check of what leaves factory and desk ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def foundry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key pair, a stranger's, and a production image whose bootloader and app are signed with it."""
    home = tmp_path_factory.mktemp("foundry")
    for name in ("k", "other"):
        espsecure("generate-signing-key", "--version", 2, "--scheme", "rsa3072", home / f"{name}.pem")
    espsecure("extract-public-key", "--version", 2, "--keyfile", home / "k.pem", home / "k.pub.pem")
    release = keys.make_keyset(environment="release")
    (home / "app").write_bytes(factory.app(release.document))
    (home / "bootloader").write_bytes(images.bootloader())
    for name in ("app", "bootloader"):
        espsecure(
            *("sign-data", "--version", 2, "--keyfile", home / "k.pem"),
            *("--output", home / f"{name}.signed", home / name),
        )
    return home


def flash(foundry: Path, app: str = "app.signed", bootloader: str = "bootloader.signed") -> bytes:
    made = factory.build(
        keys.make_keyset(environment="release"),
        firmware=imagefile.parse((foundry / app).read_bytes()).data,
    )
    loader = (foundry / bootloader).read_bytes()
    size = imagefile.flash_size(loader)
    assert size == len(made)
    return made[:0x1000] + loader.ljust(0x7000, b"\xff") + made[0x8000:]


@pytest.mark.requirement("HLC01", "UPE15")
@pytest.mark.parametrize("key", ["k.pem", "k.pub.pem"])
def test_where_secure_boot_is_planned_bootloader_and_app_must_be_signed_with_its_key(
    foundry: Path, key: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = Runner(capsys, monkeypatch)
    monkeypatch.chdir(tmp_path)

    def findings(data: bytes, key: str = key) -> list[str]:
        Path("flash.bin").write_bytes(data)
        done = run(f"factory check flash.bin --secure-boot-key {foundry / key} --json")
        found = [one["sentence"].split()[1] for one in json.loads(done.out)["findings"] if one["code"] == "SECURE_BOOT"]
        assert (done.code == 0) == (found == []), done.out
        return found

    good = flash(foundry)
    assert findings(good) == []
    assert findings(flash(foundry, app="app")) == ["app"]
    assert findings(flash(foundry, bootloader="bootloader")) == ["bootloader"]
    assert findings(good, "other.pem") == ["bootloader", "app"]
    flipped = bytearray(good)
    start = layout.load("4MiB")["ota_0"].offset
    flipped[
        imagefile.signed_length(good[start:], imagefile.read_structure(good[start:]).length) + start - 4096 + 900
    ] ^= 1
    assert findings(bytes(flipped)) == ["app"], "a signature that was changed"
    Path("unsigned.bin").write_bytes(flash(foundry, "app", "bootloader"))
    assert run("factory check unsigned.bin").code == 0, "nothing is asked of a product without secure boot"
    refused = run(f"factory flash unsigned.bin --port /dev/null --secure-boot-key {foundry / key}")
    assert refused.err.count("error[SECURE_BOOT]") == 2
    assert "nothing was written" in refused.err


@pytest.mark.requirement("UPE15")
def test_an_engine_that_secure_boot_does_not_cover_is_told(foundry: Path) -> None:
    """Official firmware, signed like the bootloader: both start, and whoever writes vfs replaces the engine."""
    stock = factory.build(
        keys.make_keyset(),
        firmware=imagefile.parse((foundry / "app.signed").read_bytes()).data,
        mode=flashimage.STOCK,
    )
    loader = (foundry / "bootloader.signed").read_bytes().ljust(0x7000, b"\xff")
    data = stock[:0x1000] + loader + stock[0x8000:]

    def findings(key: Path | None) -> list[str]:
        wanted = check.Wanted(environment="development", secure_boot=key)
        return [one.sentence for one in check.check(data, wanted).findings if one.code == "SECURE_BOOT"]

    assert findings(None) == []
    (told,) = findings(foundry / "k.pem")
    assert told.startswith("The engine lies on the partition vfs, which secure boot does not verify")


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", b"rsa2048"])
def test_what_is_no_secure_boot_key_is_named(foundry: Path, tmp_path: Path, content: bytes) -> None:
    if content == b"rsa2048":
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        weak = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        kinds = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        content = weak.private_bytes(*kinds)
    (tmp_path / "k.pem").write_bytes(content)
    with pytest.raises(ToolError) as caught:
        secure_boot.problem((foundry / "app.signed").read_bytes(), tmp_path / "k.pem", "app")
    assert caught.value.code == "KEY_FILE"


@pytest.mark.requirement("UPC10")
def test_the_gate_asks_for_the_signature_that_chips_will_ask_for(foundry: Path) -> None:
    made = keys.make_keyset(environment="release")

    def codes(app: str, key: str | None) -> set[str]:
        data = imagefile.parse((foundry / app).read_bytes()).data
        request = release.Request("example.com", "lamp", "1", 1, (release.Component("fw", data),))
        inputs = release_check.Inputs(
            release.draft(request).envelope,
            {"fw": data},
            layout.load("4MiB"),
            "esp32",
            "frozen",
            made.document,
            secure_boot=foundry / key if key else None,
        )
        return {one.code for one in release_check.check(inputs)} & {"SECURE_BOOT"}

    assert codes("app.signed", "k.pem") == set()
    assert codes("app", "k.pem") == {"SECURE_BOOT"}
    assert codes("app.signed", "other.pem") == {"SECURE_BOOT"}
    assert codes("app", None) == set()
