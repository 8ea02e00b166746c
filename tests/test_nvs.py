"""NVS: the real on-flash format, read and written, and what a power cut leaves of it."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from sekisho_sim import flash as nor
from sekisho_sim import nvs
from sekisho_sim.flash import Flash, MemPart
from sekisho_sim.nvs import BLOB_INDEX, I32, STRING, Nvs

SIZE = 0x4000
GOLDEN = bytes.fromhex(
    "feffffff00000000fe" + "ff" * 19 + "842dbab9"
    "aaea" + "ff" * 30 + "000101ff79944e38" + b"ns1".hex().ljust(32, "0") + "01" + "ff" * 7 + "011401ff2d4c1aad"
    "" + b"ctr".hex().ljust(32, "0") + "07000000ffffffff"
    "014202009f98fb92" + b"blob".hex().ljust(32, "0") + "0400ffff8e1179fa"
    "00112233" + "ff" * 28 + "014801ffa0f19ef8" + b"blob".hex().ljust(32, "0") + "040000000100ffff"
    "012102ff0b6d4933" + b"s".hex().ljust(32, "0") + "0300ffff89b5040d" + b"hi\0".hex() + "ff" * 29
)
"""First bytes of the page that Espressif's generator makes of the CSV below (platform notes, 5.2)."""
CSV = "key,type,encoding,value\nns1,namespace,,\nctr,data,i32,7\nblob,data,hex2bin,00112233\ns,data,string,hi\n"


def part(content: bytes = b"") -> MemPart:
    return MemPart(SIZE, Flash(bytearray(content.ljust(SIZE, b"\xff"))))


def written() -> MemPart:
    made = part()
    store = Nvs(made)
    ns = store.open("ns1")
    store.set_int(ns, "ctr", 7)
    store.set(ns, "blob", BLOB_INDEX, bytes.fromhex("00112233"))
    store.set(ns, "s", STRING, b"hi\0")
    return made


def test_what_is_written_is_the_golden_page() -> None:
    found = written().flash.read(0, 4096)
    assert found == GOLDEN.ljust(4096, b"\xff")


def test_golden_page_is_read() -> None:
    assert Nvs(part(GOLDEN)).dump() == {"ns1": {"ctr": 7, "blob": bytes.fromhex("00112233"), "s": "hi"}}


def test_image_of_espressifs_generator_is_read(tmp_path: Path) -> None:
    rows = CSV + "u,data,u64,18446744073709551615\nneg,data,i8,-5\nlong,data,string," + "x" * 500 + "\n"
    rows += "big,file,binary," + str(tmp_path / "big.bin") + "\nother,namespace,,\nctr,data,u16,9\n"
    (tmp_path / "big.bin").write_bytes(random.Random(3).randbytes(6000))
    (tmp_path / "in.csv").write_text(rows)
    done = subprocess.run(
        [sys.executable, "-m", "esp_idf_nvs_partition_gen", "generate", "in.csv", "out.bin", hex(0x5000)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    image = (tmp_path / "out.bin").read_bytes()
    assert image[4:32] == GOLDEN[4:32]
    found = Nvs(MemPart(len(image), Flash(bytearray(image)))).dump()
    assert found["other"] == {"ctr": 9}
    assert found["ns1"] == {
        "ctr": 7,
        "blob": bytes.fromhex("00112233"),
        "s": "hi",
        "u": (1 << 64) - 1,
        "neg": -5,
        "long": "x" * 500,
        "big": (tmp_path / "big.bin").read_bytes(),
    }


def test_each_step_of_a_write_is_an_operation_of_its_own() -> None:
    made = part()
    store = Nvs(made)
    ns = store.open("a")
    made.flash.log.clear()
    store.set_int(ns, "k", 1)
    assert [(op.kind, op.length) for op in made.flash.log] == [("program", 32), ("program", 4)]
    made.flash.log.clear()
    store.set_int(ns, "k", 2)
    assert [op.length for op in made.flash.log] == [32, 4, 4], "entry, mark written, mark the old one erased"
    made.flash.log.clear()
    store.set_int(ns, "k", 2)
    assert made.flash.log == [], "the same value writes nothing"
    store.set(ns, "b", BLOB_INDEX, bytes(70))
    assert [op.length for op in made.flash.log] == [32, 4, 64, 4, 32, 4, 32, 4]


def test_values_are_replaced_and_removed() -> None:
    store = Nvs(part())
    ns = store.open("a")
    for blob in (b"", b"one", bytes(5000), b"two"):
        store.set(ns, "b", BLOB_INDEX, blob)
        assert store.get(ns, "b", BLOB_INDEX) == blob
    store.set(ns, "b", STRING, b"text\0")
    assert store.dump() == {"a": {"b": "text"}}
    store.set_int(ns, "n", -(1 << 31))
    assert store.get_int(ns, "n") == -(1 << 31)
    store.erase_key(ns, "b")
    for wrong in (lambda: store.get(ns, "b", STRING), lambda: store.erase_key(ns, "b"), lambda: store.get_int(9, "n")):
        with pytest.raises(OSError, match="NOT_FOUND") as refused:
            wrong()
        assert refused.value.args[0] == -4354
    assert Nvs(store.part).dump() == {"a": {"n": -(1 << 31)}}


def test_limits_are_those_of_the_chip() -> None:
    store = Nvs(part())
    ns = store.open("a")
    with pytest.raises(OverflowError):
        store.set_int(ns, "n", 1 << 31)
    with pytest.raises(OSError, match="KEY_TOO_LONG") as refused:
        store.set_int(ns, "k" * 16, 1)
    assert refused.value.args[0] == -4361
    with pytest.raises(OSError, match="INVALID_NAME"):
        store.open("n" * 16)
    with pytest.raises(OSError, match="VALUE_TOO_LONG"):
        store.set(ns, "s", STRING, bytes(4001))
    with pytest.raises(OSError, match=r"VALUE_TOO_LONG|NOT_ENOUGH_SPACE"):
        store.set(ns, "b", BLOB_INDEX, bytes(13_000))
    assert Nvs(store.part).dump() == {"a": {}}


def test_a_full_partition_says_so_and_keeps_what_it_has() -> None:
    store = Nvs(part())
    ns = store.open("a")
    stored = {f"k{number}": number for number in range(3 * 126 - 1)}
    for key, number in stored.items():
        store.set_int(ns, key, number)
    with pytest.raises(OSError, match="NOT_ENOUGH_SPACE"):  # one page of four stays free
        store.set_int(ns, "one more", 0)
    assert Nvs(store.part).dump() == {"a": stored}


def test_pages_are_collected_for_ever() -> None:
    made = part()
    store = Nvs(made)
    ns = store.open("a")
    store.set(ns, "keep", BLOB_INDEX, bytes(range(200)))
    for number in range(2000):
        store.set_int(ns, "n", number)
    assert made.flash.erases > 5
    assert Nvs(made).dump() == {"a": {"keep": bytes(range(200)), "n": 1999}}


def test_micropython_erases_a_full_or_newer_partition_at_start() -> None:
    made = written()
    newer = bytearray(made.flash.buffer)
    newer[8] = 0xFD
    newer[28:32] = nvs._crc(bytes(newer[4:28])).to_bytes(4, "little")
    with pytest.raises(OSError, match="NEW_VERSION_FOUND"):
        Nvs(part(bytes(newer)))
    store, erased = nvs.mount(part(bytes(newer)))
    assert (erased, store.dump()) == (True, {})
    pages = bytearray(newer[:4096]) * 4
    for number in range(4):
        page = memoryview(pages)[number * 4096 :]
        page[4] = number
        page[8] = 0xFE
        page[28:32] = nvs._crc(bytes(page[4:28])).to_bytes(4, "little")
    with pytest.raises(OSError, match="NO_FREE_PAGES"):
        Nvs(part(bytes(pages)))
    assert nvs.mount(part(bytes(pages)))[1] is True
    assert nvs.mount(written())[1] is False


def test_damaged_header_means_a_page_without_content() -> None:
    made = written()
    made.flash.buffer[5] ^= 1
    assert Nvs(made).dump() == {}
    dirty = part(b"\xff" * 5000 + b"\x00")
    assert Nvs(dirty).dump() == {}


def cut_everywhere(seed: int, rounds: int) -> int:
    """A random life of a partition; before each write, every cut inside it is tried. Returns the cases."""
    rng = random.Random(seed)
    made = part()
    store = Nvs(made)
    ns = store.open("a")
    now: dict[str, object] = {}
    cases = 0
    for _ in range(rounds):
        key = rng.choice("abcd")
        value = rng.choice([rng.randrange(1 << 31), rng.randbytes(rng.choice((3, 32, 100, 700)))])
        base = bytes(made.flash.buffer)
        made.flash.log.clear()
        before = dict(now)
        if isinstance(value, int):
            store.set_int(ns, key, value)
        else:
            store.set(ns, key, BLOB_INDEX, value)
        now[key] = value
        for case, state in nor.cut_states(base, made.flash.log):
            found = Nvs(part(state)).dump()["a"]
            others = {name: content for name, content in before.items() if name != key}
            assert {name: content for name, content in found.items() if name != key} == others, case
            assert found.get(key) in (before.get(key), value), case
            if before.get(key) is not None:
                assert key in found, case
            cases += 1
    return cases


@pytest.mark.parametrize("seed", range(3))
def test_a_cut_in_any_write_leaves_the_old_value_or_the_new_one(seed: int) -> None:
    assert cut_everywhere(seed, 40) > 1000


def test_runs_on_micropython_as_well() -> None:
    micropython = Path(sys.executable).with_name("micropython")
    if not micropython.exists():
        pytest.skip("no micropython next to this python")
    code = (
        f"import sys; sys.path.insert(0, {str(Path(nvs.__file__).parent)!r})\n"
        "import nvs\n"
        "class Part:\n"
        "    size = 0x4000\n"
        "    def __init__(self): self.b = bytearray(b'\\xff' * self.size)\n"
        "    def read(self, off, buf): buf[:] = self.b[off : off + len(buf)]\n"
        "    def program(self, off, buf):\n"
        "        for i, c in enumerate(buf): self.b[off + i] &= c\n"
        "    def erase(self, n): self.b[n * 4096 : (n + 1) * 4096] = b'\\xff' * 4096\n"
        "p = Part(); s = nvs.Nvs(p); n = s.open('ns1'); s.set_int(n, 'ctr', 7)\n"
        "s.set(n, 'blob', nvs.BLOB_INDEX, b'\\x00\\x11\\x22\\x33'); s.set(n, 's', nvs.STRING, b'hi\\0')\n"
        "import binascii; print(str(binascii.hexlify(p.b[:288]), 'ascii'), nvs.Nvs(p).get_int(n, 'ctr'))\n"
    )
    done = subprocess.run([micropython, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == [GOLDEN.hex().ljust(576, "f"), "7"], done.stderr


def test_i32_is_the_default_type() -> None:
    store = Nvs(written())
    assert store.get_int(1, "ctr") == store.get_int(1, "ctr", I32) == 7
