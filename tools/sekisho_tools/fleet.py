"""What operators do with a fleet, by hawkBit's management API: publish, assign, roll out, list and export devices.

A release becomes one distribution set with one software module, whose artifacts are told apart by their names:
``<name>.suit`` the envelope, 64 hex digits a payload, ``keyset-<version>.cose`` a key set. The module's metadata
``sekisho.sequence`` and ``sekisho.manifest`` are shown to devices, ``text.<language>`` to people. Key sets without a
release become a set of their own, named after the newest, so that they can be assigned to devices at once.
"""

from __future__ import annotations

import csv
import hashlib
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import device_code, publish, suit
from .errors import ToolError
from .hawkbit import Api, quoted, target_path

assert device_code

SUFFIX = ".suit"
KEY_SETS = "keyset"
"""Name of a distribution set that holds key sets only."""
CANARY_WAIT = 120
"""Seconds to wait for a new rollout to become ready."""
ENDED = ("finished", "stopping", "stopped", "deleting", "deleted")
"""States of a rollout that gives its release to nobody any more."""
EXPORT = ("controllerId", "name", "updateStatus", "lastControllerRequestAt", "installed", "ipAddress")
"""Columns of an export before the attributes."""


def _texts(manifest: suit.Manifest) -> tuple[dict[str, str], str]:
    """Description by language, and the version for people."""
    words: dict[str, str] = {}
    version = ""
    for language, entry in (manifest.text or {}).items():
        words[language] = str(entry.get("manifest-description", ""))
        for member in entry.values():
            if isinstance(member, dict):
                version = version or str(member.get("component-version", ""))
    return {language: text for language, text in words.items() if text}, version


def publish_to(api: Api, files: Sequence[Path], name: str | None = None) -> dict[str, Any]:
    """Upload a release, its payloads and key sets, or key sets alone; returns ids, name and version of the set.

    *name*: of the distribution set, default the name of the .suit file, or of the newest key set's, without the
    version. What is there already with the same content is left as it is, so an upload that broke off is simply
    repeated. Raises ToolError as `publish.gather` and `Api` do, CONFLICT where something else has this name and
    version.
    """
    found = publish.gather(None, None, files)
    contents = {publish.link(number): data for number, data in found.key_sets.items()}
    if found.release is None or found.manifest is None:
        return _key_sets_to(api, found, contents, name)
    path, envelope = found.release
    words, version = _texts(found.manifest)
    sequence = str(found.manifest.sequence_number)
    version = version or sequence
    stem = path.name.removesuffix(SUFFIX)
    name = name or stem.removesuffix(f"-{version}") or stem
    names = {suit.show_id(identifier) for identifier in found.manifest.components}
    body: dict[str, Any] = {"name": name, "version": version, "description": words.get("en", "")[:512]}
    contents |= {f"{stem}{SUFFIX}": envelope}
    contents |= {hashlib.sha256(data).hexdigest(): data for _, data in found.payloads}
    pairs = {"sekisho.sequence": (sequence, True), "sekisho.manifest": (_digest(envelope), True)}
    pairs |= {f"text.{language}": (text[:4000], False) for language, text in words.items()}
    return _set_of(api, "os" if "fw" in names else "application", body, contents, pairs)


def _key_sets_to(api: Api, found: publish.Gathered, contents: dict[str, bytes], name: str | None) -> dict[str, Any]:
    if not contents or found.payloads:
        raise ToolError("ENVELOPE", "There is no release among these files that the payloads belong to.")
    newest = max(found.key_sets)
    words = f"Key set {newest}" + (", with those before it" if len(contents) > 1 else "")
    body = {"name": name or KEY_SETS, "version": str(newest), "description": words}
    return _set_of(api, "application", body, contents, {})


def _set_of(
    api: Api, kind: str, body: dict[str, Any], contents: dict[str, bytes], pairs: dict[str, tuple[str, bool]]
) -> dict[str, Any]:
    """A distribution set of one module (*kind*: os or application) with *contents* and metadata *pairs*."""
    name, version = body["name"], body["version"]
    module = _made(api, "/softwaremodules", body | {"type": kind})
    there = {one["providedFilename"]: one for one in api.call("GET", f"/softwaremodules/{module}/artifacts")}
    for filename, data in contents.items():
        digest = hashlib.sha256(data).hexdigest()
        known = there.get(filename)
        if known is None:
            api.upload(module, filename, data, digest)
        elif known["hashes"]["sha256"] != digest:
            raise ToolError("CONFLICT", f"{name} {version} has another {filename} on the server; number it anew.")
    metadata = api.call("GET", f"/softwaremodules/{module}/metadata") if pairs else {"content": ()}
    known_keys = {one["key"] for one in metadata["content"]}
    fresh = [
        {"key": key, "value": value, "targetVisible": visible}
        for key, (value, visible) in pairs.items()
        if key not in known_keys
    ]
    if fresh:
        api.call("POST", f"/softwaremodules/{module}/metadata", fresh)
    number = _made(
        api, "/distributionsets", body | {"type": "os" if kind == "os" else "app", "modules": [{"id": module}]}
    )
    return {"distributionSet": number, "softwareModule": module, "name": name, "version": version}


def _digest(envelope: bytes) -> str:
    return suit.decode(envelope).digest.value.hex()


def _made(api: Api, path: str, body: dict[str, Any]) -> int:
    """The id of the entry with this name, version and type; made if it is not there."""
    wanted = f"name=={quoted(body['name'])};version=={quoted(body['version'])}"
    for entry in api.call("GET", path, q=wanted)["content"]:
        if (entry["name"], entry["version"], entry["type"]) == (body["name"], body["version"], body["type"]):
            return int(entry["id"])
    return int(api.call("POST", path, [body])[0]["id"])


def find_set(api: Api, text: str) -> dict[str, Any]:
    """A distribution set by id, by ``name version``, or by name (then the newest). Raises ToolError NOT_FOUND."""
    if text.isdigit():
        return dict(api.call("GET", f"/distributionsets/{text}"))
    found = list(api.everything("/distributionsets", sort="id:DESC"))
    for entry in found:
        if text in (f"{entry['name']} {entry['version']}", f"{entry['name']}:{entry['version']}"):
            return entry
    for entry in found:
        if entry["name"] == text:
            return entry
    raise ToolError("NOT_FOUND", f"The server has no release {text!r}; publish it first.")


def assign(api: Api, release: str, devices: Sequence[str], how: str, **more: Any) -> dict[str, Any]:
    """Assign a release to devices. *how*: forced, soft, downloadonly."""
    number = find_set(api, release)["id"]
    total = {"assigned": 0, "alreadyAssigned": 0, "total": 0}
    for at in range(0, len(devices), 500):
        body = [{"id": device, "type": how} | more for device in devices[at : at + 500]]
        done = api.call("POST", f"/distributionsets/{number}/assignedTargets", body)
        total = {name: total[name] + int(done.get(name, 0)) for name in total}
    return total


def withdraw(api: Api, release: str) -> tuple[dict[str, Any], int, int]:
    """Take a release back: stop its rollouts, cancel its open actions. Returns the set and how many of each.

    Devices that run it keep it, and the set stays, so that its number is never used twice. Raises ToolError as `Api`.
    """
    found = find_set(api, release)
    stopped = 0
    for one in api.everything("/rollouts"):
        if one["distributionSetId"] == found["id"] and one["status"] not in ENDED:
            api.call("POST", f"/rollouts/{one['id']}/stop")
            stopped += 1
    cancelled = 0
    for one in list(api.everything("/actions", q=f"distributionset.id=={found['id']}")):
        if one.get("active", one["status"] == "pending") and one["type"] != "cancel":
            api.call("DELETE", urlsplit(one["_links"]["self"]["href"]).path.rpartition("/rest/v1")[2])
            cancelled += 1
    return found, stopped, cancelled


@dataclass(frozen=True)
class Steps:
    """How a rollout goes: percent of the devices that come first, groups after that, thresholds in percent."""

    canary: float = 5.0
    groups: int = 2
    success: int = 90
    errors: int = 0
    silence: int | None = None
    """Seconds; only our own server knows it."""


def start_rollout(
    api: Api, name: str, release: str, devices: str, steps: Steps, start: bool = True, at: datetime | None = None
) -> dict[str, Any]:
    """Make a rollout and start it, or have the server start it *at* a time. *devices*: ``attribute.chip==esp32``.

    Raises ToolError as `Api` does; ROLLOUT when it does not become ready.
    """
    rules = {
        "successCondition": {"condition": "THRESHOLD", "expression": str(steps.success)},
        "errorCondition": {"condition": "THRESHOLD", "expression": str(steps.errors)},
        "errorAction": {"action": "PAUSE", "expression": ""},
    }
    rest = [
        {"name": f"group-{at + 1}", "targetPercentage": round(100 / (steps.groups - at), 3)} | rules
        for at in range(steps.groups)
    ]
    rest[-1]["targetPercentage"] = 100.0
    body: dict[str, Any] = {
        "name": name,
        "distributionSetId": find_set(api, release)["id"],
        "targetFilterQuery": devices,
        "type": "forced",
        "groups": [{"name": "canary", "targetPercentage": steps.canary} | rules, *rest],
        **rules,
    }
    if steps.silence is not None:
        body["silenceTimeout"] = steps.silence
    if at is not None:
        body["startAt"] = int(at.timestamp() * 1000)
    made = dict(api.call("POST", "/rollouts", body))
    return _started(api, made) if start and at is None else made


def _started(api: Api, made: dict[str, Any]) -> dict[str, Any]:
    """A rollout, once it is ready, started (or waiting for approval)."""
    deadline = time.monotonic() + CANARY_WAIT
    while made["status"] not in ("ready", "waiting_for_approval"):
        if time.monotonic() > deadline or made["status"] not in ("creating", "ready"):
            raise ToolError("ROLLOUT", f"The rollout {made['name']} is {made['status']} and does not become ready.")
        time.sleep(0.5)
        made = dict(api.call("GET", f"/rollouts/{made['id']}"))
    if made["status"] == "ready":
        api.call("POST", f"/rollouts/{made['id']}/start")
        made = dict(api.call("GET", f"/rollouts/{made['id']}"))
    return made


def find_rollout(api: Api, text: str) -> dict[str, Any]:
    """A rollout by id or by name. Raises ToolError NOT_FOUND."""
    if text.isdigit():
        return dict(api.call("GET", f"/rollouts/{text}"))
    for entry in api.everything("/rollouts"):
        if entry["name"] == text:
            return dict(api.call("GET", f"/rollouts/{entry['id']}"))
    raise ToolError("NOT_FOUND", f"The server has no rollout {text!r}.")


def change_rollout(api: Api, text: str, deed: str) -> dict[str, Any]:
    """Pause, resume or stop a rollout; returns its new state."""
    number = find_rollout(api, text)["id"]
    api.call("POST", f"/rollouts/{number}/{deed}")
    return dict(api.call("GET", f"/rollouts/{number}"))


def retry_rollout(api: Api, text: str) -> dict[str, Any]:
    """A new rollout for the devices on which this one failed, started; returns it. Raises ToolError as `Api` does."""
    return _started(api, dict(api.call("POST", f"/rollouts/{find_rollout(api, text)['id']}/retry")))


def rollout_groups(api: Api, number: int) -> list[dict[str, Any]]:
    """The groups of a rollout."""
    return list(api.everything(f"/rollouts/{number}/deploygroups"))


def devices(api: Api, query: str | None = None) -> Iterator[dict[str, Any]]:
    """All devices that fit the filter."""
    return api.everything("/targets", q=query, sort="controllerId:ASC")


def device(api: Api, controller_id: str) -> dict[str, Any]:
    """One device: target, attributes, installed set, actions with what was reported."""
    path = target_path(controller_id)
    found = dict(api.call("GET", path))
    actions = []
    for entry in api.call("GET", f"{path}/actions", sort="id:DESC", limit=20)["content"]:
        history = api.call("GET", f"{path}/actions/{entry['id']}/status", sort="id:DESC", limit=50)
        actions.append(dict(entry) | {"history": history["content"]})
    return {
        "target": found,
        "attributes": api.call("GET", f"{path}/attributes") or {},
        "installed": api.call("GET", f"{path}/installedDS"),
        "actions": actions,
    }


def leave_order(api: Api, controller_id: str, document: bytes) -> None:
    """Leave a signed operator order for a device; only our own server carries them. Raises ToolError as `Api` does."""
    api.put(f"{target_path(controller_id)}/order", document, "application/cose")


def reports(api: Api, controller_id: str) -> Iterator[tuple[str, bytes]]:
    """(file name, signed report) of what a device has sent, the newest first."""
    for one in api.call("GET", f"{target_path(controller_id)}/reports"):
        moment = datetime.fromtimestamp(one["receivedAt"] / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
        yield f"{moment}-{int(one['id'])}.report", bytes.fromhex(one["cose"])


def inventory(api: Api, query: str | None = None) -> list[dict[str, Any]]:
    """One row per device, attributes as ``attribute.<key>`` (STS03)."""
    rows = []
    for entry in devices(api, query):
        path = target_path(entry["controllerId"])
        installed = api.call("GET", f"{path}/installedDS")
        row = {name: entry.get(name) for name in EXPORT}
        row["installed"] = f"{installed['name']} {installed['version']}" if installed else None
        attributes = api.call("GET", f"{path}/attributes") or {}
        rows.append(row | {f"attribute.{key}": value for key, value in sorted(attributes.items())})
    return rows


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    # A spreadsheet must not take what a device said for a formula.
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as CSV with all columns that occur."""
    extra = sorted({name for row in rows for name in row} - set(EXPORT))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*EXPORT, *extra])
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in (*EXPORT, *extra)])
    return out.getvalue()
