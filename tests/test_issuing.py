"""Batches of identities: encrypted, each given out once, whatever happens in between."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from helpers import keys
from helpers.cli import Runner
from helpers.simulated import Bench
from sekisho_sim import nvs
from sekisho_sim.flash import Flash, MemPart
from sekisho_tools import files, issued, issuing, labels, layout
from sekisho_tools.errors import ToolError

PASSPHRASE = b"correct horse battery"
KEYSET = keys.make_keyset().document
MAC = "24:0a:c4:00:00:01"


@pytest.fixture(autouse=True)
def _cheap_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuing, "SCRYPT_N", 1 << 10)


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    path = tmp_path / "lamps.batch"
    issuing.create(path, 4, KEYSET, "example.com", "lamp", PASSPHRASE, product="Lamp")
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(capsys, monkeypatch)


def take(path: Path, count: int = 1, *macs: str) -> list[issuing.Taken]:
    with issuing.unlock(path, PASSPHRASE) as opened:
        return opened.take(count, macs)


@pytest.mark.requirement("STS01")
def test_every_device_gets_an_id_and_key_of_its_own(batch: Path) -> None:
    given = take(batch, 4)
    assert len({one.record.id for one in given}) == 4
    assert len({one.secrets.seed for one in given}) == 4
    assert len({one.secrets.kek for one in given}) == 4
    assert len({one.secrets.token for one in given}) == 4
    assert len({one.secrets.console for one in given}) == 4
    for one in given:
        assert one.secrets.seed is not None
        public = Ed25519PrivateKey.from_private_bytes(one.secrets.seed).public_key().public_bytes_raw()
        assert one.record.public_key == public.hex()


@pytest.mark.requirement("HLC02")
def test_nothing_secret_can_be_read_from_a_batch_file(batch: Path) -> None:
    before = batch.read_bytes()
    assert batch.stat().st_mode & 0o077 == 0
    given = take(batch, 4)
    for data in (before, batch.read_bytes()):
        for one in given:
            secret = one.secrets
            assert secret.seed is not None
            for value in (secret.seed.hex(), secret.kek.hex(), secret.token, secret.console):
                assert value.encode() not in data


@pytest.mark.requirement("HLC02")
def test_a_record_is_given_out_once(batch: Path) -> None:
    first = take(batch, 3)
    rest = take(batch, 1)
    assert rest[0].record.id not in {one.record.id for one in first}
    with pytest.raises(ToolError) as caught:
        take(batch)
    assert caught.value.code == "BATCH_EMPTY"
    assert all(record.once is None for record in issuing.load(batch).records), "the secrets are gone from the file"


@pytest.mark.requirement("HLC02")
def test_an_old_copy_of_the_batch_gives_nothing_out_again(batch: Path) -> None:
    old = batch.read_bytes()
    given = {one.record.id for one in take(batch, 2)}
    batch.write_bytes(old)
    again = take(batch, 2)
    assert given.isdisjoint(one.record.id for one in again)
    assert issuing.load(batch).count(issuing.VOID) == 2


@pytest.mark.parametrize("write", [1, 2])
def test_a_crash_while_giving_out_never_gives_the_same_record_twice(
    batch: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    """The first write is the log, the second the batch: the process dies before either."""

    class Died(BaseException):
        pass

    seen: list[issuing.Secrets] = []
    opening = issuing.OpenBatch._open

    def note(self: issuing.OpenBatch, record: issuing.Record) -> tuple[issuing.Record, issuing.Secrets]:
        got = opening(self, record)
        seen.append(got[1])
        return got

    def die(*_: object, **__: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(issuing.OpenBatch, "_open", note)
        patch.setattr(issuing.signlog if write == 1 else issuing, "record" if write == 1 else "write_atomic", die)
        with pytest.raises(Died):
            take(batch)
    after = take(batch)[0].secrets
    # Before the log was written nothing had left the process, so the record may serve; after it, it may not.
    assert (after.token == seen[0].token) == (write == 1)


def test_a_full_disk_leaves_the_batch_as_it_was(batch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = batch.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(ToolError):
            take(batch)
    assert batch.read_bytes() == before
    assert list(batch.parent.glob(".*.tmp")) == []


def test_wrong_passphrase_opens_nothing(batch: Path) -> None:
    with pytest.raises(ToolError) as caught, issuing.unlock(batch, b"something else"):
        pass
    assert caught.value.code == "PASSPHRASE"


@pytest.mark.parametrize("change", ["state", "physical", "swap"])
def test_a_batch_that_was_edited_is_refused(batch: Path, change: str) -> None:
    take(batch, 1)
    raw = json.loads(batch.read_text())
    if change == "state":
        raw["records"][0]["state"] = "fresh"
    elif change == "physical":
        raw["records"][0]["physical"] = MAC
    else:
        raw["records"][1]["once"], raw["records"][2]["once"] = raw["records"][2]["once"], raw["records"][1]["once"]
    batch.write_text(json.dumps(raw))
    with pytest.raises(ToolError) as caught:
        take(batch)
    assert caught.value.code == "PASSPHRASE"
    assert "changed" in caught.value.sentence


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"format": "sekisho-batch-1"}', b"\xff" * 100, b"[" * 100_000])
def test_what_is_no_batch_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ToolError) as caught:
        issuing.load(tmp_path / "x")
    assert caught.value.code == "BATCH"


def test_every_truncation_of_a_batch_is_refused(batch: Path) -> None:
    data = batch.read_bytes().rstrip()
    for end in range(0, len(data), 97):
        batch.write_bytes(data[:end])
        with pytest.raises(ToolError) as caught:
            issuing.load(batch)
        assert caught.value.code == "BATCH"


def test_two_stations_cannot_use_one_batch_at_once(batch: Path) -> None:
    with issuing.unlock(batch, PASSPHRASE), pytest.raises(ToolError) as caught, issuing.unlock(batch, PASSPHRASE):
        pass
    assert caught.value.code == "BATCH_BUSY"


@pytest.mark.requirement("HLC01")
def test_a_batch_belongs_to_the_environment_of_its_key_set(tmp_path: Path) -> None:
    for environment in ("development", "release"):
        document = keys.make_keyset(environment=environment).document
        made = issuing.create(tmp_path / environment, 1, document, "example.com", "lamp", PASSPHRASE)
        assert made.header.environment == environment
    with pytest.raises(ToolError):
        issuing.create(tmp_path / "none", 1, b"no key set", "example.com", "lamp", PASSPHRASE)
    assert not (tmp_path / "none").exists()


# -- logical and physical id ----------------------------------------------------------------------------------------


@pytest.mark.requirement("STS02")
def test_a_chip_has_one_identity_and_an_identity_one_chip(batch: Path) -> None:
    one, two = (given.record.id for given in take(batch, 2))
    with issuing.unlock(batch, PASSPHRASE) as opened:
        opened.bind(opened.batch.find(one), MAC.upper().replace(":", "-"))
        opened.bind(opened.batch.find(one), MAC)  # the same again is no harm
        for name, mac, code in ((one, "24:0a:c4:00:00:02", "RECORD_BOUND"), (two, MAC, "PHYSICAL_USED")):
            with pytest.raises(ToolError) as caught:
                opened.bind(opened.batch.find(name), mac)
            assert caught.value.code == code
        fresh = next(record for record in opened.batch.records if record.state == issuing.FRESH)
        with pytest.raises(ToolError) as caught:
            opened.bind(fresh, "24:0a:c4:00:00:03")
        assert caught.value.code == "RECORD_STATE"
    assert issuing.load(batch).find(MAC).id == one


@pytest.mark.parametrize(
    "text", ["", "24:0a:c4", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "25:0a:c4:00:00:01", "x" * 12]
)
def test_what_is_no_mac_address_is_refused(text: str) -> None:
    with pytest.raises(ToolError) as caught:
        issuing.physical_id(text)
    assert caught.value.code == "PHYSICAL_ID"


# -- the device's side ----------------------------------------------------------------------------------------------


def device_modules() -> dict[str, str]:
    """`issued` alone, and what it imports of the engine."""
    root = Path(__file__).parents[1]
    engine = {
        f"sekisho_boot/{name}.py": root / "boot" / "sekisho_boot" / f"{name}.py" for name in ("__init__", "reasons")
    }
    sources = {"issued.py": root / "lib" / "sekisho" / "issued.py", **engine}
    return {name: path.read_text() for name, path in sources.items()}


@pytest.mark.requirement("STS01")
def test_the_device_reads_what_it_was_issued(batch: Path, tmp_path: Path) -> None:
    """The NVS image of Espressif's generator, read by the device's own code through `esp32.NVS`."""
    given = take(batch, 1, MAC)[0]
    table = layout.load("4MiB")
    from helpers import desk, images
    from sekisho_tools import config, flashimage, imagefile
    from sekisho_tools.imagefile import CHIPS

    built = flashimage.build(
        flashimage.Inputs(
            imagefile.parse(desk.firmware("issued")),
            table,
            config.make("example.com", ["lamp"], KEYSET, "esp32"),
            bootloader=(CHIPS["esp32"], images.bootloader()),
        )
    )
    flash = bytearray(built.data)
    row = table["nvs"]
    flash[row.offset : row.end] = issued.nvs_image(issued.entries(given), row.size)
    main = (
        "import issued\nfound = issued.load()\nprint(sorted(found))\nprint(found['id'].hex(), found['key'].hex())\n"
        "print(found['token'], found['console'])\nissued.forget('token')\nprint(sorted(issued.load()))"
    )
    lines = Bench(tmp_path).printed(main, flash=bytes(flash), modules=device_modules())
    assert lines[0] == "['console', 'id', 'kek', 'key', 'token']"
    assert given.secrets.seed is not None
    assert lines[1] == f"{given.record.id.replace('-', '')} {given.secrets.seed.hex()}"
    assert lines[2] == f"{given.secrets.token.encode()} {given.secrets.console.encode()}"
    assert lines[3] == "['console', 'id', 'kek', 'key']"


def test_a_device_that_was_never_issued_has_no_identity(tmp_path: Path) -> None:
    from helpers.images import app, flash_with

    lines = Bench(tmp_path).printed(
        "import issued\nprint(issued.load())",
        flash=flash_with({"ota_0": app()}, table=layout.load("4MiB")),
        modules=device_modules(),
    )
    assert lines == ["{}"]


@pytest.mark.requirement("HLC02")
def test_with_keys_made_on_the_device_no_secret_key_passes_the_desk(tmp_path: Path) -> None:
    path = tmp_path / "b"
    issuing.create(path, 1, KEYSET, "example.com", "lamp", PASSPHRASE, key=issuing.ON_DEVICE)
    given = take(path)[0]
    assert given.secrets.seed is None
    assert given.record.public_key is None
    assert "key" not in issued.entries(given)


def test_an_encrypted_nvs_image_shows_nothing_and_opens_with_its_key(batch: Path, tmp_path: Path) -> None:
    given = take(batch)[0]
    key = bytes(range(64))
    image = issued.nvs_image(issued.entries(given), 0x4000, key)
    assert given.secrets.kek not in image
    from argparse import Namespace

    from esp_idf_nvs_partition_gen import nvs_partition_gen

    for name, data in (("in.bin", image), ("key.bin", issued.nvs_key_partition(key))):
        (tmp_path / name).write_bytes(data)
    nvs_partition_gen.decrypt(
        Namespace(input=str(tmp_path / "in.bin"), key=str(tmp_path / "key.bin"), output="out.bin", outdir=str(tmp_path))
    )
    plain = (tmp_path / "out.bin").read_bytes()
    store = nvs.Nvs(MemPart(0x4000, Flash(bytearray(plain))))
    assert store.get(store.open("sekisho"), "kek", nvs.BLOB_INDEX) == given.secrets.kek


@pytest.mark.parametrize("size", [0, 0x2000, 0x3001])
def test_an_nvs_partition_of_an_impossible_size_is_refused(size: int) -> None:
    with pytest.raises(ToolError) as caught:
        issued.nvs_image({}, size)
    assert caught.value.code == "NVS"
    with pytest.raises(ToolError):
        issued.nvs_image({"x": bytes(9000)}, 0x3000)


# -- labels ---------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("STS02")
def test_the_label_says_both_ids_for_people_and_for_scanners() -> None:
    label = labels.Label("1492af14-2569-4e48-bf42-9b2d51f2ab45", "Lamp", MAC, "2345-6789-ABCD-EFGH")
    assert labels.parse(label.uri) == labels.Label(label.id, "", MAC, label.console)
    text = "".join(line.split(maxsplit=1)[1] for line in label.lines[1:2]) + label.lines[2].strip()
    assert text == label.id
    assert "MAC 24:0A:C4:00:00:01" in label.lines
    assert all(len(line) <= 26 for line in label.lines)
    for bad in ("", "https://example.com", "sekisho:2?id=x", "sekisho:1?mac=00"):
        with pytest.raises(ToolError):
            labels.parse(bad)


@pytest.mark.requirement("STS02")
def test_the_printed_code_holds_the_uri(tmp_path: Path) -> None:
    """Every module of the picture against the code that segno makes; quiet zone included."""
    segno = pytest.importorskip("segno")
    from PIL import Image

    label = labels.Label("1492af14-2569-4e48-bf42-9b2d51f2ab45", "Lamp", MAC, "2345-6789-ABCD-EFGH")
    picture = Image.open(io.BytesIO(labels.png(label, scale=4)))
    wanted = [list(row) for row in segno.make(label.uri, error="m", micro=False).matrix_iter(border=labels.QUIET)]
    found = [[picture.getpixel((4 * x + 2, 4 * y + 2)) == 0 for x in range(len(wanted))] for y in range(len(wanted))]
    assert found == [[bool(module) for module in row] for row in wanted]


def test_no_label_is_printed_with_boxes_for_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("PIL")
    label = labels.Label("8d0e3c2e-8f52-4d3a-9a43-111111111111", "ランプ")
    monkeypatch.setattr(labels, "FONTS", ())
    with pytest.raises(ToolError, match="LABELS"):
        labels.png(label)
    assert labels.sheet([label]).startswith(b"%PDF"), "the sheet names a font that readers of PDF have"
    assert labels.png(labels.Label(label.id, "Lamp & more")).startswith(b"\x89PNG")


def test_a_sheet_has_as_many_pages_as_it_needs_and_the_same_bytes_each_time() -> None:
    made = [labels.Label(f"1492af14-2569-4e48-bf42-{n:012x}", "ランプ") for n in range(25)]
    pdf = labels.sheet(made)
    assert pdf == labels.sheet(made)
    assert pdf.startswith(b"%PDF-")
    assert pdf.count(b"/Type /Page\n") == 2
    with pytest.raises(ToolError):
        labels.sheet([])


# -- the commands ---------------------------------------------------------------------------------------------------


@pytest.mark.requirement("HLC04", "STS15")
def test_the_first_secret_on_the_label_is_the_devices_own_and_no_two_are_alike(batch: Path) -> None:
    with issuing.unlock(batch, PASSPHRASE) as opened:
        given = opened.take(3)
    seen = set()
    for one in given:
        image = issued.nvs_image(issued.entries(one), 0x4000)
        store = nvs.Nvs(MemPart(len(image), Flash(bytearray(image))))
        inside = bytes(store.get(store.open(issued.NAMESPACE), "console", nvs.BLOB_INDEX)).decode()
        assert labels.parse(labels.of(issued.record_of(one), one.secrets.console).uri).console == inside
        seen.add(inside)
    assert len(seen) == 3
    assert min(map(len, seen)) >= 16


@pytest.mark.requirement("STS01", "STS02")
def test_from_batch_to_labels_with_the_commands(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("k.cose").write_bytes(KEYSET)
    made = run("issue batch l.batch -n 3 --keyset k.cose --vendor example.com --class lamp --product Lamp", "p" * 12)
    assert made.code == 0, made.err
    assert (
        run("issue batch l.batch -n 3 --keyset k.cose --vendor example.com --class lamp", "p" * 12).error
        == "FILE_EXISTS"
    )
    given = run(f"issue take l.batch -n 2 --mac {MAC} --out devices", "p" * 12)
    assert given.code == 0, given.err
    folders = sorted(Path("devices").iterdir())
    assert len(folders) == 2
    records = [issued.read_record(folder) for folder in folders]
    assert {record.physical for record in records} == {MAC, None}
    assert all(
        (folder / name).stat().st_mode & 0o077 == 0 for folder in folders for name in ("nvs.bin", "secrets.json")
    )
    loose = next(folder for folder, record in zip(folders, records, strict=True) if record.physical is None)
    assert run(f"issue bind l.batch {loose.name} 240ac4000002 --folder {loose}", "p" * 12).code == 0
    assert issued.read_record(loose).physical == "24:0a:c4:00:00:02"
    assert run(f"issue labels {folders[0]} {folders[1]} --pdf l.pdf --png").code == 0
    assert Path("l.pdf").read_bytes().startswith(b"%PDF")
    assert (folders[0] / "label.png").read_bytes().startswith(b"\x89PNG")
    listed = json.loads(run("issue list l.batch --json").out)
    assert [row["state"] for row in listed] == ["taken", "taken", "fresh"]
    assert "24:0a:c4:00:00:02" in run(f"issue show l.batch {loose.name}").out
    assert run("issue void l.batch 3 --reason broken", "p" * 12).code == 0
    assert run("issue take l.batch --out devices", "p" * 12).error == "BATCH_EMPTY"
    assert run("issue kek l.batch 1 --out k.kek", "p" * 12).code == 0
    assert len(Path("k.kek").read_bytes()) == 16
    (folders[0] / "secrets.json").unlink()
    assert run(f"issue labels {folders[0]} --pdf again.pdf").error == "FILE"
    assert not Path("again.pdf").exists()


def test_an_output_folder_that_cannot_be_written_costs_no_identity(
    run: Runner, batch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (batch.parent / "file").write_text("")
    assert run(f"issue take {batch} --out {batch.parent / 'file' / 'x'}", PASSPHRASE.decode()).error == "FILE"
    assert issuing.load(batch).count(issuing.FRESH) == 4
