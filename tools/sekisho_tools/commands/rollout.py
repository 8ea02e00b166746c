"""`sekisho rollout`: give a release to many devices, a few first."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from .. import fleet
from ..errors import ToolError
from ..hawkbit import Api
from ._server import JsonOption, with_api

app = typer.Typer(no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(metavar="ROLLOUT", help="Name or id.")]


def _moment(text: str) -> datetime:
    """The time that *text* names; it must lie ahead."""
    try:
        when = datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise ToolError("USAGE", f"{text!r} is no time such as 2026-12-24T18:00 or 2026-12-24T18:00+09:00.") from None
    if when <= datetime.now(UTC):
        raise ToolError("USAGE", f"{text} has passed; leave --at out to start at once.")
    return when


def _show(found: dict[str, Any], as_json: bool, groups: list[dict[str, Any]] | None = None) -> None:
    if as_json:
        typer.echo(json.dumps(found | ({"groups": groups} if groups is not None else {}), indent=2))
        return
    counts = ", ".join(f"{count} {word}" for word, count in found.get("totalTargetsPerStatus", {}).items() if count)
    typer.echo(f"{found['name']} ({found['id']}): {found['status']}{', ' + counts if counts else ''}")
    if found["status"] == "ready" and found.get("startAt"):
        typer.echo(f"  starts {datetime.fromtimestamp(found['startAt'] / 1000).astimezone():%Y-%m-%d %H:%M %z}")
    if found.get("statusReason"):
        typer.echo(f"  {found['statusReason']}")
    for group in groups or []:
        counts = ", ".join(f"{count} {word}" for word, count in group.get("totalTargetsPerStatus", {}).items() if count)
        typer.echo(f"  {group['name']}: {group['status']}, {counts}")


@app.command(
    epilog="Example: sekisho rollout start lamps-1.3 --release 'lamp 1.3.0' --devices 'attribute.chip==esp32' "
    "--canary 5 --groups 3 --errors 2 --server https://updates.example.com --user alice",
    help="Make a rollout and start it: a canary group, then the others; errors (on our server silence, too) stop it.",
)
@with_api
def start(
    api: Api,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new rollout.")],
    release: Annotated[str, typer.Option(metavar="RELEASE", help="Id, name, or 'NAME VERSION' of the release.")],
    devices: Annotated[str, typer.Option(metavar="FILTER", help="Which devices: hawkBit's filter language.")],
    canary: Annotated[float, typer.Option(min=0.001, max=100, help="Percent of the devices in the first group.")] = 5,
    groups: Annotated[int, typer.Option(min=1, max=100, help="Groups that follow.")] = 2,
    success: Annotated[int, typer.Option(min=0, max=100, help="Percent that must succeed before the next group.")] = 90,
    errors: Annotated[int, typer.Option(min=0, max=100, help="Percent of failures above which it stops itself.")] = 0,
    silence: Annotated[
        int | None, typer.Option(min=10, metavar="SECONDS", help="Silence that counts as failure (our server only).")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="TIME", help="Start by itself then: 2026-12-24T18:00+09:00 (no zone: this one's)."
        ),
    ] = None,
    hold: Annotated[bool, typer.Option("--hold", help="Only make it; start it later on the page.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make and start it."""
    steps = fleet.Steps(canary, groups, success, errors, silence)
    when = None if at is None else _moment(at)
    _show(fleet.start_rollout(api, name, release, devices, steps, not hold, when), as_json)


@app.command(
    epilog="Example: sekisho rollout status lamps-1.3 --server https://updates.example.com --user alice",
    help="Show how far a rollout is.",
)
@with_api
def status(
    api: Api,
    rollout: NameArgument,
    as_json: JsonOption = False,
) -> None:
    """Print totals and groups."""
    found = fleet.find_rollout(api, rollout)
    _show(found, as_json, fleet.rollout_groups(api, found["id"]))


def _deed(deed: str, words: str) -> None:
    @app.command(
        deed,
        epilog=f"Example: sekisho rollout {deed} lamps-1.3 --server https://updates.example.com --user alice",
        help=words,
    )
    @with_api
    def command(
        api: Api,
        rollout: NameArgument,
        as_json: JsonOption = False,
    ) -> None:
        """Do it, print the new state."""
        _show(fleet.change_rollout(api, rollout, deed), as_json)


_deed("pause", "Give the update to no further device; devices that have begun go on.")
_deed("resume", "Go on with a rollout that was paused, or that stopped itself.")
_deed("stop", "End a rollout: open updates are cancelled, the other devices never get it.")


@app.command(
    epilog="Example: sekisho rollout retry lamps-1.3 --server https://updates.example.com --user alice",
    help="Make and start a new rollout for the devices on which one failed (it must have ended).",
)
@with_api
def retry(api: Api, rollout: NameArgument, as_json: JsonOption = False) -> None:
    """Make it, print it."""
    _show(fleet.retry_rollout(api, rollout), as_json)
