"""A fleet in a terminal of any size: a sign for each device, counts, the rollout, and the devices that matter now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from .fleet import Fleet, Member

SIGNS = {
    "fails": ("!", "bold red"),
    "on trial": ("T", "yellow"),
    "staged": ("S", "cyan"),
    "fetching": ("v", "cyan"),
    "rolled back": ("x", "red"),
    "confirmed": ("+", "green"),
    "runs": (".", ""),
    "off": ("-", "dim"),
}
"""State -> its sign and style; the first ones are what a small screen shows first."""
NAMED = 12
"""Devices that a sentence lists by name."""


def kind(member: Member) -> str:
    """The state of a device as one of `SIGNS`."""
    if member.error or member.state == "does not boot":
        return "fails"
    return "fetching" if member.state.startswith("fetching") else member.state


def strip(members: Sequence[Member]) -> Text:
    """All devices in their order, a sign for each."""
    text = Text()
    for member in members:
        text.append(*SIGNS[kind(member)])
    return text


def counts(members: Sequence[Member]) -> Text:
    """How many are how far."""
    found = Counter((kind(member), member.release) for member in members)
    text = Text()
    for state, (sign, style) in SIGNS.items():
        for release in sorted(number for name, number in found if name == state):
            text.append("  " if text else "")
            text.append(sign, style)
            words = {"runs": "run", "rolled back": "back on", "on trial": "try", "confirmed": "confirmed"}.get(state)
            about = f"{words} {release}" if words and release else state
            text.append(f" {found[state, release]} {about}")
    return text


def rollout_line(rollout: Mapping[str, Any]) -> Text:
    """A rollout and its groups, as `sekisho rollout status` tells of them."""
    text = Text(f"rollout {rollout['name']}: {rollout['status']}")
    for group in rollout.get("groups", ()):
        told = group.get("totalTargetsPerStatus", {})
        parts = ", ".join(f"{count} {word}" for word, count in told.items() if count)
        text.append(f"; {group['name']}: {parts or group['status']}")
    return text


def last_word(member: Member) -> str:
    """What went wrong, and what the device said last."""
    refused = [f"{release} failed: {reason}" for release, reason in sorted(member.refused.items())]
    words = [member.error, *refused, "" if member.last in member.refused.values() else member.last]
    return "; ".join(filter(None, words))


def table(members: Sequence[Member], rows: int | None = None) -> RenderableType:
    """The devices, at most *rows* lines with the head; those that matter most when there is no room for all."""
    found = Table(box=None, pad_edge=False, expand=True)
    for column, width in (("device", None), ("slot", 5), ("release", 7), ("state", 14), ("starts", 6)):
        found.add_column(column, no_wrap=True, width=width)
    found.add_column("last word", no_wrap=True, ratio=1)
    room = len(members) if rows is None else max(0, rows - 1)
    shown = list(members)
    if len(members) > room:
        order = list(SIGNS)
        shown = sorted(members, key=lambda member: order.index(kind(member)))[: max(0, room - 1)]
    for member in shown:
        state = kind(member) if member.error else member.state
        release = str(member.release or "")
        cells = (member.name, member.slot, release, state, str(member.starts), last_word(member))
        found.add_row(*map(Text, cells), style=SIGNS[kind(member)][1])
    rest = [member for member in members if member not in shown]
    if not rest:
        return found
    states = Counter(kind(member) for member in rest)
    words = ", ".join(f"{states[state]} {state}" for state in SIGNS if states[state])
    return Group(found, Text(f"... and {len(rest)} more: {words}", style="dim", no_wrap=True, overflow="ellipsis"))


def frame(
    fleet: Fleet, seconds: float, size: tuple[int, int] | None = None, rollout: Mapping[str, Any] | None = None
) -> Group:
    """What is seen *seconds* after the start in a terminal of *size* (columns, lines); None for all the lines."""
    members = fleet.members
    minutes, rest = divmod(int(seconds), 60)
    head = [Text(f"{len(members)} devices, {minutes}:{rest:02}", style="bold"), strip(members), counts(members)]
    if rollout is not None:
        head.append(rollout_line(rollout))
    if size is None:
        return Group(*head, table(members))
    width, height = size
    # The cursor stands in the line below what is drawn.
    console = Console(width=width)
    used = sum(len(text.wrap(console, width)) for text in head)
    return Group(*head, table(members, max(0, height - 1 - used)))


def _names(members: Sequence[Member]) -> str:
    more = f" and {len(members) - NAMED} more" if len(members) > NAMED else ""
    return ", ".join(member.name for member in members[:NAMED]) + more


def conclusion(fleet: Fleet, rollout: Mapping[str, Any] | None = None) -> list[str]:
    """What became of it, in sentences."""
    members = fleet.members
    lines = [f"{member.name}: {member.error or member.state}." for member in members if kind(member) == "fails"]
    runs = Counter(member.release for member in members if member.release)
    for release, number in sorted(runs.items()):
        tries = sum(member.release == release and member.state == "on trial" for member in members)
        lines.append(f"{number} of {len(members)} run release {release}{f', {tries} on trial' if tries else ''}.")
    for release in sorted({number for member in members for number in member.refused}):
        back = [member for member in members if release in member.refused]
        why = Counter(member.refused[release] for member in back)
        reasons = ", ".join(f"{reason} {count}x" for reason, count in sorted(why.items()))
        never = len(members) - len(back) - runs[release]
        lines.append(
            f"Release {release} was rolled back by {len(back)} ({reasons}): {_names(back)}. "
            f"{runs[release]} run it, {never} never took it."
        )
    if rollout is not None:
        reason = rollout.get("statusReason")
        lines.append(f"Rollout {rollout['name']} is {rollout['status']}{f': {reason}' if reason else ''}.")
    return lines
