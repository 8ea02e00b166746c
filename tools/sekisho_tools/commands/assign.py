"""`sekisho assign`: give a release to single devices."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ..errors import ToolError
from ..hawkbit import Api
from ._server import FilterOption, JsonOption, ReleaseArgument, with_api

app = typer.Typer()


@app.command(
    epilog="Example: sekisho assign 'my-board 1.3.0' lamp-01 lamp-02 --server https://updates.example.com --user alice",
    help="Assign a published release, or key set, to devices at once (a few first, then the others: see `rollout`).",
)
@with_api
def assign(
    api: Api,
    release: ReleaseArgument,
    devices: Annotated[
        list[str] | None, typer.Argument(metavar="[DEVICE...]", help="Controller ids; or --filter.")
    ] = None,
    query: FilterOption = None,
    how: Annotated[str, typer.Option(metavar="HOW", help="forced, soft (the device decides when), downloadonly.")] = (
        "forced"
    ),
    as_json: JsonOption = False,
) -> None:
    """Assign, print how many."""
    from .. import fleet

    if how not in ("forced", "soft", "downloadonly"):
        raise ToolError("USAGE", "--how is forced, soft or downloadonly.")
    if (devices is None) == (query is None):
        raise ToolError("USAGE", "Name devices, or say which ones with --filter ('controllerid==*' is all).")
    if devices is None:
        devices = [one["controllerId"] for one in fleet.devices(api, query)]
        if not devices:
            raise ToolError("NOT_FOUND", f"No device of the server fits the filter {query!r}; nothing was assigned.")
    done = fleet.assign(api, release, devices, how)
    if as_json:
        typer.echo(json.dumps(done))
    else:
        typer.echo(f"assigned to {done['assigned']} devices, {done['alreadyAssigned']} had it already")
