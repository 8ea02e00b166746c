"""`sekisho sheet`: the product sheet that customers get with a release."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .. import keys, seal, sheet
from ..files import read_file, require_new, write_atomic
from ..text import printable
from .audit import SigningLog, TrustKey, TrustKeyset
from .keys import Json, PassphraseFd

app = typer.Typer(no_args_is_help=True)

ROLES = ("release",)
"""A sheet is signed like the release."""


@app.command(epilog="Example: sekisho sheet init --out product.toml")
def init(
    out: Annotated[Path, typer.Option(metavar="FILE", help="The product file to write.")] = Path("product.toml"),
) -> None:
    """Write a product file to be filled in: every field that customers must be told of, with a comment."""
    require_new(out)
    write_atomic(out, sheet.template())
    typer.echo(f"wrote {out}: fill it in, then run sekisho sheet render {out} --release NAME.suit")


@app.command(
    epilog="Example: sekisho sheet render product.toml --release release/my-board-1.4.0.suit --key keys/release.key",
)
def render(
    product: Annotated[Path, typer.Argument(metavar="PRODUCT", help="The product file (see init).")],
    release: Annotated[Path, typer.Option(metavar="RELEASE", help="The .suit file, with its SBOM beside it.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the sheets go; beside the release if left out.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Release key that signs them: a .key file or pkcs11: URI.")
    ] = None,
    log: SigningLog = None,
    passphrase_fd: PassphraseFd = None,
    as_json: Json = False,
) -> None:
    """Make the sheets of a release, Markdown and HTML in each language, and sign them."""
    made = sheet.make(sheet.read_product(product), release)
    signed: dict[str, bytes] = {}
    if key is not None:
        signer = seal.open_signer(key, keys.Passphrases(passphrase_fd), ROLES)
        for name, data in made.items():
            signed[name + seal.SUFFIX] = seal.seal(data, f"product sheet {name}", signer, log or keys.log_path(key))
    written = sheet.write({**made, **signed}, out or release.parent)
    if as_json:
        typer.echo(json.dumps({"written": [str(path) for path in written]}, indent=2))
        return
    for path in written:
        typer.echo(f"wrote {path}")
    if key is None:
        typer.echo("note: not signed (--key).", err=True)


@app.command(epilog="Example: sekisho sheet verify my-board-1.4.0.sheet.ja.html --keyset keyset.cose")
def verify(
    file: Annotated[Path, typer.Argument(metavar="SHEET", help="A sheet, with its signature FILE.cose beside it.")],
    key_set: TrustKeyset = None,
    key: TrustKey = None,
    release: Annotated[
        Path | None, typer.Option(metavar="RELEASE", help="The sheet must be that of this release (.suit).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check who signed a sheet, and of which release it is."""
    data = read_file(file, "product sheet", sheet.MAX_SHEET)
    language, digest = sheet.release_of(data)
    signature = read_file(file.with_name(file.name + seal.SUFFIX), "signature", seal.MAX_SEAL)
    signer = seal.check(data, signature, seal.require_trust(key_set, key or (), ROLES))
    if release is not None:
        sheet.require_release(data, release)
    if as_json:
        typer.echo(json.dumps({"language": language, "manifest_sha256": digest, "signed_by": signer}, indent=2))
        return
    typer.echo(printable(f"{file}: good, signed by {signer}"))
    typer.echo(f"of the release with manifest SHA-256 {digest}")
