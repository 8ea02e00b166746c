"""Fetches the files of a site: key sets, releases, payloads. Whoever asks verifies what comes."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from .errors import ToolError
from .files import why

TIMEOUT = 60
"""Seconds without a byte after which a download is given up."""
MAX_KEYSET = 8160
"""Bytes of a key set document (`sekisho_boot.keyset.MAX_KEYSET`)."""


def fetch(base: str, path: str, limit: int) -> bytes | None:
    """The body of ``base/path``, None where there is no such file. Raises ToolError NETWORK, SERVER, FILE_TOO_LARGE."""
    url = f"{base.rstrip('/')}/{path}"
    if urlsplit(url).scheme not in ("http", "https"):
        raise ToolError("SERVER", f"{base!r} is no address of a server, for example https://updates.example.com.")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310 (http and https only, see above)
            data: bytes = answer.read(limit + 1)
            announced = answer.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 404:
            return None
        raise ToolError("SERVER", f"{url} answered {error.code}.") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        raise ToolError(
            "NETWORK", f"{url} cannot be fetched: {why(reason) if isinstance(reason, OSError) else reason}."
        ) from error
    if len(data) > limit:
        raise ToolError("FILE_TOO_LARGE", f"{url} has more than {limit} bytes, which it should not.")
    if announced and announced.isdigit() and int(announced) != len(data):
        raise ToolError("NETWORK", f"{url} broke off after {len(data)} of {announced} bytes.")
    return data
