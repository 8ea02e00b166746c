"""`sekisho keys`: make, list, show, back up and destroy signing keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import keys, pkcs11_keys
from ..errors import ToolError
from ..files import write_atomic

app = typer.Typer(no_args_is_help=True)

PassphraseFd = Annotated[
    int | None,
    typer.Option(
        "--passphrase-fd",
        metavar="N",
        min=0,
        help="Read passphrases from this file descriptor, one line per key, instead of asking.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
KeyFile = Annotated[Path, typer.Argument(metavar="KEY", help="A .key file.")]


@app.command(epilog="Example: sekisho keys generate root-1 --role root --environment release --label 'Root, Aiko'")
def generate(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the files NAME.key and NAME.pub, or a pkcs11: URI.")
    ],
    role: Annotated[
        Literal["root", "release", "operator", "device", "approver"],
        typer.Option(help="What the key will sign; fixed for ever."),
    ],
    environment: Annotated[
        Literal["development", "release"],
        typer.Option("--environment", "--env", help="Where the key counts; fixed for ever, never mixed."),
    ],
    label: Annotated[str | None, typer.Option(help="Words for people; the name if left out.")] = None,
    directory: Annotated[Path, typer.Option("--dir", help="Where the files go.")] = Path("keys"),
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Leave a development key unencrypted.")
    ] = False,
    passphrase_fd: PassphraseFd = None,
    as_json: Json = False,
) -> None:
    """Make an Ed25519 key: NAME.key (private, encrypted) and NAME.pub (to hand on)."""
    if name.startswith(pkcs11_keys.SCHEME):
        _generate_on_token(name, role, environment, label, directory, keys.Passphrases(passphrase_fd), as_json)
        return
    passphrases = None if no_passphrase else keys.Passphrases(passphrase_fd)
    made = keys.generate(name, directory, role, environment, label, passphrases)
    if as_json:
        shown = {"private": str(made.private), "public": str(made.public), **made.statement.to_dict()}
        typer.echo(json.dumps(shown, indent=2))
        return
    typer.echo(f"Made the {role} key {made.statement.key_id.hex()} for the {environment} environment.")
    typer.echo(f"  private: {made.private} ({'NOT encrypted' if no_passphrase else 'encrypted'}; back it up)")
    typer.echo(f"  public:  {made.public} (hand this on)")


def _generate_on_token(
    uri: str, role: str, environment: str, label: str | None, directory: Path, passphrases: keys.Passphrases, js: bool
) -> None:
    public = directory / ((pkcs11_keys.parse_uri(uri).key or "key") + keys.PUBLIC)
    if public.exists():
        raise ToolError("KEY_EXISTS", f"{public} exists already; a key is never overwritten.")
    statement = pkcs11_keys.generate(uri, role, environment, label, passphrases)
    write_atomic(public, statement.to_json() + "\n")
    if js:
        typer.echo(json.dumps({"private": uri, "public": str(public), **statement.to_dict()}, indent=2))
        return
    typer.echo(f"Made the {role} key {statement.key_id.hex()} for the {environment} environment on the token.")
    typer.echo("  private: never leaves the token, so there is no backup of it")
    typer.echo(f"  public:  {public} (hand this on)")


@app.command("list", epilog="Example: sekisho keys list --dir keys")
def list_(
    directory: Annotated[Path, typer.Option("--dir", help="Directory with key files.")] = Path("keys"),
    token: Annotated[str | None, typer.Option(metavar="URI", help="List a pkcs11: token instead.")] = None,
    as_json: Json = False,
) -> None:
    """List the keys of a directory or token; no passphrase or PIN is needed."""
    if token is not None:
        uri = pkcs11_keys.parse_uri(token)
        listed = [keys.Listed(f"{uri.token}/{one.label}", one, "token") for one in pkcs11_keys.statements(uri)]
    else:
        listed = keys.list_keys(directory)
    if as_json:
        typer.echo(json.dumps([_row(one) for one in listed], indent=2))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("File", "Key id", "Role", "Environment", "Made", "Protection", "Label"):
        table.add_column(name, no_wrap=name != "Label", overflow="fold")
    for one in listed:
        row = _row(one)
        words = [str(row.get(name, "?")) for name in ("key_id", "role", "environment", "created", "protection")]
        words[3] = words[3][:10]
        table.add_row(*map(escape, (Path(one.path).name, *words, str(row.get("label", "?")))))
    Console(highlight=False, width=max(MIN_WIDTH, Console().width)).print(table)


MIN_WIDTH = 100
"""Columns of the table: a narrower terminal breaks its lines, but never a key id, which people compare."""


def _row(one: keys.Listed) -> dict[str, Any]:
    statement = one.statement.to_dict() if one.statement else {}
    return {"file": str(one.path), "protection": one.protection, **statement}


@app.command(epilog="Example: sekisho keys show keys/root-1.pub")
def show(
    path: Annotated[str, typer.Argument(metavar="KEY", help="A .key or .pub file, or a pkcs11: URI.")],
    as_json: Json = False,
) -> None:
    """Show what a key says of itself, after checking the key's signature on it; no passphrase is needed."""
    statement = keys.load_statement(path)
    if as_json:
        typer.echo(statement.to_json())
        return
    for name, value in statement.to_dict().items():
        if name not in ("format", "signature"):
            typer.echo(f"{name.replace('_', ' '):12} {value}")


@app.command(epilog="Example: sekisho keys backup keys/root-1.key /media/safe/")
def backup(
    key: KeyFile,
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="New file, or a directory.")],
    new_passphrase: Annotated[
        bool, typer.Option("--new-passphrase", help="Give the copy another passphrase (the next line of the fd).")
    ] = False,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Copy a private key and show that the copy opens."""
    passphrases = keys.Passphrases(passphrase_fd)
    made = keys.backup(key, target, passphrases, passphrases if new_passphrase else None)
    typer.echo(f"Copied to {made}; the copy was opened again and is good.")


@app.command(epilog="Example: sekisho keys destroy keys/old.key --key-id 58b41ff17a7078c8")
def destroy(
    key: Annotated[str, typer.Argument(metavar="KEY", help="A .key file or a pkcs11: URI.")],
    key_id: Annotated[str, typer.Option("--key-id", help="Key id of that key, to be sure it is the right one.")],
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Overwrite and remove a private key. Backups and the spare blocks of an SSD are beyond its reach."""
    if key.startswith(pkcs11_keys.SCHEME):
        statement = pkcs11_keys.destroy(key, key_id, keys.Passphrases(passphrase_fd))
    else:
        statement = keys.destroy(Path(key), key_id)
    typer.echo(f"Destroyed {key} ({statement.role} key {statement.key_id.hex()}); its .pub file stays for the records.")
    typer.echo("If no backup is to stay in use: destroy those too, and revoke the key in the next key set.")
