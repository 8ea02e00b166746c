"""Software bills of materials in CycloneDX 1.6 (ECMA-424): what a release holds, and what the desk itself runs on.

A release's list names only what can be seen: the MicroPython and ESP-IDF versions that the firmware tells, the frozen
modules, our device code, the files of the application. The C libraries inside MicroPython and ESP-IDF carry no versions
of their own in the image; they are part of these two and are looked up by them.

The same inputs give the same bytes: no time goes in, and the serial number follows from the content.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.contact import OrganizationalEntity
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from . import device_code, imagefile, libraries
from .errors import ToolError
from .files import read_file

if TYPE_CHECKING:
    from .release import Component as ReleaseComponent

SUFFIX = ".cdx.json"
MAX_SBOM = 4 << 20
_NAMES = re.compile(rb"(?:[A-Za-z0-9_][A-Za-z0-9_./-]{0,99}\.py\0){2,}")
_COMMIT = re.compile(r"-g([0-9a-f]{7,40})")
_VERSION = re.compile(r"v?(\d+(?:\.\d+)*)")
_REQUIRED = re.compile(r"[A-Za-z0-9._-]+")


def frozen_modules(image: bytes) -> tuple[str, ...]:
    """The names of the Python modules frozen into a MicroPython image, as its own table lists them."""
    return tuple(sorted({name.decode() for run in _NAMES.findall(image) for name in run.split(b"\0") if name}))


def _hash(data: bytes) -> list[HashType]:
    return [HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(data).hexdigest())]


def _file(name: str, data: bytes | None = None, said: Mapping[str, str] | None = None) -> Component:
    return Component(
        name=name,
        type=ComponentType.FILE,
        hashes=[] if data is None else _hash(data),
        properties=_properties(said or {}),
    )


def _properties(values: Mapping[str, str]) -> list[Property]:
    return [Property(name=f"sekisho:{name}", value=value) for name, value in values.items()]


def _github(owner: str, name: str, version: str | None, kind: ComponentType, **said: str) -> Component:
    purl = PackageURL("github", owner, name, f"v{version}" if version else None)
    return Component(name=name, type=kind, version=version, purl=purl, properties=_properties(said))


def _number(version: str) -> str | None:
    found = _VERSION.match(version)
    return found[1] if found else None


def _device_sources() -> dict[str, bytes]:
    return {
        path.relative_to(root.parent).as_posix(): path.read_bytes()
        for root in (device_code.BOOT / "sekisho_boot", device_code.LIB / "sekisho")
        for path in sorted(root.rglob("*.py"))
    }


def _own_version() -> str:
    """The version of the device code of this checkout."""
    found = re.search(r'^__version__ = "([^"]+)"', (device_code.LIB / "sekisho" / "__init__.py").read_text(), re.M)
    return found[1] if found else "0"


def _sekisho(frozen: Sequence[str] | None) -> Component:
    """Our device code: *frozen* names the modules seen in an image (hashes are of this checkout's sources)."""
    sources = _device_sources()
    names = [name for name in sources if frozen is None or name in frozen]
    return Component(
        name="sekisho",
        type=ComponentType.LIBRARY,
        version=_own_version(),
        purl=PackageURL("pypi", None, "sekisho", _own_version()),
        components=[_file(name, sources[name], {"hash-of": "source"}) for name in names],
    )


def _libraries(frozen: Sequence[str] | None) -> list[Component]:
    """The libraries of others that were bundled with our device code (hashes are of the package's source)."""
    return [
        Component(
            name=one.name,
            type=ComponentType.LIBRARY,
            version=one.version,
            purl=PackageURL("pypi", None, one.name, one.version),
            hashes=_hash(libraries.source(one)),
            properties=_properties({"licence": one.licence, "hash-of": "source", "bundled": one.file}),
        )
        for one in libraries.LIBRARIES
        if frozen is None or f"{one.name}.py" in frozen
    ]


def _firmware(data: bytes) -> list[Component]:
    image = imagefile.parse(data)
    banner = image.micropython or ""
    commit = _COMMIT.search(banner)
    said = {"banner": banner, **({"commit": commit[1]} if commit else {})} if banner else {}
    frozen = frozen_modules(image.data)
    micropython = _github("micropython", "micropython", _number(banner), ComponentType.FIRMWARE, **said)
    bundled = [f"{one.name}.py" for one in libraries.LIBRARIES]
    micropython.components = [
        _file(name) for name in frozen if not name.startswith(("sekisho/", "sekisho_boot/")) and name not in bundled
    ]
    found = [micropython, _github("espressif", "esp-idf", _number(image.idf), ComponentType.PLATFORM, banner=image.idf)]
    return [*found, _sekisho(frozen), *_libraries(frozen)] if "sekisho_boot/engine.py" in frozen else found


def for_release(
    vendor: str, name: str, version: str, components: Iterable[ReleaseComponent], *, stock: bool = False
) -> bytes:
    """The SBOM of a release as JSON. *stock*: the device code lies on the device's own file system, unchanged."""
    from .flashimage import read_littlefs

    parts = []
    for part in components:
        held = Component(
            name=part.name,
            type=ComponentType.FIRMWARE if part.name == "fw" else ComponentType.APPLICATION,
            version=version,
            hashes=_hash(part.data),
            properties=_properties({"content": part.words} if part.words else {}),
        )
        inside = (
            _firmware(part.data)
            if part.name == "fw"
            else [_file(*item) for item in (read_littlefs(part.data) or {}).items()]
        )
        held.components = inside
        parts.append(held)
    if stock:
        parts += [_sekisho(None), *_libraries(None)]
    product = Component(
        name=name, type=ComponentType.FIRMWARE, version=version, supplier=OrganizationalEntity(name=vendor)
    )
    return _render(product, parts)


def for_host(distribution: str = "sekisho") -> bytes:
    """The SBOM of the installed desk tools: *distribution* and everything that it pulls in on this machine."""
    found = {name: _installed(name) for name in _closure(distribution)}
    found.pop(_plain(distribution), None)
    version = _own_version() if distribution == "sekisho" else _version_of(distribution)
    purl = PackageURL("pypi", None, distribution, version)
    own = Component(name=distribution, type=ComponentType.APPLICATION, version=version, purl=purl)
    return _render(own, list(found.values()))


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _closure(distribution: str) -> list[str]:
    """Names of *distribution* and all that it needs, as far as they are installed; extras count when they are."""
    wanted, seen = [distribution], {}
    while wanted:
        name = _plain(wanted.pop())
        if name in seen:
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            if name == _plain(distribution):
                needs = _declared()
            else:
                continue
        seen[name] = True
        for line in needs:
            found = _REQUIRED.match(line)
            if found and not ("extra ==" in line and name != _plain(distribution)):
                wanted.append(found[0])
    return sorted(seen)


def _declared() -> list[str]:
    """What pyproject.toml of a plain checkout asks for, where Sekisho itself is not installed."""
    import tomllib

    path = Path(__file__).parents[2] / "pyproject.toml"
    project = tomllib.loads(path.read_text())["project"] if path.exists() else {}
    extras = [line for lines in project.get("optional-dependencies", {}).values() for line in lines]
    return [*project.get("dependencies", []), *extras]


def licence(name: str) -> str:
    """What an installed distribution says of its licence, in its own words, or ``unknown``."""
    try:
        info = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return "unknown"
    expression = (info.get_all("License-Expression") or [""])[0]
    classes = [line.rsplit(" :: ", 1)[-1] for line in info.get_all("Classifier") or [] if line.startswith("License ::")]
    text = (info.get_all("License") or [""])[0].strip().splitlines()
    return expression or ", ".join(classes) or (text[0][:80] if text else "unknown")


def licences(distribution: str = "sekisho") -> list[tuple[str, str, str]]:
    """(name, version, licence) of everything `for_host` names."""
    return [(name, _version_of(name), licence(name)) for name in _closure(distribution)]


def _version_of(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "0"


def _installed(name: str) -> Component:
    version = _version_of(name)
    return Component(
        name=name,
        type=ComponentType.LIBRARY,
        version=version,
        purl=PackageURL("pypi", None, name, version),
        properties=_properties({"licence": licence(name)}),
    )


def _render(product: Component, parts: Sequence[Component]) -> bytes:
    """The document, without a time, with ids that follow from the content."""
    bom = Bom(components=parts)
    bom.metadata.component = product
    _number_all([product, *parts], "")
    bom.register_dependency(product, parts)
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    document.get("metadata", {}).pop("timestamp", None)
    document.pop("serialNumber", None)
    plain = json.dumps(document, sort_keys=True, ensure_ascii=False)
    document["serialNumber"] = f"urn:uuid:{uuid5(NAMESPACE_URL, plain)}"
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _number_all(components: Iterable[Component], before: str) -> None:
    for component in components:
        component.bom_ref.value = f"{before}{component.name}"
        _number_all(component.components, f"{before}{component.name}/")


# -- reading ------------------------------------------------------------------------------------------------------


def read(path: Path) -> bytes:
    """The SBOM in the file *path*; ToolError FILE or SBOM when it is no CycloneDX JSON document."""
    data = read_file(path, "SBOM", MAX_SBOM)
    parse(data, str(path))
    return data


def parse(data: bytes, what: str = "The SBOM") -> dict[str, Any]:
    """The CycloneDX document in *data*, its shape checked as far as anything here reads it. ToolError SBOM."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as problem:
        raise ToolError("SBOM", f"{what} is no JSON document: {problem}.") from problem
    good = (
        isinstance(document, dict)
        and document.get("bomFormat") == "CycloneDX"
        and str(document.get("specVersion")) in ("1.4", "1.5", "1.6", "1.7")
        and isinstance(document.get("metadata", {}), dict)
        and isinstance(document.get("metadata", {}).get("component", {}), dict)
        and _good_components(document.get("components", []), 8)
        and _good_components([{"name": "", **document.get("metadata", {}).get("component", {})}], 8)
        and _good_vulnerabilities(document.get("vulnerabilities", []))
    )
    if not good:
        raise ToolError("SBOM", f"{what} is no CycloneDX document of version 1.4 to 1.7.")
    return dict(document)


def _good_vulnerabilities(items: Any) -> bool:
    return isinstance(items, list) and all(
        isinstance(one, dict)
        and isinstance(one.get("id", ""), str)
        and isinstance(one.get("analysis", {}), dict)
        and isinstance(one.get("analysis", {}).get("state", ""), str)
        and isinstance(one.get("ratings", []), list)
        and all(isinstance(each, dict) and isinstance(each.get("severity", ""), str) for each in one.get("ratings", []))
        for one in items
    )


def _good_components(items: Any, depth: int) -> bool:
    return (
        depth > 0
        and isinstance(items, list)
        and all(
            isinstance(one, dict)
            and isinstance(one.get("name"), str)
            and all(isinstance(one.get(key, ""), str) for key in ("version", "purl"))
            and isinstance(one.get("hashes", []), list)
            and all(isinstance(each, dict) and {"alg", "content"} <= set(each) for each in one.get("hashes", []))
            and _good_components(one.get("components", []), depth - 1)
            for one in items
        )
    )


def components(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every component of a document, nested ones included."""
    found: list[dict[str, Any]] = []
    waiting = list(document.get("components", []))
    while waiting:
        one = waiting.pop(0)
        found.append(one)
        waiting += one.get("components", [])
    return found


def hashes(document: Mapping[str, Any]) -> set[str]:
    """Every SHA-256 (hex) that the document names."""
    everything = [document.get("metadata", {}).get("component", {}), *components(document)]
    return {one["content"].lower() for part in everything for one in part.get("hashes", []) if one["alg"] == "SHA-256"}
