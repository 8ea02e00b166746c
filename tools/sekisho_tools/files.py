"""Reading and writing files so that the user is told what is wrong and nothing is ever half-written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .errors import ToolError

MAX_READ = 64 << 20
"""Largest file that a command reads as a whole, in bytes: four times the largest flash Sekisho has a layout for."""


def why(error: OSError) -> str:
    """The plain words of an operating-system error, for example ``no such file or directory``."""
    return (error.strerror or str(error)).lower()


def read_file(path: str | os.PathLike[str], what: str = "file", limit: int = MAX_READ) -> bytes:
    """Return the bytes of *path*; *what* names its role in the message (``"firmware"``, ``"key set"``).

    Raises ToolError FILE when it cannot be read and FILE_TOO_LARGE when it has more than *limit* bytes.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ToolError("FILE", f"Cannot read the {what} {os.fspath(path)}: {why(error)}.") from error
    if len(data) > limit:
        raise ToolError(
            "FILE_TOO_LARGE", f"The {what} {os.fspath(path)} has more than {limit} bytes, which is no {what}."
        )
    return data


def require_new(path: Path) -> None:
    """Refuse with FILE_EXISTS where there is a file already."""
    if path.exists():
        raise ToolError("FILE_EXISTS", f"{path} exists already; name another file.")


def write_atomic(path: str | os.PathLike[str], data: bytes | str, mode: int = 0o644) -> Path:
    """Write *data* (text as UTF-8) to *path* in one step: whoever looks sees the old file or the whole new one.

    The bytes go to a temporary file in the same directory, are synced, then renamed over *path*. Missing parent
    directories are made. *mode* is the permission of the new file (0o600 for secrets; it is never wider, not even for
    a moment). Raises ToolError FILE when the file system refuses; then *path* is as it was.
    """
    path = Path(path)
    content = data.encode() if isinstance(data, str) else data
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        temporary = None
        _sync_directory(path.parent)
    except OSError as error:
        raise ToolError("FILE", f"Cannot write {path}: {why(error)}.") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
    return path


def _sync_directory(directory: Path) -> None:
    """Make a rename in *directory* last through a power cut; file systems without directory handles are left alone."""
    try:
        handle = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        return
    finally:
        os.close(handle)
