"""Moves devices and releases from an update server to another one that speaks hawkBit's management API.

Everything is looked up before it is made, so a run may break off anywhere and be repeated; a second one finds nothing
to do. In this order: software modules with artifacts and metadata, distribution sets, devices with what operators
noted, what each has installed. Not moved: open updates and rollouts (end them first), history, accounts, settings.

Tokens. `sekisho serve` keeps only hashes of its devices' tokens, so it cannot hand them on. Those that are known from
elsewhere (issuing records) can be given; every other device gets a new one, which is written down before the other
server hears of it, and reaches the device by an operator order (docs/scale.md).
"""

from __future__ import annotations

import csv
import hashlib
import io
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .errors import ToolError
from .files import read_file, write_atomic
from .hawkbit import Api, quoted, target_path

AT_ONCE = 100
"""Devices in one request."""
MAX_TOKENS = 16 << 20
"""Bytes of a file of tokens: some 100,000 devices."""
TRIES = 6
"""How often a request is made that the other server puts off (429, 503)."""
FIRST_PAUSE = 0.5
"""Seconds before the second try; they double."""
TOKEN_SETTING = "/system/configs/authentication.targettoken.enabled"  # noqa: S105


@dataclass
class Moved:
    """What a run did, or (*dry*) would do."""

    dry: bool
    modules: int = 0
    artifacts: int = 0
    bytes: int = 0
    sets: int = 0
    devices: int = 0
    notes: int = 0
    installed: int = 0
    there: int = 0
    """Things that the other server had already."""
    new_tokens: list[str] = field(default_factory=list)
    """Devices that must be told a new token."""
    warnings: list[str] = field(default_factory=list)

    def changed(self) -> int:
        """How many things were made, or would be."""
        return self.modules + self.artifacts + self.sets + self.devices + self.notes + self.installed

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"changed": self.changed()}


def read_tokens(path: Path) -> dict[str, str]:
    """``controllerId,securityToken`` lines (with that heading). Raises ToolError FILE, TOKENS."""
    text = read_file(path, "file of tokens", MAX_TOKENS).decode("utf-8", "replace")
    rows = list(csv.reader(io.StringIO(text)))
    if not rows or rows[0] != ["controllerId", "securityToken"]:
        raise ToolError("TOKENS", f"{path} does not begin with the line controllerId,securityToken.")
    found: dict[str, str] = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != 2 or not row[0] or not 16 <= len(row[1]) <= 128 or row[0] in found:
            raise ToolError("TOKENS", f"Line {number} of {path} is no device with a token of 16 to 128 characters.")
        found[row[0]] = row[1]
    return found


def write_tokens(path: Path, tokens: Mapping[str, str]) -> None:
    """The same file, in one step, readable by its owner only."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["controllerId", "securityToken"])
    writer.writerows(sorted(tokens.items()))
    write_atomic(path, out.getvalue(), 0o600)


class Patient(Api):
    """The same client, for many requests: waits and asks again where a server asks for patience (429, 503)."""

    pause = FIRST_PAUSE

    def request(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, bytes]:
        """As `Api.request`; a request that was put off has not been done, so any may be made again."""
        for attempt in range(TRIES):
            status, data = super().request(method, path, body, kind)
            if status not in (429, 503):
                break
            time.sleep(self.pause * 2**attempt)
        return status, data


class Migration:
    """One run from *source* to *to*.

    *known*: tokens that devices have already, by controller id. *new_tokens*: file of the tokens that are made here,
    read first when it exists (an earlier run broke off). *dry*: nothing is changed, on either side or on disk. *say*
    hears what is done. Raises ToolError as `Api` does, CONFLICT where the other server has something else under the
    same name.
    """

    def __init__(
        self,
        source: Api,
        to: Api,
        known: Mapping[str, str],
        new_tokens: Path,
        dry: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.source = source
        self.to = to
        self.known = known
        self.file = new_tokens
        self.dry = dry
        self.say = say
        self.made = read_tokens(new_tokens) if new_tokens.exists() else {}
        self.moved = Moved(dry)
        self.untouched: set[str] = set()
        """Devices of which the other server knows nothing of its own yet."""

    def run(self) -> Moved:
        """Move everything."""
        if self.source.url == self.to.url:
            raise ToolError("USAGE", "Source and target are the same server.")
        self._look_around()
        modules = {
            int(one["id"]): self._module(one) for one in self.source.everything("/softwaremodules", sort="id:ASC")
        }
        sets = [(one, self._set(one, modules)) for one in self.source.everything("/distributionsets", sort="id:ASC")]
        self._devices()
        for one, number in sets:
            self._installed(one, number)
        return self.moved

    def _made(self, path: str, body: dict[str, Any], same: tuple[str, ...]) -> tuple[int | None, bool]:
        """The id of what has the same members *same*, made if it is not there (None in a dry run); whether it was."""
        wanted = ";".join(f"{name}=={quoted(body[name])}" for name in ("name", "version"))
        for entry in self.to.call("GET", path, q=wanted)["content"]:
            if all(entry[name] == body[name] for name in same):
                self.moved.there += 1
                return int(entry["id"]), True
        if self.dry:
            return None, False
        return int(self.to.call("POST", path, [body])[0]["id"]), False

    # -- what is looked at first -----------------------------------------------------------------
    def _look_around(self) -> None:
        """Both servers answer; what would surprise afterwards is said now."""
        warn = self.moved.warnings.append
        enabled = self.to.call("GET", TOKEN_SETTING)
        if not (isinstance(enabled, dict) and enabled.get("value")):
            warn("The other server takes no target tokens: switch authentication.targettoken.enabled on.")
        busy = [
            one for one in self.source.everything("/rollouts") if one["status"] in ("running", "paused", "stopping")
        ]
        if busy:
            names = ", ".join(one["name"] for one in busy)[:200]
            warn(f"Rollouts are not moved, and {len(busy)} have not ended: {names}.")
        pending = self.source.call("GET", "/targets", q="updatestatus==pending", limit=1)["total"]
        if pending:
            warn(f"{pending} devices have an open update, which is not moved: assign it again on the other server.")

    # -- releases --------------------------------------------------------------------------------
    def _module(self, module: dict[str, Any]) -> int | None:
        body = {name: module[name] for name in ("name", "version", "type")}
        body |= {name: module[name] for name in ("vendor", "description") if module.get(name)}
        number, known = self._made("/softwaremodules", body, ("name", "version", "type"))
        self.moved.modules += not known
        there: dict[str, Any] = {}
        if number is not None:
            there = {
                one["providedFilename"]: one for one in self.to.call("GET", f"/softwaremodules/{number}/artifacts")
            }
        for artifact in self.source.call("GET", f"/softwaremodules/{module['id']}/artifacts"):
            self._artifact(module, artifact, number, there.get(artifact["providedFilename"]))
        self._metadata(f"/softwaremodules/{module['id']}", None if number is None else f"/softwaremodules/{number}")
        return number

    def _artifact(
        self, module: dict[str, Any], artifact: dict[str, Any], number: int | None, there: dict[str, Any] | None
    ) -> None:
        name, digest = artifact["providedFilename"], artifact["hashes"]["sha256"]
        what = f"{module['name']} {module['version']}: {name}"
        if there is not None:
            # hawkBit has no SHA-256 of artifacts that came before it made them.
            if there["hashes"].get("sha256") not in (None, digest):
                raise ToolError("CONFLICT", f"The other server has another {what}; rename one of the two.")
            self.moved.there += 1
            return
        self.moved.artifacts += 1
        self.moved.bytes += int(artifact["size"])
        if self.dry:
            return
        data = self.source.download(f"/softwaremodules/{module['id']}/artifacts/{artifact['id']}/download")
        if hashlib.sha256(data).hexdigest() != digest:
            raise ToolError("ARTIFACT", f"{what} came from the source with another SHA-256.")
        self.to.upload(number or 0, name, data, digest)
        self.say(f"{what}, {len(data)} bytes")

    def _metadata(self, of: str, to: str | None) -> None:
        """Notes at *of* that are missing at *to*."""
        pairs = self.source.call("GET", f"{of}/metadata")["content"]
        if not pairs:
            return
        known = set() if to is None else {one["key"] for one in self.to.call("GET", f"{to}/metadata")["content"]}
        fresh = [
            {name: one[name] for name in ("key", "value", "targetVisible") if name in one}
            for one in pairs
            if one["key"] not in known
        ]
        self.moved.there += len(pairs) - len(fresh)
        self.moved.notes += len(fresh)
        if fresh and not self.dry:
            self.to.call("POST", f"{to}/metadata", fresh)

    def _set(self, one: dict[str, Any], modules: Mapping[int, int | None]) -> int | None:
        body = {name: one[name] for name in ("name", "version", "type")}
        body |= {
            "description": one.get("description") or "",
            "requiredMigrationStep": bool(one["requiredMigrationStep"]),
        }
        parts = [modules[int(part["id"])] for part in one["modules"]]
        body["modules"] = [{"id": part} for part in parts]
        number, known = self._made("/distributionsets", body, ("name", "version"))
        if known:
            there = {
                int(part["id"]) for part in self.to.call("GET", f"/distributionsets/{number}/assignedSM")["content"]
            }
            if there != set(parts):
                raise ToolError("CONFLICT", f"The other server has another {one['name']} {one['version']}.")
        else:
            self.moved.sets += 1
            self.say(f"release {one['name']} {one['version']}")
        return number

    # -- devices ---------------------------------------------------------------------------------
    def _devices(self) -> None:
        there = {one["controllerId"]: one for one in self.to.everything("/targets")}
        fresh: list[dict[str, Any]] = []
        everyone: list[dict[str, Any]] = []
        for one in self.source.everything("/targets", sort="id:ASC"):
            if one["updateStatus"] == "decommissioned":
                self.moved.warnings.append(f"{one['controllerId']} is decommissioned and stays behind.")
                continue
            name = one["controllerId"]
            everyone.append(one)
            if name not in there:
                fresh.append(one)
            else:
                self.moved.there += 1
            if name not in there or there[name]["updateStatus"] in ("unknown", "registered"):
                self.untouched.add(name)
        for at in range(0, len(fresh), AT_ONCE):
            self._register(fresh[at : at + AT_ONCE])
        names = [one["controllerId"] for one in everyone]
        self.moved.new_tokens = sorted(name for name in names if name in self.made)
        for one in everyone:
            path = target_path(one["controllerId"])
            was = there.get(one["controllerId"])
            self._metadata(path, path if was or not self.dry else None)
            if one.get("autoConfirmActive") and not (was and was.get("autoConfirmActive")):
                self.moved.notes += 1
                if not self.dry:
                    self.to.call("POST", f"{path}/autoConfirm/activate", {"remark": "moved from another server"})

    def _register(self, fresh: list[dict[str, Any]]) -> None:
        tokens: dict[str, str] = {}
        for one in fresh:
            name = one["controllerId"]
            tokens[name] = self.known.get(name) or self.made.get(name) or secrets.token_hex(32)
        made = {name: token for name, token in tokens.items() if name not in self.known}
        self.made |= made
        self.moved.devices += len(fresh)
        if self.dry:
            return
        if made:
            write_tokens(self.file, self.made)  # before anybody else knows them: none is ever lost
        body = [
            {
                "controllerId": one["controllerId"],
                "name": one["name"],
                "description": one.get("description") or "",
                "securityToken": tokens[one["controllerId"]],
            }
            for one in fresh
        ]
        self.to.call("POST", "/targets", body)
        self.say(f"{len(body)} devices, {body[0]['controllerId']} to {body[-1]['controllerId']}")

    def _installed(self, one: dict[str, Any], number: int | None) -> None:
        """What runs where is noted at the other server; never of a device that has reported to it already."""
        wanted = f"installedds.name=={quoted(one['name'])};installedds.version=={quoted(one['version'])}"
        running = (target["controllerId"] for target in self.source.everything("/targets", q=wanted))
        names = [name for name in running if name in self.untouched]
        self.moved.installed += len(names)
        if self.dry:
            return
        for at in range(0, len(names), AT_ONCE):
            body = [{"id": name} for name in names[at : at + AT_ONCE]]
            self.to.call("POST", f"/distributionsets/{number}/assignedTargets", body, offline="true")
            self.say(f"{len(body)} devices run {one['name']} {one['version']}")
