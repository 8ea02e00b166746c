"""A consistent copy of a data directory while the server runs."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

from ..errors import ToolError
from ..files import why
from . import options
from .store import ARTIFACTS, FILE


def copy(data: Path, to: Path) -> int:
    """Copy *data* to *to*, which must not exist; it appears whole or not at all. Returns the number of artifacts.

    Raises ToolError FILE, DATABASE.
    """
    if not (data / FILE).exists():
        raise ToolError("FILE", f"{data} holds no server data.")
    if to.exists():
        raise ToolError("FILE", f"{to} exists already; name a new directory.")
    temporary = None
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.parent))
        names = _database(data / FILE, temporary / FILE)
        (temporary / ARTIFACTS).mkdir(mode=0o700)
        for name in names:
            # Artifacts never change, so a second name for the same file is a copy where the file system can do that.
            try:
                os.link(data / ARTIFACTS / name, temporary / ARTIFACTS / name)
            except OSError:
                shutil.copyfile(data / ARTIFACTS / name, temporary / ARTIFACTS / name)
        if (data / options.NAME).exists():
            shutil.copy(data / options.NAME, temporary / options.NAME)
        temporary.rename(to)
        temporary = None
    except sqlite3.Error as error:
        raise ToolError("DATABASE", f"The database cannot be copied: {error}.") from error
    except OSError as error:
        raise ToolError("FILE", f"Cannot copy to {to}: {why(error)}.") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return len(names)


def _database(source: Path, copied: Path) -> list[str]:
    """Copy and check the database; returns the artifacts it names."""
    os.close(os.open(copied, os.O_CREAT | os.O_RDWR, 0o600))
    with sqlite3.connect(f"file:{source}?mode=ro", uri=True) as old, sqlite3.connect(copied) as new:
        old.backup(new)
    old.close()
    new.execute("PRAGMA journal_mode=WAL")
    if new.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
        raise ToolError("DATABASE", f"The database {source} is damaged.")
    # Whoever needs the copy is behind its devices: it asks each of them what it runs by now.
    with new:
        new.execute("UPDATE target SET request_attributes = 1")
    names = [row[0] for row in new.execute("SELECT DISTINCT sha256 FROM artifact")]
    new.close()
    return names
