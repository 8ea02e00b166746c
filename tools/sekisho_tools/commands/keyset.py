"""`sekisho keyset`: make, look at, verify and replace key sets."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar
from uuid import UUID

import typer

from .. import ceremony, config, cose, keys, keyset
from ..errors import ToolError
from ..files import read_file, require_new, write_atomic
from ..text import printable
from ._groups import grouped
from .keys import Json, PassphraseFd

app = typer.Typer(no_args_is_help=True)

_GRANT_HELP = "KEY is a .pub or .key file; without rights it gets all, without @ every product class."
Release = Annotated[list[str] | None, typer.Option(metavar="KEY[=fw,app][@CLASS,...]", help=f"Add. {_GRANT_HELP}")]
Operator = Annotated[
    list[str] | None, typer.Option(metavar="KEY[=RIGHT,...][@CLASS,...]", help=f"Add an operator key. {_GRANT_HELP}")
]
Threshold = Annotated[int | None, typer.Option(min=1, help="How many root keys must sign.")]
Expires = Annotated[str | None, typer.Option(metavar="DATE", help="YYYY-MM-DD (UTC) from which nothing installs.")]
Issued = Annotated[
    str | None, typer.Option(metavar="TIME", help="Issue date (YYYY-MM-DD) or seconds since 1970 instead of now.")
]
Floor = Annotated[
    list[str] | None, typer.Option(metavar="COMPONENT=N", help="Security floor: lowest sequence number allowed.")
]
Ceiling = Annotated[
    list[str] | None, typer.Option(metavar="COMPONENT=N", help="Ceiling: highest sequence number allowed.")
]
HardwareFloor = Annotated[int | None, typer.Option(min=0, help="Floor for the eFuse; burning it cannot be undone.")]
Algorithms = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PART=NAME,...", help="Algorithm policy: signatures, digests, content = names or COSE numbers."
    ),
]
Defaults = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Secure default settings (JSON): what devices go back to on a restore order."),
]
Previous = Annotated[Path | None, typer.Option("--previous", metavar="KEYSET", help="The key set that it replaces.")]
Remove = Annotated[list[str] | None, typer.Option(metavar="KEY", help="Take a key out: its key id, or its .pub file.")]
Revoke = Annotated[
    list[str] | None, typer.Option(metavar="KEY", help="Take a key out and revoke it for ever: key id or .pub file.")
]
RevokeManifest = Annotated[
    list[str] | None, typer.Option(metavar="SHA256", help="Revoke a release by its manifest digest.")
]
ForgetManifest = Annotated[
    list[str] | None, typer.Option(metavar="SHA256", help="Drop a revoked manifest that a floor covers by now.")
]
AddRoot = Annotated[list[str] | None, typer.Option(metavar="KEY", help="Add a root key: its .pub file or pkcs11: URI.")]
Log = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Signing log; signing-log.jsonl beside the key if left out.")
]
Requested = Annotated[Path, typer.Argument(metavar="REQUEST", help="A file made by `keyset draft`.")]
KeySetFile = Annotated[Path, typer.Argument(metavar="KEYSET", help="A key set document (.cose).")]

KEYS = Path("keys")
"""Where the holder's statements usually lie: the labels in them are shown beside key ids."""
_PARTS = {"signatures": 1, "digests": 2, "content": 3}


def _read(path: Path) -> bytes:
    return read_file(path, "key set", ceremony.MAX_REQUEST)


def _seconds(text: str | None) -> int | None:
    if text is None:
        return None
    if text.isdigit():
        return int(text)
    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError as error:
        raise ToolError("DATE", f"{text!r} is no date; write it as 2030-12-31.") from error


def _numbers(pairs: Sequence[str] | None) -> dict[str, int]:
    found = {}
    for pair in pairs or ():
        name, equals, number = pair.partition("=")
        if not name or not equals or not number.isdigit():
            raise ToolError("USAGE", f"{pair!r} does not read COMPONENT=N, for example fw=12.")
        found[name] = int(number)
    return found


def _policy(pairs: Sequence[str] | None) -> dict[int, tuple[int, ...]] | None:
    found = {}
    named = {name: number for number, name in keyset.ALGORITHMS.items()}
    for pair in pairs or ():
        part, _, words = pair.partition("=")
        try:
            found[_PARTS[part]] = tuple(named[word] if word in named else int(word) for word in words.split(","))
        except (KeyError, ValueError) as error:
            raise ToolError("USAGE", f"{pair!r} does not read PART=NAME,..., for example content=A128CTR.") from error
    return found or None


def _grants(texts: Sequence[str] | None) -> tuple[ceremony.Grant, ...]:
    return tuple(_grant(text) for text in texts or ())


def _grant(text: str) -> ceremony.Grant:
    rest, at, classes = text.partition("@")
    path, equals, rights = rest.partition("=")
    try:
        ids = tuple(UUID(one).bytes for one in classes.split(",")) if at else None
    except ValueError as error:
        raise ToolError("USAGE", f"{classes!r} is no list of class ids (UUIDs).") from error
    named = tuple(right for right in rights.split(",") if right) if equals else None
    return ceremony.Grant(keys.load_statement(path), named, ids)


def _ids(texts: Sequence[str] | None, size: int, what: str) -> tuple[bytes, ...]:
    found = []
    for text in texts or ():
        if size == cose.KEY_ID_SIZE and Path(text).is_file():
            found.append(keys.load_statement(Path(text)).key_id)
            continue
        try:
            value = bytes.fromhex(text)
        except ValueError:
            value = b""
        if len(value) != size:
            raise ToolError("USAGE", f"{text!r} is no {what} ({2 * size} hex digits).")
        found.append(value)
    return tuple(found)


def _statements(names: Sequence[str] | None) -> tuple[keys.Statement, ...]:
    return tuple(keys.load_statement(name) for name in names or ())


def _defaults(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        return config.common_settings(json.loads(read_file(path, "settings", ceremony.MAX_REQUEST)))
    except (ValueError, RecursionError) as error:
        raise ToolError("SETTING", f"{path} is no JSON: {error}.") from error


@dataclass(frozen=True)
class Content:
    """Options that say what a key set holds besides its root keys."""

    PANEL: ClassVar = "What the key set says"

    release: Release = None
    operator: Operator = None
    threshold: Threshold = None
    expires: Expires = None
    issued: Issued = None
    floor: Floor = None
    ceiling: Ceiling = None
    hardware_floor: HardwareFloor = None
    algorithms: Algorithms = None
    settings: Defaults = None

    def edit(self, roots: tuple[keys.Statement, ...]) -> ceremony.Edit:
        """What they ask for."""
        return ceremony.Edit(
            roots=roots,
            release=_grants(self.release),
            operators=_grants(self.operator),
            threshold=self.threshold,
            floors=_numbers(self.floor),
            ceilings=_numbers(self.ceiling),
            hardware_floor=self.hardware_floor,
            algorithms=_policy(self.algorithms),
            settings=_defaults(self.settings),
            issued_at=_seconds(self.issued),
            expires=_seconds(self.expires),
        )


@dataclass(frozen=True)
class Changes(Content):
    """Options that say how a key set differs from the one before it."""

    root: AddRoot = None
    remove: Remove = None
    revoke: Revoke = None
    revoke_manifest: RevokeManifest = None
    forget_manifest: ForgetManifest = None

    def changes(self) -> ceremony.Edit:
        """What they ask for."""
        return dataclasses.replace(
            self.edit(_statements(self.root)),
            remove=_ids(self.remove, cose.KEY_ID_SIZE, "key id"),
            revoke=_ids(self.revoke, cose.KEY_ID_SIZE, "key id"),
            revoke_manifests=_ids(self.revoke_manifest, 32, "manifest digest"),
            forget_manifests=_ids(self.forget_manifest, 32, "manifest digest"),
        )


def _advise(content: keyset.KeySet) -> None:
    for sentence in ceremony.advice(content):
        typer.echo(f"note: {sentence}", err=True)


@app.command(
    epilog="Example: sekisho keyset create keyset.cose --root keys/root-1.key --release keys/release-1.pub=fw,app"
)
@grouped
def create(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where the document goes.")],
    root: Annotated[
        list[str],
        typer.Option(metavar="KEY", help="A root key. A .key file or pkcs11: URI signs now; a .pub file does not."),
    ],
    content: Content,
    passphrase_fd: PassphraseFd = None,
    log: Log = None,
    as_json: Json = False,
) -> None:
    """Make and sign the first key set of a product, when enough root keys are on this machine."""
    require_new(out)
    edit = content.edit(_statements(root))
    made = ceremony.apply(edit)
    document = _sign(out, made, None, [name for name in root if not name.endswith(keys.PUBLIC)], passphrase_fd, log)
    labels = {statement.key_id: statement.label for statement in edit.statements()}
    _show(document, made, labels, as_json)
    if not as_json:
        typer.echo(f"Wrote {out}, {len(document)} bytes.")
    _advise(made)


def _sign(
    out: Path,
    content: keyset.KeySet,
    previous: bytes | None,
    uris: Sequence[str],
    passphrase_fd: int | None,
    log: Path | None,
) -> bytes:
    """Sign *content* with all these keys, enter every signature into its log, then write the document."""
    passphrases = keys.Passphrases(passphrase_fd)
    signers = [keys.open_signer(uri, passphrases, role="root") for uri in uris]
    document = ceremony.sign_all(content, signers, previous)
    for signer, uri in zip(signers, uris, strict=True):
        what = f"key set version {content.version}"
        keys.record(log or keys.log_path(uri), what, signer, keyset.content_digest(document))
    write_atomic(out, document)
    return document


def _as_dict(document: bytes, content: keyset.KeySet) -> dict[str, Any]:
    def grant(key: keyset.ReleaseKey | keyset.OperatorKey) -> dict[str, Any]:
        rights = key.components if isinstance(key, keyset.ReleaseKey) else key.rights
        classes = None if key.classes is None else [str(UUID(bytes=one)) for one in key.classes]
        return {
            "key_id": cose.key_id(key.public_key).hex(),
            "public_key": key.public_key.hex(),
            "rights": list(rights),
            "classes": classes,
        }

    return {
        "version": content.version,
        "issued_at": content.issued_at,
        "expires": content.expires,
        "environment": content.environment_name,
        "threshold": content.threshold,
        "roots": [{"key_id": cose.key_id(key).hex(), "public_key": key.hex()} for key in content.roots],
        "release": [grant(key) for key in content.release],
        "operators": [grant(key) for key in content.operators],
        "revoked_keys": [one.hex() for one in content.revoked_keys],
        "revoked_manifests": [one.hex() for one in content.revoked_manifests],
        "limits": {name: {"floor": pair[0], "ceiling": pair[1]} for name, pair in content.limits.items()},
        "hardware_floor": content.hardware_floor,
        "algorithms": None if content.algorithms is None else {str(k): list(v) for k, v in content.algorithms.items()},
        "settings": None if content.settings is None else dict(content.settings),
        "signed_by": [one.hex() for one in cose.signer_ids(document)],
        "content_sha256": keyset.content_digest(document),
        "bytes": len(document),
    }


def _show(document: bytes, content: keyset.KeySet, labels: dict[bytes, str], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(_as_dict(document, content), indent=2, default=repr))
        return
    for line in keyset.diff(None, content, labels):
        typer.echo(line)
    typer.echo(f"claims signatures by: {', '.join(one.hex() for one in cose.signer_ids(document)) or 'nobody'}")
    typer.echo(f"content SHA-256: {keyset.content_digest(document)}")


@app.command(epilog="Example: sekisho keyset inspect keyset.cose --json")
def inspect(path: KeySetFile, as_json: Json = False) -> None:
    """Show what a key set says; `verify` tells whether it counts."""
    document = _read(path)
    _show(document, keyset.decode(document), keys.labels_in(KEYS), as_json)


@app.command(epilog="Example: sekisho keyset verify keyset-1.cose keyset-2.cose keyset-3.cose")
def verify(
    path: Annotated[list[Path], typer.Argument(metavar="KEYSET...", help="A key set, or a chain of them in order.")],
    previous: Previous = None,
) -> None:
    """Judge a key set, or a chain, as a device does: as the first of a build, or as the successor of --previous."""
    last = None if previous is None else _read(previous)
    content = None
    for one in path:
        document = _read(one)
        content = keyset.verify(document, last)
        typer.echo(f"{one}: good, version {content.version}, {content.environment_name}")
        last = document
    if content is not None:
        _advise(content)


@app.command(epilog="Example: sekisho keyset diff keyset-1.cose keyset-2.cose")
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A key set.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Another one.")],
) -> None:
    """Show what changes from one key set to another; nothing is said about signatures."""
    for line in keyset.diff(keyset.decode(_read(old)), keyset.decode(_read(new)), keys.labels_in(KEYS)):
        typer.echo(line)


@app.command(
    epilog="Example: sekisho keyset draft k2.request --previous keyset.cose --revoke 58b41ff17a7078c8 "
    "--release keys/release-2.pub=fw,app --floor fw=12"
)
@grouped
def draft(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where the request goes.")],
    changes: Changes,
    previous: Previous = None,
    note: Annotated[str, typer.Option(help="Why, in words, for those who are asked to sign.")] = "",
) -> None:
    """Ceremony, step 1: write down what the next key set is to be, as a request for the root holders."""
    request, old = _drafted(previous, changes, note)
    ceremony.write_json(out, request.to_json())
    for line in keyset.diff(old, request.content, {**keys.labels_in(KEYS), **request.labels()}):
        typer.echo(line)
    typer.echo(f"content SHA-256: {request.digest}")
    typer.echo(f"Wrote {out}; send it to the root holders for `keyset sign`.")
    _advise(request.content)


def _drafted(previous: Path | None, changes: Changes, note: str = "") -> tuple[ceremony.Request, keyset.KeySet | None]:
    document = None if previous is None else _read(previous)
    old = None if document is None else keyset.decode(document)
    edit = changes.changes()
    return ceremony.draft(ceremony.apply(edit, old), document, edit.statements(), note), old


@app.command(epilog="Example: sekisho keyset sign k2.request --key pkcs11:token=aiko;object=root-1 --known keyset.cose")
def sign(
    request: Requested,
    key: Annotated[str, typer.Option(metavar="URI", help="Your root key: a .key file or pkcs11: URI.")],
    known: Annotated[
        Path | None,
        typer.Option(metavar="KEYSET", help="Your own copy of the key set that is to be replaced; shows what changes."),
    ] = None,
    expect: Annotated[
        str | None, typer.Option(metavar="SHA256", help="Sign without asking if the content has this digest.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the signature goes; beside the request if left out.")
    ] = None,
    passphrase_fd: PassphraseFd = None,
    log: Log = None,
) -> None:
    """Ceremony, step 2, by each root holder, offline: review what changes, then sign it."""
    asked = ceremony.read_request(request)
    lines = asked.review(None if known is None else _read(known), keys.labels_in(KEYS))
    if known is None and asked.previous is not None:
        typer.echo("Without --known nothing shows what is new, so all of it is listed.")
    for line in lines:
        typer.echo(line)
    if asked.note:
        typer.echo(f"note of the drafter: {printable(asked.note)}")
    typer.echo(f"content SHA-256: {asked.digest}")
    _advise(asked.content)
    if expect is not None and expect.lower() != asked.digest:
        raise ToolError("KEYSET_CONTENT", "The content is not what you expect: it has another digest; nothing signed.")
    if expect is None and not typer.confirm("Sign this?"):
        raise ToolError("DECLINED", "Nothing was signed.")
    signer = keys.open_signer(key, keys.Passphrases(passphrase_fd), role="root")
    target = out or request.with_name(f"{request.name}.{signer.key_id.hex()}.signature")
    require_new(target)
    answer = ceremony.respond(asked, signer)
    what = f"key set version {asked.content.version}"
    keys.record(log or keys.log_path(key), what, signer, asked.digest)
    ceremony.write_json(target, answer.to_json())
    typer.echo(f"Wrote {target}; send it back to the drafter.")


@app.command(epilog="Example: sekisho keyset assemble k2.request k2.request.*.signature --out keyset-2.cose")
def assemble(
    request: Requested,
    signatures: Annotated[list[Path], typer.Argument(metavar="SIGNATURE...", help="Files made by `keyset sign`.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the key set goes.")],
) -> None:
    """Ceremony, step 3: put the signatures together; the result is written only if devices will take it."""
    require_new(out)
    asked = ceremony.read_request(request)
    document = ceremony.assemble(asked, [ceremony.read_response(path) for path in signatures])
    write_atomic(out, document)
    typer.echo(f"Wrote {out}: version {asked.content.version}, {len(document)} bytes, good for devices.")
    _advise(asked.content)


@app.command(
    epilog="Example: sekisho keyset replace keyset-2.cose --previous keyset.cose --key keys/root-1.key --floor fw=12"
)
@grouped
def replace(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where the document goes.")],
    previous: Annotated[Path, typer.Option(metavar="KEYSET", help="The key set that it replaces.")],
    key: Annotated[list[str], typer.Option(metavar="URI", help="A root key that signs: .key file or pkcs11: URI.")],
    changes: Changes,
    passphrase_fd: PassphraseFd = None,
    log: Log = None,
) -> None:
    """Make and sign the next key set in one step, when enough root keys are on this machine."""
    require_new(out)
    request, old = _drafted(previous, changes)
    document = _sign(out, request.content, request.previous, key, passphrase_fd, log)
    for line in keyset.diff(old, request.content, {**keys.labels_in(KEYS), **request.labels()}):
        typer.echo(line)
    typer.echo(f"Wrote {out}, {len(document)} bytes.")
    _advise(request.content)
