"""A flash image as a production build would give it: everything `factory check` looks for, in a small app image."""

from __future__ import annotations

from sekisho_tools import config, flashimage, imagefile, layout
from sekisho_tools.identity import Identity
from sekisho_tools.imagefile import CHIPS

from helpers import images, keys, releases

VENDOR, CLASS = "example.com", "lamp"
IDENTITY = Identity.of(VENDOR, CLASS)
SIGNER = keys.signer("release", 0)


def app(
    document: bytes, *, profile: str = "(production)", engine: bytes = b"sekisho_boot/engine.py\0", more: bytes = b""
) -> bytes:
    """An app image with the marks of frozen firmware: banner with *profile*, *engine*, key set *document*."""
    banner = f"\0MicroPython v1.26.1 on 2025-09-11; Sekisho ESP32 {profile} with ESP32\0".encode()
    data = images.descriptor() + banner + engine + document + more
    return images.image([(images.MAPPED["esp32"], data.ljust(-(-len(data) // 4) * 4, b"\0"))])


def build(
    made: keys.MadeKeySet,
    *,
    firmware: bytes | None = None,
    signed: bool = True,
    mode: str = flashimage.FROZEN,
    size: str = "4MiB",
    files: dict[str, bytes] | None = None,
) -> bytes:
    """The flash image of a product under the key set *made*; *signed* False leaves the factory release out."""
    firmware = app(made.document) if firmware is None else firmware
    return flashimage.build(
        flashimage.Inputs(
            app=imagefile.parse(firmware),
            table=layout.load(size),
            device=config.make(VENDOR, [CLASS], made.document, "esp32"),
            mode=mode,
            bootloader=(CHIPS["esp32"], images.bootloader()),
            release=releases.envelope(firmware, IDENTITY, SIGNER, 7) if signed else None,
            files=files or {},
        )
    ).data
