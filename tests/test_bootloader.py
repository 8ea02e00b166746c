"""The bootloader model beyond the recorded cases: fallbacks, cuts, deep sleep, profiles, damage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import firmware, images
from sekisho_sim import bootloader
from sekisho_sim import flash as nor
from sekisho_sim.bootloader import ABORTED, NEW, PENDING, UNDEFINED, VALID, Entry, power_on
from sekisho_sim.efuse import Efuse
from sekisho_sim.flash import Flash, PowerCutError
from sekisho_tools import layout
from sekisho_tools.layout import Layout, Partition

A, B = images.app("a"), images.app("b")


def entries(flash: Flash) -> list[str]:
    return [str(entry) for entry in bootloader.read_entries(flash, images.golden_layout()["otadata"])]


def two_slots(first: Entry | None, second: Entry | None) -> Flash:
    return images.flash_with({"ota_0": A, "ota_1": B}, (first, second))


def test_crc_of_an_entry_is_that_of_the_rom() -> None:
    vectors = {1: 0x4743989A, 2: 0x55F63774, 3: 0xED4A5011, 4: 0x709D68A8, 5: 0xC8210FCD, 0xFFFFFFFE: 0x99F8B879}
    assert {seq: bootloader.seq_crc(seq) for seq in vectors} == vectors
    assert Entry.make(1, VALID).encode().hex() == "01000000" + "ff" * 20 + "02000000" + "9a984347"


def test_first_boot_of_a_blank_device_writes_the_entry_of_the_slot_that_ran() -> None:
    flash = two_slots(None, None)
    assert power_on(flash).running == "ota_0"
    assert entries(flash) == ["seq 1 VALID", "empty"]


def test_nothing_boots_from_an_empty_flash() -> None:
    flash = Flash.blank()
    result = power_on(flash)
    assert (result.running, result.boot_partition, flash.log) == (None, None, [])
    flash = images.flash_with({})
    assert power_on(flash).running is None
    assert flash.log == []


def test_trial_lasts_exactly_one_start() -> None:
    flash = two_slots(Entry.make(1, VALID), Entry.make(2, NEW))
    assert power_on(flash).running == "ota_1"
    assert power_on(flash).running == "ota_0"
    assert entries(flash) == ["seq 1 VALID", "seq 2 ABORTED"]
    assert power_on(flash).running == "ota_0"


@pytest.mark.requirement("UPE14")
def test_cut_anywhere_in_the_bootloaders_own_write_leads_to_the_old_slot() -> None:
    """NEW -> PENDING is an erase and a program: a cut in them loses the update, never the device.

    An erase that had only begun may leave seq and CRC whole and the state changed, which no CRC covers: then the new
    slot runs with a state that is not PENDING. So the bootloader's state alone cannot say whether an image is on trial.
    """
    base = bytes(two_slots(Entry.make(1, VALID), Entry.make(2, NEW)).buffer)
    whole = Flash(bytearray(base))
    power_on(whole)
    assert len(whole.log) == 2
    seen = set()
    for case, state in nor.cut_states(base, whole.log, seeds=range(3)):
        flash = Flash(bytearray(state))
        result = power_on(flash)
        assert result.running in ("ota_0", "ota_1"), case
        if result.running == "ota_1":
            entry = bootloader.read_entries(flash, images.golden_layout()["otadata"])[1]
            assert (entry.seq, entry.valid, entry.state == NEW) == (2, True, False), case
        seen.add(result.running)
    assert seen == {"ota_0", "ota_1"}


def test_cut_inside_the_model_stops_it_there() -> None:
    flash = two_slots(Entry.make(1, VALID), Entry.make(2, NEW))
    flash.cut_at, flash.torn = 1, "program-low-half"
    with pytest.raises(PowerCutError):
        power_on(flash)
    flash.cut_at = None
    assert flash.read(0xE000, 32) == Entry.make(2, PENDING).encode()[:16] + b"\xff" * 16
    assert power_on(flash).running == "ota_0"


def test_corrupt_choice_falls_back_to_a_slot_that_is_aborted_and_otadata_stays() -> None:
    flash = two_slots(Entry.make(1, VALID), Entry.make(2, ABORTED))
    flash.buffer[0x10000 + 100] ^= 1
    result = power_on(flash)
    assert (result.running, result.boot_partition, flash.log) == ("ota_1", "ota_0", [])


def test_bootloader_without_rollback_leaves_new_alone() -> None:
    flash = two_slots(Entry.make(1, VALID), Entry.make(2, NEW))
    assert power_on(flash, profile=bootloader.NO_ROLLBACK).running == "ota_1"
    assert power_on(flash, profile=bootloader.NO_ROLLBACK).running == "ota_1"
    assert (entries(flash)[1], flash.log) == ("seq 2 NEW", [])


def test_wake_from_deep_sleep_skips_verification_and_otadata() -> None:
    flash, rtc = two_slots(Entry.make(1, VALID), None), bytearray(64)
    assert power_on(flash, rtc=rtc).running == "ota_0"
    flash.buffer[0xE000:0xE020] = Entry.make(2, NEW).encode()
    flash.buffer[0x10000 + 100] ^= 1
    woken = power_on(flash, cause="deep-sleep", rtc=rtc)
    assert (woken.running, woken.boot_partition) == ("ota_0", "ota_1")
    assert entries(flash) == ["seq 1 VALID", "seq 2 NEW"]
    assert power_on(flash, cause="reset", rtc=rtc).running == "ota_1"


def test_image_on_trial_survives_deep_sleep_but_not_a_reset() -> None:
    flash, rtc = two_slots(Entry.make(1, VALID), Entry.make(2, NEW)), bytearray(16)
    assert power_on(flash, rtc=rtc).running == "ota_1"
    assert power_on(flash, cause="deep-sleep", rtc=rtc).running == "ota_1"
    assert entries(flash)[1] == "seq 2 PENDING"
    assert power_on(flash, cause="watchdog", rtc=rtc).running == "ota_0"


def test_rtc_memory_does_not_survive_power_loss() -> None:
    flash, rtc = two_slots(Entry.make(1, VALID), Entry.make(2, NEW)), bytearray(16)
    power_on(flash, rtc=rtc)
    rtc[3] ^= 1
    assert power_on(flash, cause="deep-sleep", rtc=rtc).running == "ota_0", "a bad record means an ordinary boot"


def test_factory_app_is_preferred_when_otadata_is_blank_and_is_the_last_fallback() -> None:
    rows = (
        *images.golden_layout().partitions[:-1],
        Partition("factory", layout.APP, layout.FACTORY, 0x350000, 0x20000),
    )
    table = Layout(rows, 4 << 20)
    apps = {"ota_0": A, "ota_1": B, "factory": images.app("f")}
    flash = images.flash_with(apps, (None, None), table)
    result = power_on(flash)
    assert (result.running, result.boot_partition, flash.log) == ("factory", "factory", [])
    flash = images.flash_with({"factory": apps["factory"]}, (Entry.make(2, VALID), None), table)
    assert power_on(flash).running == "factory"


def test_three_slots_are_counted_in_the_sequence() -> None:
    rows = [Partition("otadata", 1, 0, 0xD000, 0x2000)]
    rows += [Partition(f"ota_{i}", 0, 0x10 + i, 0x10000 * (i + 1), 0x10000) for i in range(3)]
    table = Layout(tuple(rows), 4 << 20)
    apps = {f"ota_{i}": images.app(str(i)) for i in range(3)}
    for seq, slot in ((1, 0), (2, 1), (3, 2), (4, 0), (6, 2)):
        assert power_on(images.flash_with(apps, (Entry.make(seq, UNDEFINED), None), table)).running == f"ota_{slot}"


def test_broken_table_or_small_otadata_means_reset_for_ever() -> None:
    flash = two_slots(Entry.make(1, VALID), None)
    flash.buffer[0x8004] ^= 1
    assert power_on(flash).running is None
    rows = tuple(
        Partition("otadata", 1, 0, 0xD000, 0x1000) if row.label == "otadata" else row for row in images.golden_layout()
    )
    assert power_on(images.flash_with({"ota_0": A}, (None, None), Layout(rows, 4 << 20))).running is None


def test_slot_for_another_chip_is_not_bootable() -> None:
    flash = images.flash_with({"ota_0": images.app(chip="esp32s3"), "ota_1": B}, (Entry.make(1, VALID), None))
    result = power_on(flash)
    assert result.running == "ota_1"
    assert "esp32s3" in " ".join(result.log)


def test_anti_rollback_refuses_old_versions_and_raises_the_fuse() -> None:
    old, new = images.app("old", secure_version=1), images.app("new", secure_version=2)
    flash = images.flash_with({"ota_0": old, "ota_1": new}, (Entry.make(1, VALID), Entry.make(2, NEW)))
    fuses = Efuse()
    assert power_on(flash, fuses, profile=bootloader.ANTI_ROLLBACK).running == "ota_1"
    assert fuses.secure_version == 0, "not while on trial"
    flash.buffer[0xE000:0xE020] = Entry.make(2, VALID).encode()
    assert power_on(flash, fuses, profile=bootloader.ANTI_ROLLBACK).running == "ota_1"
    assert fuses.secure_version == 2
    flash.buffer[0xE000:0xE020] = Entry.make(2, ABORTED).encode()
    # ota_0 is selected by otadata but too old: the one that passes runs, whatever otadata says of it.
    assert power_on(flash, fuses, profile=bootloader.ANTI_ROLLBACK).running == "ota_1"
    flash.buffer[0x1B0000 + 100] ^= 1
    assert power_on(flash, fuses, profile=bootloader.ANTI_ROLLBACK).running is None


def test_genuine_firmware_boots_in_the_model() -> None:
    from sekisho_tools import imagefile

    apps = {f"ota_{n}": imagefile.parse(firmware.read(r)).data for n, r in enumerate(("v1.15", "v1.16"))}
    flash = images.flash_with(apps, (Entry.make(1, VALID), Entry.make(2, NEW)))
    assert power_on(flash).running == "ota_1"
    assert power_on(flash).running == "ota_0"


def sekisho(*arguments: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-m", "sekisho_tools", "sim", "bootloader", *arguments],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{root / 'tools'}:{root / 'host_sim'}", "PATH": ""},
        check=False,
    )


def test_command_prints_json_and_leaves_otadata_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "flash.bin"
    file.write_bytes(two_slots(Entry.make(1, VALID), Entry.make(2, NEW)).buffer)
    done = sekisho(str(file), "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["running"], answer["boot_partition"]) == ("ota_1", "ota_1")
    assert isinstance(answer["log"], list)
    assert entries(Flash(bytearray(file.read_bytes()))) == ["seq 1 VALID", "seq 2 PENDING"]
    file.write_bytes(b"\xff" * (1 << 20))
    answer = json.loads(sekisho(str(file), "--json").stdout)
    assert (answer["running"], answer["boot_partition"]) == (None, None)


@pytest.mark.parametrize(
    ("content", "options", "code"),
    [
        (None, (), "FILE"),
        (b"short", (), "FLASH_IMAGE"),
        (b"\xff" * 65536, ("--torn", "sideways", "--power-cut-at", "0"), "TORN_SHAPE"),
        (b"\xff" * 65536, ("--torn", "erase-done"), "TORN_SHAPE"),
        (b"\xff" * 65536, ("--power-cut-at", "0"), "NO_CUT"),
    ],
)
def test_command_says_what_is_wrong(tmp_path: Path, content: bytes | None, options: tuple[str, ...], code: str) -> None:
    file = tmp_path / "flash.bin"
    if content is not None:
        file.write_bytes(content)
    done = sekisho(str(file), *options)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error[{code}]: ")
    assert content is None or file.read_bytes() == content


def test_command_cuts_the_power_and_keeps_what_was_left(tmp_path: Path) -> None:
    file = tmp_path / "flash.bin"
    file.write_bytes(two_slots(Entry.make(1, VALID), Entry.make(2, NEW)).buffer)
    done = sekisho(str(file), "--json", "--power-cut-at", "1")
    assert json.loads(done.stdout)["running"] is None
    assert entries(Flash(bytearray(file.read_bytes()))) == ["seq 1 VALID", "empty"]
    wrong = sekisho(str(file), "--power-cut-at", "0", "--torn", "erase-done")
    assert wrong.stderr.startswith("error[NO_CUT]")
