"""Partition tables: CSV, binary form, and every check."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from sekisho_tools import layout
from sekisho_tools.errors import ToolError

MICROPYTHON_OTA = """
nvs,data,nvs,0x9000,0x4000,
otadata,data,ota,0xd000,0x2000,
phy_init,data,phy,0xf000,0x1000,
ota_0,app,ota_0,0x10000,0x180000,
ota_1,app,ota_1,0x190000,0x180000,
"""


def test_binary_table_is_the_one_espressifs_tool_makes() -> None:
    table = layout.parse_csv(MICROPYTHON_OTA).encode()
    assert len(table) == 0xC00
    assert hashlib.sha256(table).hexdigest() == "0241fa0d2e573dee86756e39fb4181e61ff7218087619cab565b602df55954d6"


@pytest.mark.parametrize(("name", "size"), [("4MiB", 4), ("8MiB", 8), ("16MiB", 16)])
def test_shipped_layouts_pass_every_check_and_survive_the_round_trip(name: str, size: int) -> None:
    found = layout.check_sekisho(layout.load(name))
    assert found.flash_size == size << 20
    assert layout.decode(found.encode(), found.flash_size) == found
    assert found["ota_0"].size >= 0x1B0000
    assert found["sekisho"].subtype_name == "0x40"
    assert found["ota_1"].subtype_name == "ota_1"


def test_empty_offset_means_next_aligned() -> None:
    found = layout.parse_csv("nvs,data,nvs,,16K,\nota_0,app,ota_0,,1M,encrypted:readonly\n", 4 << 20)
    assert (found["nvs"].offset, found["nvs"].size) == (0x9000, 0x4000)
    assert (found["ota_0"].offset, found["ota_0"].size, found["ota_0"].flags) == (0x10000, 1 << 20, 3)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a,data,0x40,0x10000,0x1000,\na,data,0x40,0x11000,0x1000,", "used twice"),
        ("a,app,ota_0,0x11000,0x10000,", "multiple of 0x10000"),
        ("a,data,0x40,0x10100,0x1000,", "multiple of 0x1000"),
        ("a,data,0x40,0x10000,0x1001,", "no multiple"),
        ("a,data,0x40,0x8000,0x1000,", "bootloader or the table"),
        ("a,data,0x40,0x3ff000,0x2000,", "beyond the flash"),
        ("a,data,0x40,0x10000,0x2000,\nb,data,0x40,0x11000,0x1000,", "overlap"),
        ("a,data,ota,0x10000,0x1000,", "0x2000"),
        ("a,app,ota_1,0x10000,0x10000,", "without a gap"),
        ("a label of seventeen,data,0x40,0x10000,0x1000,", "1 to 16"),
        ("a,data,0x40,0x10000", "columns"),
        ("a,date,0x40,0x10000,0x1000,", "neither a number"),
        ("a,data,0x40,0x10000,1Q,", "neither a number"),
        ("a,data,0x40,0x10000,0x1000,wet", "neither a number"),
        ("a,data,0x1ff,0x10000,0x1000,", "fit its field"),
        ("# only a comment", "empty"),
    ],
)
def test_bad_table_is_refused_with_the_reason(row: str, words: str) -> None:
    with pytest.raises(ToolError, match=words) as refused:
        layout.parse_csv(row, 4 << 20)
    assert refused.value.code == "LAYOUT"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("data, 0x40, ", "data, 0x42, ", "sekisho must be"),
        ("0x10000,\napp_0", "0x10000, encrypted\napp_0", "encrypted"),
        ("ota_1,     app,  ota_1,   0x1c0000, 0x1b0000", "ota_1,app,ota_1,0x1c0000,0x1a0000", "same size"),
        ("app_1,     data, 0x41", "app_1, data, 0x42", "app_0 and app_1"),
        ("vfs, ", "wfs, ", "no partition 'vfs'"),
        ("nvs,       data, nvs,     0x9000,   0x4000,", "f,app,factory,0x3e0000,0x10000,", "overlap"),
        ("otadata,   data, ota, ", "otadata, data, 0x06, ", "otadata"),
    ],
)
def test_table_that_sekisho_cannot_use_is_refused(old: str, new: str, words: str) -> None:
    text = (layout.FIRMWARE / "partitions" / "4MiB.csv").read_text()
    assert old in text
    with pytest.raises(ToolError, match=words):
        layout.check_sekisho(layout.parse_csv(text.replace(old, new), 4 << 20))


def test_factory_slot_is_refused_since_the_bootloader_would_fall_back_to_it() -> None:
    text = (layout.FIRMWARE / "partitions" / "16MiB.csv").read_text() + "f,app,factory,0xff0000,0x10000,\n"
    text = text.replace("0x4e0000", "0x4d0000")
    with pytest.raises(ToolError, match="factory"):
        layout.check_sekisho(layout.parse_csv(text, 16 << 20))


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [(4, 0x01, "MD5"), (0, 0xAB, "no known mark"), (160 + 16, 0, "MD5"), (7, 0x80, "beyond")],
)
def test_damaged_binary_table_is_refused(at: int, value: int, words: str) -> None:
    table = bytearray(layout.parse_csv(MICROPYTHON_OTA).encode())
    assert table[at] != value
    table[at] = value
    with pytest.raises(ToolError, match=words):
        layout.decode(bytes(table), 4 << 20)


def test_table_without_md5_is_accepted_but_not_one_without_an_end() -> None:
    table = layout.parse_csv(MICROPYTHON_OTA).encode()
    rows = table[: 5 * 32]
    assert len(layout.decode(rows.ljust(0xC00, b"\xff"), 4 << 20).partitions) == 5
    with pytest.raises(ToolError, match="no end"):
        layout.decode(rows, 4 << 20)
    with pytest.raises(ToolError, match="no end"):
        layout.decode(rows[:32] * 96, 4 << 20)
    with pytest.raises(ToolError, match="MD5"):
        layout.decode(table[: 6 * 32] + table[5 * 32 : 6 * 32] + b"\xff" * 64, 4 << 20)


def test_missing_layout_file_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="Cannot read the partition layout"):
        layout.load(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ToolError, match="no text file"):
        layout.load(tmp_path / "binary.csv")
