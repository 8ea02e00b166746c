"""`server.toml` in the data directory: what only somebody with access to the machine may set. All of it optional."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ToolError
from ..files import read_file

NAME = "server.toml"


@dataclass(frozen=True)
class Limits:
    """Requests per second that one sender may make on average, and how many at once (``burst`` seconds' worth)."""

    address_reads: float = 200
    address_writes: float = 50
    device: float = 5
    burst: float = 10
    failures: float = 0.2
    """Failed authentications per second from one address, and a hundred times as many at once."""
    alarm: float = 1000
    """Refused requests (over a limit, or not authenticated) in a minute that somebody is told of; 0: nobody is."""


@dataclass(frozen=True)
class Login:
    """After ``attempts`` wrong passwords in a row an account is locked for ``seconds``, doubling up to ``longest``."""

    attempts: int = 5
    seconds: int = 30
    longest: int = 3600
    idle_minutes: int = 60
    """Minutes without a request after which a session ends."""
    longest_hours: int = 12
    """Hours after which a session ends in any case."""


@dataclass(frozen=True)
class Webhook:
    """Where notifications are posted as JSON; ``secret`` makes the HMAC-SHA-256 in ``X-Sekisho-Signature``."""

    url: str = ""
    secret: str = ""


@dataclass(frozen=True)
class Mail:
    """Where notifications are mailed; ``security`` is starttls, tls or none."""

    host: str = ""
    port: int = 587
    security: str = "starttls"
    user: str = ""
    password: str = ""
    sender: str = ""
    to: tuple[str, ...] = ()


@dataclass(frozen=True)
class Options:
    """Everything in the file. ``url`` is the address that devices see (behind a proxy), without a slash at the end."""

    url: str = ""
    proxies: tuple[str, ...] = ()
    """Addresses of proxies whose X-Forwarded-For and -Proto are believed."""
    limits: Limits = field(default_factory=Limits)
    login: Login = field(default_factory=Login)
    webhook: Webhook = field(default_factory=Webhook)
    mail: Mail = field(default_factory=Mail)


def _fill(kind: Any, values: dict[str, Any], where: str) -> Any:
    known = {item.name: item for item in dataclasses.fields(kind)}
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise ToolError("OPTIONS", f"{NAME} has no option {where}{name}; see docs/server.md.")
        default = getattr(kind(), name)
        if dataclasses.is_dataclass(default):
            if not isinstance(value, dict):
                raise ToolError("OPTIONS", f"{where}{name} in {NAME} must be a table: [{name}].")
            found[name] = _fill(type(default), value, f"{name}.")
        elif isinstance(default, tuple):
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise ToolError("OPTIONS", f"{where}{name} in {NAME} must be a list of texts.")
            found[name] = tuple(value)
        elif isinstance(default, float | int) and not isinstance(default, bool):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e9:
                raise ToolError("OPTIONS", f"{where}{name} in {NAME} must be a number, not below 0.")
            found[name] = value
        elif not isinstance(value, type(default)):
            raise ToolError("OPTIONS", f"{where}{name} in {NAME} must be a {type(default).__name__}.")
        else:
            found[name] = value
    return kind(**found)


def load(directory: Path) -> Options:
    """The options in *directory*, or the defaults. Raises ToolError OPTIONS with the name of what is wrong."""
    path = directory / NAME
    if not path.exists():
        return Options()
    try:
        values = tomllib.loads(read_file(path, "options").decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ToolError("OPTIONS", f"{path} cannot be read: {error}.") from error
    found: Options = _fill(Options, values, "")
    if found.mail.security not in ("starttls", "tls", "none"):
        raise ToolError("OPTIONS", f"mail.security in {NAME} must be starttls, tls or none.")
    if found.mail.host and not (found.mail.sender and found.mail.to):
        raise ToolError("OPTIONS", f"mail.sender and mail.to are missing in {NAME}.")
    if found.url and (not found.url.startswith(("http://", "https://")) or found.url.endswith("/")):
        raise ToolError("OPTIONS", f"url in {NAME} must begin with http:// or https:// and not end with a slash.")
    return found
