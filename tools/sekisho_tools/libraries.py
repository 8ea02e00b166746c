"""Libraries of others that go onto the device, from the packages that our requirements pin.

Each is one module, taken from the installed package, byte for byte, if it is the very file that was reviewed: its
SHA-256 stands here. It is compiled into the stock pack, frozen into the simulator's firmware and, through
`sekisho image libraries`, into the board's; its licence goes along, and the SBOM of a release names it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from .errors import ToolError
from .files import write_atomic


@dataclass(frozen=True)
class Library:
    """A module of somebody else: *file* in the package *name* is the module of that name on the device."""

    name: str
    version: str
    licence: str
    file: str
    digest: str


LIBRARIES = (
    Library(
        "microdot",
        "2.7.0",
        "MIT",
        "microdot/microdot.py",
        "d9e0bea681d15965e8c683f642e03536fbed34e0bc55fe5000324208924936c1",
    ),
)


@cache
def _files(library: Library) -> tuple[Path, str]:
    """(the module, the text of its licence) in the installed package."""
    try:
        package = metadata.distribution(library.name)
    except metadata.PackageNotFoundError as error:
        raise ToolError("LIBRARY", f"{library.name} is not installed; pip install {library.name}.") from error
    path = Path(str(package.locate_file(library.file)))
    found = [file for file in package.files or () if file.name.upper().startswith("LICEN")]
    if package.version != library.version or not path.is_file() or not found:
        raise ToolError(
            "LIBRARY", f"Devices get {library.name} {library.version}; {package.version} is installed on this machine."
        )
    return path, Path(str(found[0].locate())).read_text()


def source(library: Library) -> bytes:
    """The module's source. ToolError LIBRARY when the package is missing, or is not the one that was reviewed."""
    data = _files(library)[0].read_bytes()
    if hashlib.sha256(data).hexdigest() != library.digest:
        raise ToolError("LIBRARY", f"{library.file} is not the file that {library.name} {library.version} has.")
    return data


def write(directory: Path) -> list[Path]:
    """Put every module and its licence (``NAME.LICENSE``) into *directory*, for a firmware build; returns the files."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for library in LIBRARIES:
        for name, content in ((f"{library.name}.py", source(library)), (f"{library.name}.LICENSE", licence(library))):
            write_atomic(directory / name, content)
            written.append(directory / name)
    return written


def licence(library: Library) -> bytes:
    """The text of its licence."""
    return _files(library)[1].encode()
