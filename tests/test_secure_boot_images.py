"""Images signed for secure boot v2 keep their signature: without it the chip would not start them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import images, keys
from helpers.cli import Runner
from sekisho_tools import config, flashimage, imagefile, layout
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


@pytest.mark.requirement("UPE15")
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
