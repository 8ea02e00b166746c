"""`sekisho release`: make, look at and verify signed releases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .. import keys, layout, release, suit, suit_show
from ..files import read_file

app = typer.Typer()

JsonOption = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
KeysetOption = Annotated[Path, typer.Option("--keyset", metavar="FILE", help="Key set that says who may sign.")]


@app.command(
    epilog="Example: sekisho release create --firmware ESP32_GENERIC-v1.26.1.bin --version 1.26.1 --sequence 2 "
    "--key keys/release.key --keyset keyset.cose --vendor example.com --class my-board --out release",
    help="Make a signed release: NAME.suit and payload/<sha256>. The same inputs give the same bytes.",
)
def create(
    version: Annotated[str, typer.Option(metavar="TEXT", help="Version, for people.")],
    sequence: Annotated[int, typer.Option(metavar="N", help="Sequence number, for devices: it only ever grows.")],
    key: Annotated[str, typer.Option(metavar="KEY", help="Release key that signs: a key file.")],
    keyset: KeysetOption,
    vendor: Annotated[str, typer.Option(metavar="NAME", help="Vendor: a domain or a UUID.")],
    product_class: Annotated[str, typer.Option("--class", metavar="NAME", help="Product class: a name or a UUID.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory to write to; made if missing.")],
    firmware: Annotated[
        Path | None, typer.Option(metavar="FILE", help="MicroPython firmware: a whole-flash file or a bare app image.")
    ] = None,
    application: Annotated[
        Path | None, typer.Option("--app", metavar="PATH", help="Application: a directory, or an image file.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(metavar="LANG=FILE", help="Description in a language; may be repeated.")
    ] = None,
    needs: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=N[-M]", help="Sequence numbers wanted of the component that is not in the release."),
    ] = None,
    chip: Annotated[str, typer.Option(metavar="NAME", help="Chip of the product.")] = "esp32",
    table: Annotated[str, typer.Option("--layout", metavar="NAME", help="Partition layout of the product.")] = "4MiB",
    name: Annotated[str | None, typer.Option(metavar="NAME", help="File name; default CLASS-VERSION.")] = None,
    payload_only: Annotated[
        bool,
        typer.Option("--payload-only", help="Take firmware of a MicroPython that our device code does not support."),
    ] = False,
    passphrase_fd: Annotated[int | None, typer.Option(metavar="FD", help="Read the passphrase from here.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Gather the inputs, make the release, write it, say what it is."""
    rows = layout.load(table)
    components = []
    if firmware is not None:
        components.append(release.firmware(read_file(firmware, "firmware"), rows, chip, payload_only))
    if application is not None:
        components.append(release.application(application, rows))
    request = release.Request(
        vendor=vendor,
        product_class=product_class,
        version=version,
        sequence=sequence,
        components=tuple(components),
        texts=release.read_texts(text or []),
        ties=release.read_ties(needs or []),
        name=name,
    )
    document = read_file(keyset, "key set")
    signer = keys.open_signer(
        key, keys.Passphrases(passphrase_fd), role="release", environment=release.environment(document)
    )
    made = release.create(request, signer, document)
    written = release.write(made, out)
    if as_json:
        typer.echo(json.dumps({"written": [str(path) for path in written], **release.summary(made)}, indent=2))
        return
    for path in written:
        typer.echo(f"wrote {path}")
    typer.echo(f"class {release.summary(made)['class']} (publish --class), sequence {made.sequence}")


@app.command(
    epilog="Example: sekisho release inspect release/my-board-1.26.1.suit",
    help="Show what a release says. Nothing is verified.",
)
def inspect(
    file: Annotated[Path, typer.Argument(metavar="RELEASE", help="The .suit file.")], as_json: JsonOption = False
) -> None:
    """Decode and print."""
    found = suit.decode(read_file(file, "release", release.MAX_RELEASE))
    if as_json:
        typer.echo(json.dumps(suit_show.describe(found), indent=2, ensure_ascii=False))
    else:
        typer.echo(suit_show.render(found))


@app.command(
    epilog="Example: sekisho release verify release/my-board-1.26.1.suit --keyset keyset.cose",
    help="Verify a release as a device does: signature, rights, limits, and the payloads beside it.",
)
def verify(
    file: Annotated[Path, typer.Argument(metavar="RELEASE", help="The .suit file.")],
    keyset: KeysetOption,
    payload: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Payload; default: payload/<sha256> beside the release.")
    ] = None,
    vendor: Annotated[str | None, typer.Option(metavar="NAME", help="Refuse a release for another vendor.")] = None,
    product_class: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="Refuse a release for another class (with --vendor).")
    ] = None,
    at: Annotated[
        int | None, typer.Option(metavar="SECONDS", help="Judge as of this time since 1970; default now.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify and print the verdict."""
    verdict = release.verify(
        file,
        read_file(keyset, "key set"),
        payload or [],
        identity=release.read_identity(vendor, product_class),
        now=at,
    )
    if as_json:
        typer.echo(json.dumps(verdict, indent=2))
        return
    typer.echo(f"{file}: good, sequence {verdict['sequence']}, signed by {verdict['key']}")
    for part in verdict["payloads"]:
        typer.echo(f"  {part['component']}: {part['size']} bytes, sha256 {part['sha256']}")
