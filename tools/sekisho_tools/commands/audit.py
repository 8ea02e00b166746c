"""`sekisho audit`: make an audit bundle, and verify one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .. import audit, audit_file, keys, published, seal, signlog, suit
from ..files import read_file, write_atomic
from ..text import printable
from .keys import Json, PassphraseFd

app = typer.Typer(no_args_is_help=True)

TrustKeyset = Annotated[
    Path | None, typer.Option("--keyset", metavar="FILE", help="Key set: one of its release keys must have signed.")
]
TrustKey = Annotated[
    list[Path] | None,
    typer.Option(
        "--key", metavar="FILE", help="A .pub file: this key (release or approver) may have signed. Repeatable."
    ),
]
SigningLog = Annotated[
    Path | None,
    typer.Option("--log", metavar="FILE", help="Signing log; signing-log.jsonl beside the key if left out."),
]


@app.command(
    epilog="Example: sekisho audit bundle --out audit.zip --keys keys --keyset keyset.cose --release release "
    "--published site --sign-with keys/aiko.key",
)
def bundle(
    out: Annotated[Path, typer.Option(metavar="FILE", help="The bundle to write.")],
    key_directory: Annotated[
        Path | None,
        typer.Option(
            "--keys", metavar="DIR", help="Keys to list, with the signing log in there; keys/ if it is there."
        ),
    ] = None,
    token: Annotated[
        list[str] | None, typer.Option(metavar="URI", help="List the keys of this pkcs11: token, too. Repeatable.")
    ] = None,
    key_set: Annotated[
        list[Path] | None,
        typer.Option("--keyset", metavar="FILE", help="A key set; repeat for each of the chain, for all revocations."),
    ] = None,
    log: Annotated[Path | None, typer.Option(metavar="FILE", help="Signing log; default: that in --keys.")] = None,
    release: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH", help="A release (.suit) or a directory with some; with SBOM and sheets. Repeatable."
        ),
    ] = None,
    sources: Annotated[
        list[str] | None,
        typer.Option("--published", metavar="DIR|URL", help="Where releases are out: a directory or static web site."),
    ] = None,
    sign_with: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Sign with this release or approver key: a .key file or pkcs11: URI."),
    ] = None,
    passphrase_fd: PassphraseFd = None,
    as_json: Json = False,
) -> None:
    """Put together what an auditor needs: public facts only. The same inputs give the same bytes."""
    if key_directory is None and Path("keys").is_dir():
        key_directory = Path("keys")
    if log is None and key_directory is not None and (key_directory / signlog.NAME).exists():
        log = key_directory / signlog.NAME
    signer = seal.open_signer(sign_with, keys.Passphrases(passphrase_fd)) if sign_with else None
    given = tuple(release or ())
    inputs = audit.Inputs(
        keys=key_directory,
        tokens=tuple(token or ()),
        keysets=tuple(key_set or ()),
        log=log,
        releases=given,
        published=published.find(sources or (), _classes(given)),
    )
    files, gaps = audit.gather(inputs)
    document = audit_file.manifest(files)
    signature = None
    if signer is not None and sign_with is not None:
        signature = seal.seal(document, f"audit bundle {out.name}", signer, log or keys.log_path(sign_with))
    data = audit.finish(files, signature)
    verdict = audit_file.verify(data)
    write_atomic(out, data)
    if as_json:
        told = {"written": str(out), "sha256": hashlib.sha256(data).hexdigest(), "gaps": gaps, **asdict(verdict)}
        typer.echo(json.dumps(told, indent=2))
        return
    for gap in gaps:
        typer.echo(printable(f"note: {gap}"), err=True)
    typer.echo(f"wrote {out}: {verdict.files} files, {verdict.size} bytes")
    typer.echo(f"manifest SHA-256: {verdict.manifest_sha256}")


def _classes(paths: tuple[Path, ...]) -> set[bytes]:
    found: set[bytes] = set()
    for path in audit.releases_in(paths):
        found |= published.classes_of(suit.decode(read_file(path, "release", published.MAX_ENVELOPE)))
    return found


@app.command(epilog="Example: sekisho audit verify audit.zip --key aiko.pub")
def verify(
    file: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The .zip file.")],
    key_set: TrustKeyset = None,
    key: TrustKey = None,
    as_json: Json = False,
) -> None:
    """Find files of a bundle that were removed, added or changed, and tricks in the archive; check who signed it."""
    data = read_file(file, "audit bundle", audit_file.MAX_BUNDLE)
    verdict = audit_file.verify(data, seal.trust(key_set, key or ()))
    if as_json:
        typer.echo(json.dumps(asdict(verdict), indent=2))
        return
    typer.echo(f"{file}: {verdict.files} files, all as the manifest says, and nothing besides")
    typer.echo(f"manifest SHA-256: {verdict.manifest_sha256}")
    if verdict.checked:
        typer.echo(printable(f"signed by {verdict.signed_by}: verified"))
    elif verdict.signed_by:
        typer.echo(f"signed by {verdict.signed_by}: not checked (name --key or --keyset)")
    else:
        typer.echo("not signed: whoever changed a file could have changed the manifest too; compare its SHA-256")
