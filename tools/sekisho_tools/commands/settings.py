"""`sekisho settings`: the schema of the device's settings, and files that hold some."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from .. import settings
from ..errors import ToolError
from ..files import read_file, write_atomic
from ..keys import Passphrases
from .keys import Json

app = typer.Typer(no_args_is_help=True)

KeyOption = Annotated[Path | None, typer.Option("--key", help="File with a key of 32 bytes instead of a passphrase.")]
PassphraseFd = Annotated[
    int | None, typer.Option("--passphrase-fd", metavar="N", min=0, help="Read the passphrase from this descriptor.")
]
_MAX = 1 << 16


@app.command("list", epilog="Example: sekisho settings list")
def list_(as_json: Json = False) -> None:
    """List every setting: values, defaults, who may change it, when it takes effect."""
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in settings.schema()], indent=2))
        return
    table = Table("name", "values", "default", "secure default", "who", "effect")
    for one in settings.schema():
        secure = "kept" if one.kept else json.dumps(one.secure)
        table.add_row(one.name, one.values, json.dumps(one.default), secure, one.who, one.effect)
    Console().print(table)


@app.command(epilog="Example: sekisho settings check sekisho.json")
def check(file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON with names and values.")]) -> None:
    """Check a file of settings as a device would."""
    typer.echo(f"{len(settings.check(_json(file)))} settings, all as devices take them.")


@app.command("open", epilog="Example: sekisho settings open lamp.backup")
def open_(
    file: Annotated[Path, typer.Argument(metavar="BACKUP", help="What a device exported.")],
    key: KeyOption = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Show the settings in a backup, as JSON. It holds Wi-Fi passphrases: mind where you print it."""
    typer.echo(json.dumps(settings.open_backup(read_file(file, "backup", _MAX), _secret(key, passphrase_fd)), indent=2))


@app.command(epilog="Example: sekisho settings seal sekisho.json --out lamp.backup")
def seal(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON with names and values.")],
    out: Annotated[Path, typer.Option("--out", help="Backup file to write.")],
    key: KeyOption = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Make a backup that a device can import out of a file of settings."""
    write_atomic(out, settings.make_backup(_json(file), _secret(key, passphrase_fd)))
    typer.echo(f"Wrote {out}.")


def _json(file: Path) -> dict[str, object]:
    try:
        return settings.check(json.loads(read_file(file, "settings", _MAX)))
    except ValueError as error:
        raise ToolError("SETTING", f"{file} is no JSON: {error}.") from error


def _secret(key: Path | None, descriptor: int | None) -> bytes | str:
    if key is None:
        return Passphrases(descriptor).get("the backup").decode(errors="replace")
    secret = read_file(key, "key", 64)
    if len(secret) != 32:
        raise ToolError("BACKUP", f"{key} has {len(secret)} bytes; a key has 32.")
    return secret
