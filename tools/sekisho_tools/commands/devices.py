"""`sekisho devices`: the devices that a server knows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import fleet
from ..errors import ToolError
from ..files import read_file, write_atomic
from ..hawkbit import Api, target_path
from ..text import printable
from ._server import DeviceArgument, FilterOption, JsonOption, with_api

app = typer.Typer(no_args_is_help=True)
MAX_ORDER = 8160
UNITS = {"m": 60, "h": 3600, "d": 86400}


def _time(milliseconds: Any) -> str:
    if not isinstance(milliseconds, int):
        return "never"
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


@app.command(
    "list",
    epilog="Example: sekisho devices list --filter 'updatestatus==error' --server https://updates.example.com --user a",
    help="List devices: id, state, when last seen.",
)
@with_api
def show_list(
    api: Api,
    query: FilterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print them."""
    found = list(fleet.devices(api, query))
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
@with_api
def show(
    api: Api,
    device: DeviceArgument,
    as_json: JsonOption = False,
) -> None:
    """Print it."""
    found = fleet.device(api, device)
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
@with_api
def export(
    api: Api,
    to: Annotated[Path, typer.Argument(metavar="FILE", help="File to write: .csv or .json.")],
    query: FilterOption = None,
) -> None:
    """Write it."""
    rows = fleet.inventory(api, query)
    text = json.dumps(rows, indent=2, ensure_ascii=False) + "\n" if to.suffix == ".json" else fleet.as_csv(rows)
    write_atomic(to, text, 0o600)
    typer.echo(f"wrote {len(rows)} devices to {to}")


def _number(text: str) -> int:
    """Seconds of a time such as 12h or 7d."""
    amount, unit = text[:-1], text[-1:]
    if unit not in UNITS or not amount.isdigit():
        raise ToolError("USAGE", f"{text!r} is no time such as 90m, 12h or 7d.")
    return int(amount) * UNITS[unit]


@app.command(
    epilog="Example: sekisho devices invite lamp-01 --valid 12h --server https://updates.example.com --user alice",
    help="Make a one-time token with which a device enrols by itself (our server only). It is shown once.",
)
@with_api
def invite(
    api: Api,
    device: Annotated[
        str | None, typer.Argument(metavar="[DEVICE]", help="Only this controller id; else any new device.")
    ] = None,
    valid: Annotated[str, typer.Option(metavar="TIME", help="How long it may be used: 90m, 12h, 7d.")] = "7d",
    note: Annotated[str | None, typer.Option(metavar="TEXT", help="For people.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the token."""
    body = {"controllerId": device, "note": note, "seconds": _number(valid)}
    made = api.call("POST", "/sekisho/enrolments", {name: one for name, one in body.items() if one is not None})
    typer.echo(json.dumps(made, indent=2) if as_json else made["token"])


@app.command(
    "order",
    epilog="Example: sekisho devices order poll.cose lamp-01 lamp-02 --server https://updates.example.com --user alice",
    help="Leave a signed operator order for devices at the update server (our server only; see `sekisho order`).",
)
@with_api
def leave_order(
    api: Api,
    order: Annotated[Path, typer.Argument(metavar="ORDER.cose", help="The signed order.")],
    devices: Annotated[list[str], typer.Argument(metavar="DEVICE...", help="Controller ids.")],
) -> None:
    """Leave it with each."""
    document = read_file(order, "order", MAX_ORDER)
    for device in devices:
        fleet.leave_order(api, device, document)
        typer.echo(f"left for {printable(device)}")


@app.command(
    epilog="Example: sekisho devices reports lamp-01 --to ./reports --server https://updates.example.com --user alice",
    help="Fetch a device's signed reports, for `sekisho report verify` and other systems (our server only).",
)
@with_api
def reports(
    api: Api,
    device: DeviceArgument,
    to: Annotated[Path, typer.Option(metavar="DIR", help="Directory for the files; made if missing.")],
) -> None:
    """Write them, one file each, named by when they came."""
    for name, document in fleet.reports(api, device):
        write_atomic(to / name, document, 0o600)
        typer.echo(f"wrote {to / name}")


@app.command(
    epilog="Example: sekisho devices decommission lamp-01 --why 'sent to the recycler' --server "
    "https://updates.example.com --user alice",
    help="Refuse a device's identity for good, even when the device is deleted (our server only; role admin).",
)
@with_api
def decommission(
    api: Api,
    device: DeviceArgument,
    why: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept with the identity.")],
) -> None:
    """Do it."""
    api.call("POST", f"{target_path(device)}/decommission", {"why": why})
    typer.echo(f"{printable(device)} is decommissioned")
