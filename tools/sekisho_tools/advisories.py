"""Known vulnerabilities, offline: advisories in the OSV format (ossf.github.io/osv-schema) held against an SBOM.

A component is looked up by the ecosystem and name of its package URL. `GitHub` stands for what has no package index:
MicroPython and ESP-IDF (``github.com/micropython/micropython``). An advisory without a severity counts as critical,
since nobody has said that it is harmless.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packageurl import PackageURL

from .errors import ToolError
from .files import read_file

SEVERITIES = ("low", "medium", "high", "critical")
MAX_ADVISORY = 64 << 20
_ECOSYSTEMS = {"pypi": "pypi", "npm": "npm", "github": "github"}


@dataclass(frozen=True)
class Found:
    """An advisory that concerns a component of an SBOM."""

    advisory: str
    component: str
    version: str
    severity: str
    summary: str

    def __str__(self) -> str:
        return f"{self.component} {self.version}: {self.advisory} ({self.severity}) {self.summary}".rstrip()


def load(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The advisories in *paths*: OSV JSON files, each one advisory or an array of them, or directories of such files.

    Raises ToolError FILE, or ADVISORIES for a file that is none, so that a broken download is not taken for good news.
    """
    found: list[dict[str, Any]] = []
    for path in paths:
        files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        if not files:
            raise ToolError("ADVISORIES", f"There is no advisory (*.json) in {path}.")
        for file in files:
            try:
                content = json.loads(read_file(file, "advisory", MAX_ADVISORY))
            except (ValueError, RecursionError) as error:
                raise ToolError("ADVISORIES", f"{file} is no JSON: {error}.") from error
            items = content if isinstance(content, list) else [content]
            for item in items:
                if not isinstance(item, dict) or "id" not in item or not isinstance(item.get("affected", []), list):
                    raise ToolError("ADVISORIES", f"{file} is no advisory in the OSV format.")
                found.append(item)
    return found


def check(components: Iterable[Mapping[str, Any]], advisories: Sequence[Mapping[str, Any]]) -> list[Found]:
    """Every advisory that concerns one of the CycloneDX *components*, sorted."""
    by_package: dict[tuple[str, str], list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for advisory in advisories:
        if advisory.get("withdrawn"):
            continue
        for affected in advisory.get("affected", []):
            for package in _packages(affected):
                by_package.setdefault(package, []).append((advisory, affected))
    found = set()
    for component in components:
        if "purl" not in component:
            continue
        purl = PackageURL.from_string(component["purl"])
        version = (component.get("version") or purl.version or "").removeprefix("v")
        for advisory, affected in by_package.get(_key(purl), []):
            if not version or concerns(affected, version):
                severity = severity_of(advisory, affected)
                summary = str(advisory.get("summary", ""))
                found.add(Found(str(advisory["id"]), component["name"], version or "unknown", severity, summary))
    return sorted(found, key=str)


def _key(purl: PackageURL) -> tuple[str, str]:
    name = "/".join(part for part in (purl.namespace, purl.name) if part)
    plain = re.sub(r"[-_.]+", "-", name) if purl.type == "pypi" else name
    return _ECOSYSTEMS.get(purl.type, purl.type), plain.lower()


def _packages(affected: Mapping[str, Any]) -> set[tuple[str, str]]:
    """(ecosystem, name) of what is affected: by package, by package URL, by the repository of a range."""
    package = affected.get("package") or {}
    found = set()
    if package.get("purl"):
        with contextlib.suppress(ValueError):
            found.add(_key(PackageURL.from_string(package["purl"])))
    if package.get("ecosystem") and package.get("name"):
        kind = str(package["ecosystem"]).partition(":")[0].lower()
        name = str(package["name"]).lower().removeprefix("https://").removeprefix("github.com/")
        kind = "github" if kind in ("github", "git") else kind
        found.add((kind, re.sub(r"[-_.]+", "-", name) if kind == "pypi" else name))
    for span in affected.get("ranges", []):
        repository = re.fullmatch(r"https://github\.com/([^/]+/[^/]+?)(?:\.git)?/?", str(span.get("repo", "")))
        if repository:
            found.add(("github", repository[1].lower()))
    return found


def order(version: str) -> list[tuple[int, str]]:
    """A key by which versions of any common scheme sort well enough: numbers by value, words before numbers.

    1.2 = 1.2.0 < 1.10, and 1.2rc1 < 1.2 < 1.2.1.
    """
    parts = re.findall(r"\d+|[a-z]+", version.lower().removeprefix("v").partition("+")[0])
    words = next((place for place, part in enumerate(parts) if not part.isdigit()), len(parts))
    while words and parts[words - 1].strip("0") == "":
        del parts[words - 1]
        words -= 1
    return [*((1 + int(part), "") if part.isdigit() else (-1, part) for part in parts if part != "post"), (0, "")]


def before(one: str, other: str) -> bool:
    """Whether version *one* comes before *other*."""
    return order(one) < order(other)


def concerns(affected: Mapping[str, Any], version: str) -> bool:
    """Whether *version* is affected (OSV schema, "evaluation"); commits of a Git range cannot be judged and count."""
    listed = affected.get("versions", [])
    if any(not before(version, str(one)) and not before(str(one), version) for one in listed):
        return True
    ranges = affected.get("ranges", [])
    if not ranges:
        return not listed
    spans = [span for span in ranges if span.get("type") != "GIT"]
    if not spans:
        return not listed
    return any(_within(span.get("events", []), version) for span in spans)


def _within(events: Sequence[Mapping[str, str]], version: str) -> bool:
    inside = False
    marks = [(kind, str(at)) for event in events for kind, at in event.items()]
    for kind, at in sorted(marks, key=lambda mark: [(-2, "")] if mark[1] == "0" else order(mark[1])):
        if kind == "introduced" and (at == "0" or not before(version, at)):
            inside = True
        elif (kind == "fixed" and not before(version, at)) or (kind == "last_affected" and before(at, version)):
            inside = False
    return inside


def severity_of(advisory: Mapping[str, Any], affected: Mapping[str, Any]) -> str:
    """One of SEVERITIES: the worst of what the advisory says, ``critical`` when it says nothing that can be read."""
    found = []
    for item in [*advisory.get("severity", []), *affected.get("severity", [])]:
        if str(item.get("type")) == "CVSS_V3":
            score = cvss3(str(item.get("score", "")))
            if score is not None:
                found.append("low" if score < 4 else "medium" if score < 7 else "high" if score < 9 else "critical")
    words = [str((part.get("database_specific") or {}).get("severity", "")).lower() for part in (advisory, affected)]
    found += ["medium" if word == "moderate" else word for word in words]
    known = [word for word in found if word in SEVERITIES]
    return max(known, key=SEVERITIES.index) if known else "critical"


_METRICS: dict[str, dict[str, float]] = {
    "AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2},
    "AC": {"L": 0.77, "H": 0.44},
    "UI": {"N": 0.85, "R": 0.62},
    "C": {"H": 0.56, "L": 0.22, "N": 0.0},
    "I": {"H": 0.56, "L": 0.22, "N": 0.0},
    "A": {"H": 0.56, "L": 0.22, "N": 0.0},
}
_PRIVILEGES = {"U": {"N": 0.85, "L": 0.62, "H": 0.27}, "C": {"N": 0.85, "L": 0.68, "H": 0.5}}


def cvss3(vector: str) -> float | None:
    """The base score of a CVSS 3.0 or 3.1 vector (FIRST, section 7.1), or None when it is none."""
    parts = dict(part.partition(":")[::2] for part in vector.split("/"))
    try:
        value = {name: table[parts[name]] for name, table in _METRICS.items()}
        scope = parts["S"]
        privileges = _PRIVILEGES[scope][parts["PR"]]
    except KeyError:
        return None
    base = 1 - (1 - value["C"]) * (1 - value["I"]) * (1 - value["A"])
    impact = 6.42 * base if scope == "U" else 7.52 * (base - 0.029) - 3.25 * (base - 0.02) ** 15
    if impact <= 0:
        return 0.0
    exploit = 8.22 * value["AV"] * value["AC"] * privileges * value["UI"]
    total = min(impact + exploit if scope == "U" else 1.08 * (impact + exploit), 10)
    whole = round(total * 100_000)
    return whole / 100_000 if whole % 10_000 == 0 else (math.floor(whole / 10_000) + 1) / 10
