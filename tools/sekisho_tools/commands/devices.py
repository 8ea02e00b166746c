"""`sekisho devices`: the devices that a server knows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import fleet
from ..files import write_atomic
from ..text import printable
from ._server import CaOption, JsonOption, PasswordOption, ServerOption, UserOption, connect

app = typer.Typer(no_args_is_help=True)
FilterOption = Annotated[str | None, typer.Option("--filter", metavar="FILTER", help="Only these; hawkBit's language.")]


def _time(milliseconds: Any) -> str:
    if not isinstance(milliseconds, int):
        return "never"
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


@app.command(
    "list",
    epilog="Example: sekisho devices list --filter 'updatestatus==error' --server https://updates.example.com --user a",
    help="List devices: id, state, when last seen.",
)
def show_list(
    query: FilterOption = None,
    server: ServerOption = None,
    user: UserOption = None,
    password_file: PasswordOption = None,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print them."""
    found = list(fleet.devices(connect(server, user, password_file, ca), query))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for one in found:
        typer.echo(
            f"{printable(one['controllerId'])}  {one['updateStatus']}  {_time(one.get('lastControllerRequestAt'))}"
        )


@app.command(
    epilog="Example: sekisho devices show lamp-01 --server https://updates.example.com --user alice",
    help="Show one device: what it says of itself, what runs, what became of its updates.",
)
def show(
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="Controller id.")],
    server: ServerOption = None,
    user: UserOption = None,
    password_file: PasswordOption = None,
    ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print it."""
    found = fleet.device(connect(server, user, password_file, ca), device)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    target, installed = found["target"], found["installed"]
    typer.echo(f"{printable(target['controllerId'])}: {target['updateStatus']}")
    typer.echo(f"  last seen {_time(target.get('lastControllerRequestAt'))}")
    typer.echo(f"  installed {installed['name'] + ' ' + installed['version'] if installed else 'unknown'}")
    for key, value in found["attributes"].items():
        typer.echo(f"  {printable(key)} = {printable(value)}")
    for action in found["actions"]:
        typer.echo(f"  action {action['id']}: {action['status']}")
        for entry in reversed(action["history"]):
            typer.echo(f"    {_time(entry['reportedAt'])} {entry['type']} {printable('; '.join(entry['messages']))}")


@app.command(
    epilog="Example: sekisho devices export inventory.csv --server https://updates.example.com --user alice",
    help="Write an inventory of the devices with all their attributes: CSV, or JSON where the file's name ends so.",
)
def export(
    to: Annotated[Path, typer.Argument(metavar="FILE", help="File to write: .csv or .json.")],
    query: FilterOption = None,
    server: ServerOption = None,
    user: UserOption = None,
    password_file: PasswordOption = None,
    ca: CaOption = None,
) -> None:
    """Write it."""
    rows = fleet.inventory(connect(server, user, password_file, ca), query)
    text = json.dumps(rows, indent=2, ensure_ascii=False) + "\n" if to.suffix == ".json" else fleet.as_csv(rows)
    write_atomic(to, text, 0o600)
    typer.echo(f"wrote {len(rows)} devices to {to}")
