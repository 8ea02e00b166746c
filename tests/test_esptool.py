"""Espressif's own tool takes what `sekisho image build` makes."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import firmware, keys
from sekisho_tools import config, flashimage, imagefile, layout


def esptool(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "esptool", *words], capture_output=True, text=True, check=False)


def build(size: str) -> bytes:
    app = imagefile.parse(firmware.read("v1.15"))
    device = config.make("example.com", ["lamp"], keys.make_keyset().document, app.chip)
    return flashimage.build(flashimage.Inputs(app, layout.load(size), device, payload_only=True)).data


def test_the_printed_command_writes_the_image_to_a_board(tmp_path: Path) -> None:
    """The board is a mock that speaks the protocol of the ROM; the command is the one that the user is shown."""
    mock = pytest.importorskip("esp32_mock_bootloader")
    image = tmp_path / "flash image.bin"
    image.write_bytes(build("4MiB"))
    command = shlex.split(flashimage.esptool_command("esp32", image))
    assert command[0] == "esptool"
    with mock.mock_bootloader(chip="esp32") as board:
        written = esptool("--port", board.url(), *command[1:])
        assert written.returncode == 0, written.stdout
        assert "Hash of data verified" in written.stdout
        verify = ["--chip", "esp32", "--port", board.url(), "verify-flash", "0x0", str(image)]
        assert esptool(*verify).returncode == 0
        damaged = bytearray(image.read_bytes())
        damaged[0x123456] ^= 1
        image.write_bytes(damaged)
        assert esptool(*verify).returncode != 0, "a wrong byte must be noticed"


def test_esptool_finds_our_images_valid(tmp_path: Path) -> None:
    data = build("16MiB")
    found = imagefile.find_bootloader(data)
    assert found is not None
    (tmp_path / "bootloader.bin").write_bytes(found[1])
    (tmp_path / "app.bin").write_bytes(imagefile.parse(firmware.read("v1.16")).data)
    for name in ("bootloader.bin", "app.bin"):
        said = esptool("--chip", "esp32", "image-info", str(tmp_path / name)).stdout
        assert said.count("(valid)") == 2, said
    assert "16MB" in esptool("--chip", "esp32", "image-info", str(tmp_path / "bootloader.bin")).stdout


def test_esptool_reads_the_golden_app_as_we_do(tmp_path: Path) -> None:
    from test_imagefile import golden

    (tmp_path / "golden.bin").write_bytes(golden())
    said = esptool("--chip", "esp32", "image-info", str(tmp_path / "golden.bin")).stdout
    assert "0xd1 (valid)" in said
    assert "1.2.3" in said
