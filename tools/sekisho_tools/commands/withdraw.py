"""`sekisho withdraw`: take a release back from the update server."""

from __future__ import annotations

import json

import typer

from ..hawkbit import Api
from ._server import JsonOption, ReleaseArgument, with_api

app = typer.Typer()


@app.command(
    epilog="Example: sekisho withdraw lamp:1.3.0 --server https://updates.example.com --user alice",
    help="Take a release back: stop its rollouts and cancel it wherever it is not installed yet. Devices that run it "
    "keep it, and whoever has the file can still offer it: to forbid that, revoke it or raise the floor (`keyset`).",
)
@with_api
def withdraw(
    api: Api,
    release: ReleaseArgument,
    as_json: JsonOption = False,
) -> None:
    """Do it, print how many."""
    from .. import fleet

    found, rollouts, devices = fleet.withdraw(api, release)
    if as_json:
        typer.echo(json.dumps({"distributionSet": found["id"], "rollouts": rollouts, "devices": devices}))
    else:
        typer.echo(
            f"{found['name']} {found['version']} is taken back: {rollouts} rollouts stopped, "
            f"{devices} devices will not get it"
        )
