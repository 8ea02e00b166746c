"""Tells the update server which devices there are, through hawkBit's management API (``POST /rest/v1/targets``).

The embedded server and Eclipse hawkBit speak it both. A device is registered with its logical id as `controllerId` and
its enrolment token as `securityToken`.
"""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from .errors import ToolError
from .files import why
from .issued import IssuingRecord

TIMEOUT = 30
"""Seconds to wait for the server."""
MAX_ANSWER = 4 << 20
AT_ONCE = 100
"""Devices in one request."""
_JSON = "application/json"


@dataclass(frozen=True)
class Server:
    """A management API: base *url*, and the *user* with *password* who may create targets. *ca* is a PEM file."""

    url: str
    user: str
    password: str
    ca: str | None = None

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """(HTTP status, JSON answer or None). Raises ToolError SERVER or NETWORK."""
        parts = urlsplit(self.url)
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ToolError(
                "SERVER", f"{self.url!r} is no address of a server, for example https://updates.example.com."
            )
        if parts.scheme == "http" and not local:
            raise ToolError("SERVER", "Passwords and tokens go over https only (or to this very computer).")
        login = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        request = urllib.request.Request(  # noqa: S310 (http and https only, see above)
            self.url.rstrip("/") + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Authorization": f"Basic {login}", "Accept": _JSON, "Content-Type": _JSON},
        )
        context = ssl.create_default_context(cafile=self.ca) if parts.scheme == "https" else None
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT, context=context) as answer:  # noqa: S310
                return answer.status, _json(answer.read(MAX_ANSWER))
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _json(error.read(MAX_ANSWER))
        except (urllib.error.URLError, TimeoutError, OSError) as error:
            reason = getattr(error, "reason", error)
            text = why(reason) if isinstance(reason, OSError) else str(reason)
            raise ToolError("NETWORK", f"The server {self.url} cannot be reached: {text}.") from error


def _json(data: bytes) -> Any:
    try:
        return json.loads(data) if data else None
    except (ValueError, RecursionError):
        return None


def register(server: Server, devices: Sequence[tuple[IssuingRecord, str]]) -> int:
    """Register *devices* (record, enrolment token); returns how many were new.

    A device that the server knows already is an error unless its record says the same chip and batch, so that a run
    that broke off can be repeated. Raises ToolError SERVER, NETWORK, TARGET_EXISTS, FORBIDDEN.
    """
    fresh = [(record, token) for record, token in devices if not _known(server, record)]
    for at in range(0, len(fresh), AT_ONCE):
        body = [_target(record, token) for record, token in fresh[at : at + AT_ONCE]]
        status, answer = server.call("POST", "/rest/v1/targets", body)
        if status != 201:
            raise _refused(server, status, answer)
    return len(fresh)


def _target(record: IssuingRecord, token: str) -> dict[str, str]:
    return {
        "controllerId": record.id,
        "name": f"{record.product or 'device'} {record.physical or record.id}",
        "description": _words(record),
        "securityToken": token,
    }


def _words(record: IssuingRecord) -> str:
    return f"chip {record.physical or 'unknown'}, batch {record.batch} number {record.number}"


def _known(server: Server, record: IssuingRecord) -> bool:
    status, answer = server.call("GET", f"/rest/v1/targets/{quote(record.id, safe='')}")
    if status == 404:
        return False
    if status != 200 or not isinstance(answer, dict):
        raise _refused(server, status, answer)
    if answer.get("description") != _words(record):
        raise ToolError(
            "TARGET_EXISTS", f"The server knows {record.id} already, and not as this device; look who registered it."
        )
    return True


def _refused(server: Server, status: int, answer: Any) -> ToolError:
    if status in (401, 403):
        return ToolError("FORBIDDEN", f"The server {server.url} does not let {server.user!r} register devices.")
    said = answer.get("message", "") if isinstance(answer, dict) else ""
    return ToolError("SERVER", f"The server {server.url} answered {status}{f' ({said})' if said else ''}.")
