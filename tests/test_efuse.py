"""The eFuses of an ESP32 as `machine.mem32` sees them, and as espefuse keeps them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sekisho_sim import efuse
from sekisho_sim.efuse import BASE, Efuse

READ_BLK3, WRITE_BLK3 = BASE + 0x78, BASE + 0xD8
CONF, CMD = BASE + 0xFC, BASE + 0x104


def burn(fuses: Efuse, address: int, value: int) -> None:
    """What device code does: write word, unlock, program, then read back into the registers."""
    fuses.write32(address, value)
    fuses.write32(CONF, 0x5A5A)
    fuses.write32(CMD, 2)
    fuses.write32(CONF, 0x5AA5)
    fuses.write32(CMD, 1)


def test_two_burns_add_up_as_measured_on_official_firmware() -> None:
    fuses = Efuse()
    burn(fuses, WRITE_BLK3 + 16, 0x1)
    assert (fuses.read32(READ_BLK3 + 16), fuses.secure_version) == (1, 1)
    burn(fuses, WRITE_BLK3 + 16, 0x3)
    assert (fuses.read32(READ_BLK3 + 16), fuses.secure_version) == (3, 2)
    assert fuses.burns == 2


def test_bits_never_go_back() -> None:
    fuses = Efuse()
    burn(fuses, WRITE_BLK3, 0xFF00)
    burn(fuses, WRITE_BLK3, 0x000F)
    assert fuses.read32(READ_BLK3) == 0xFF0F
    assert Efuse(fuses.encode()).read32(READ_BLK3) == 0xFF0F, "power-up loads what is burnt"


@pytest.mark.parametrize(("conf", "command"), [(0x5AA5, 2), (0, 2), (0x5A5A, 1), (0x5A5A, 0)])
def test_nothing_burns_without_the_right_code_and_command(conf: int, command: int) -> None:
    fuses = Efuse()
    fuses.write32(WRITE_BLK3, 1)
    fuses.write32(CONF, conf)
    fuses.write32(CMD, command)
    assert (fuses.burns, fuses.fuses[3][0]) == (0, 0)


def test_read_registers_show_a_burn_only_after_the_read_command() -> None:
    fuses = Efuse()
    fuses.write32(WRITE_BLK3, 5)
    fuses.write32(CONF, 0x5A5A)
    fuses.write32(CMD, 2)
    assert fuses.read32(READ_BLK3) == 0
    fuses.write32(CONF, 0x5AA5)
    fuses.write32(CMD, 1)
    assert fuses.read32(READ_BLK3) == 5
    assert fuses.read32(CMD) == 0, "the command clears itself"
    fuses.write32(READ_BLK3, 7)
    assert fuses.read32(READ_BLK3) == 5, "read registers ignore writes"


def test_protection_bits_of_block0_hold() -> None:
    fuses = Efuse()
    burn(fuses, BASE + 0x98, 0xAAAA)
    burn(fuses, BASE + 0x1C, 1 << 16 | 1 << 9)
    assert fuses.read32(BASE + 0x38) == 0, "BLOCK1 is read-protected"
    assert fuses.fuses[1][0] == 0xAAAA
    burn(fuses, WRITE_BLK3, 1)
    assert fuses.read32(READ_BLK3) == 0, "BLOCK3 is write-protected"


def test_secure_version_is_raised_with_new_low_bits_only() -> None:
    fuses = Efuse()
    assert fuses.raise_secure_version(3) is True
    assert fuses.read32(READ_BLK3 + 16) == 0b111
    assert fuses.raise_secure_version(3) is False
    assert fuses.raise_secure_version(1) is False
    assert fuses.raise_secure_version(32) is True
    assert fuses.secure_version == 32
    with pytest.raises(ValueError, match="0 to 32"):
        fuses.raise_secure_version(33)


@pytest.mark.parametrize("address", [BASE - 4, BASE + 2, BASE + efuse.SIZE, 0])
def test_other_addresses_are_no_efuse_registers(address: int) -> None:
    with pytest.raises(ValueError, match="no eFuse register"):
        Efuse().read32(address)


def test_file_of_another_chip_is_refused() -> None:
    with pytest.raises(ValueError, match="288 bytes"):
        Efuse(bytes(512))


def test_espefuse_reads_our_file_and_we_read_its(tmp_path: Path) -> None:
    file = tmp_path / "efuse.bin"
    fuses = Efuse()
    fuses.raise_secure_version(2)
    file.write_bytes(fuses.encode())

    def espefuse(*words: str) -> str:
        command = [sys.executable, "-m", "espefuse", "--chip", "esp32", "--virt", "--path-efuse-file", str(file)]
        done = subprocess.run([*command, "--do-not-confirm", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert " = 3 " in next(line for line in espefuse("summary").splitlines() if line.startswith("SECURE_VERSION"))
    espefuse("burn-efuse", "SECURE_VERSION", "7")
    assert Efuse.open(file).secure_version == 3
    assert Efuse.open(tmp_path / "none").secure_version == 0
