"""Compressed and encrypted payloads on the simulated device: from the desk to the confirmed boot."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.site import Product, consoles, firmware, run
from sekisho_sim.world import World
from sekisho_tools import imagefile, issued, layout, packing, release, suit
from sekisho_tools.device_code import FIRMWARE
from sekisho_tools.publish import publish
from sekisho_tools.serve import StaticServer

LAYOUT = layout.load(FIRMWARE / "partitions" / "4MiB.csv")
OLD, NEW = firmware("old", 60_000), firmware("new", 150_000)
NOTES = "async def main():\n    print('the new application')\n"
GROUP, OTHER = packing.GroupKey("ours", bytes(range(16))), packing.GroupKey("theirs", bytes(16))


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    made = Product(tmp_path)
    with StaticServer(made.root) as server:
        made.server = server.url
        yield made


def device(product: Product, *groups: bytes) -> World:
    """A device with these key-encryption keys in its NVS."""
    world = product.factory(OLD)
    values = {"id": os.urandom(16), "kek": os.urandom(16)}
    if groups:
        values["groups"] = b"".join(groups)
    row = LAYOUT["nvs"]
    with world.flash_path.open("r+b") as flash:
        flash.seek(row.offset)
        flash.write(issued.nvs_image(values, row.size))
    return world


def offer(
    product: Product,
    sequence: int,
    *,
    compress: bool,
    groups: tuple[packing.GroupKey, ...],
    cipher: int = packing.A128CTR,
) -> dict[bytes, bytes]:
    """Publish NEW packed; returns the packed payloads."""
    product.personalities.images[imagefile.parse(NEW).digest.hex()] = product.personality("new", application=NOTES)
    parts = (release.Component("fw", NEW),)
    identity = [str(__import__("uuid").UUID(bytes=one)) for one in (product.device.vendor, product.device.classes[0])]
    request = release.Request(*identity, "2", sequence, parts, compress=compress, groups=groups, cipher=cipher)
    made = release.create(request, product.keys.release[0], product.keys.document)
    payloads = [] if groups else [NEW]
    product.publish(made.envelope, *payloads, *made.packed.values())
    return dict(made.packed)


@pytest.mark.parametrize(("compress", "encrypted"), [(True, False), (False, True), (True, True)])
def test_a_packed_update_is_unpacked_installed_and_confirmed(product: Product, compress: bool, encrypted: bool) -> None:
    world = device(product, OTHER.kek, GROUP.kek)
    packed = offer(product, 2, compress=compress, groups=(GROUP,) if encrypted else ())
    results = run(world, "runs already")
    said = consoles(results)
    (content,) = packed.values()
    assert f"fetched {len(content)} of {len(content)} bytes" in said
    assert "the new application" in said
    assert "sekisho: confirmed" in said
    row = LAYOUT["ota_1"]
    flash = world.flash_path.read_bytes()
    assert flash[row.offset : row.offset + len(NEW)] == NEW


def test_a_device_of_another_group_says_so_and_erases_nothing(product: Product) -> None:
    world = device(product, OTHER.kek)
    before = world.flash_path.read_bytes()[LAYOUT["ota_1"].offset :][: LAYOUT["ota_1"].size]
    offer(product, 2, compress=False, groups=(GROUP,))
    said = consoles(run(world, "CONTENT_KEY"))
    assert "sekisho: CONTENT_KEY" in said
    assert world.flash_path.read_bytes()[LAYOUT["ota_1"].offset :][: LAYOUT["ota_1"].size] == before


@pytest.mark.requirement("STS09")
def test_a_key_set_that_forbids_the_encryption_stops_it_on_a_running_device(product: Product) -> None:
    world = device(product, GROUP.kek)
    offer(product, 2, compress=False, groups=(GROUP,))
    before = world.flash_path.read_bytes()[LAYOUT["ota_1"].offset :][: LAYOUT["ota_1"].size]
    path = product.folder / "stricter.cose"
    path.write_bytes(product.keys.next(algorithms={3: (-65532,)}).document)
    publish(product.root, product.class_id, [path])
    said = consoles(run(world, "ALGORITHM"))
    assert "key set 2 accepted" in said
    assert "sekisho: ALGORITHM" in said
    assert world.flash_path.read_bytes()[LAYOUT["ota_1"].offset :][: LAYOUT["ota_1"].size] == before


@pytest.mark.requirement("STS09")
def test_a_key_set_that_asks_for_longer_keys_gets_them_on_a_running_device(product: Product) -> None:
    world = device(product, GROUP.kek)
    path = product.folder / "longer.cose"
    product.keys = product.keys.next(algorithms={3: (packing.A256CTR,)})
    path.write_bytes(product.keys.document)
    publish(product.root, product.class_id, [path])
    offer(product, 2, compress=True, groups=(GROUP,), cipher=packing.A256CTR)
    said = consoles(run(world, "runs already"))
    assert "key set 2 accepted" in said
    assert "the new application" in said
    row = LAYOUT["ota_1"]
    assert world.flash_path.read_bytes()[row.offset : row.offset + len(NEW)] == NEW


@pytest.mark.requirement("UPE11")
def test_packed_bytes_that_were_changed_on_the_server_are_never_staged(product: Product) -> None:
    world = device(product, GROUP.kek)
    packed = offer(product, 2, compress=True, groups=(GROUP,))
    (digest,) = packed
    path = product.root / "payload" / digest.hex()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # the stream's own checksum, behind the whole image
    path.write_bytes(data)
    said = consoles(run(world, "IMAGE_DIGEST"))
    assert "staged" not in said


@pytest.mark.requirement("UPE14")
def test_an_interrupted_packed_download_begins_anew_and_rewrites_nothing(product: Product) -> None:
    world = device(product, GROUP.kek)
    (content,) = offer(product, 2, compress=True, groups=(GROUP,)).values()
    row = LAYOUT["ota_1"]
    first = run(world, "fetched 65536 of", 60)
    assert f"of {len(content)} bytes" in consoles(first)
    results = run(world, "runs already")
    assert "the new application" in consoles(results)
    programmed = [
        op.address for r in (*first, *results) for op in r.ops if op.kind == 0 and row.offset <= op.address < row.end
    ]
    again = [address for address in set(programmed) if programmed.count(address) > 1]
    # The first sector is written last, once; sectors since the last recorded progress may be erased again.
    assert len(again) <= 65536 // 4096 + 1, again
    assert world.flash_path.read_bytes()[row.offset : row.offset + len(NEW)] == NEW


def test_the_engine_keeps_only_what_it_needs_of_a_packed_release(product: Product) -> None:
    world = device(product, GROUP.kek)
    offer(product, 2, compress=True, groups=(GROUP,))
    run(world, "runs already")
    published = next(product.root.glob("*/latest.suit")).read_bytes()
    stored = world.flash_path.read_bytes()[LAYOUT["sekisho"].offset : LAYOUT["sekisho"].end]
    assert suit.strip(published) in stored
    assert published not in stored
    assert hashlib.sha256(NEW).digest() in stored
    assert not re.search(rb"/payload/[0-9a-f]{64}", suit.strip(published))
