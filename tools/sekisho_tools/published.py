"""Releases that are out already, wherever that is: directories, static web servers, servers with a management API.

The next release must come after all of them (`release_check`). A source that cannot say what it has is an error: taken
for empty, it would let a number be used twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import UUID

from . import publish, suit
from .download import MAX_KEYSET, fetch
from .errors import ToolError
from .files import read_file
from .hawkbit import Api

MAX_ENVELOPE = 1 << 20
_URL = re.compile(r"https?://", re.IGNORECASE)

Found = list[tuple[str, suit.Envelope]]
"""Where a release was found, and the release."""


def is_url(source: str) -> bool:
    """Whether *source* names a server, not a directory."""
    return _URL.match(source) is not None


def classes_of(envelope: suit.Envelope) -> set[bytes]:
    """The product classes (16 bytes) that a release is for."""
    return {parameters[2] for parameters in envelope.manifest.parameters() if 2 in parameters}


def find(sources: Sequence[str], classes: set[bytes], connect: Callable[[str], Api] | None = None) -> Found:
    """Every release that *sources* have out; from servers those for *classes*.

    A URL is asked through its management API where *connect* logs in there, else as a static site. Raises ToolError:
    FILE, NETWORK, SERVER, LOGIN, PUBLISHED (a site that knows nothing of the product), or what is wrong with a release.
    """
    found: Found = []
    for source in sources:
        if not is_url(source):
            found += _directory(Path(source))
        elif connect is not None:
            found += _managed(connect(source))
        else:
            found += _site(source, classes)
    return found


def _directory(directory: Path) -> Iterator[tuple[str, suit.Envelope]]:
    if not directory.is_dir():
        raise ToolError("FILE", f"{directory} is no directory of published releases.")
    for path in sorted(directory.rglob("*.suit")):
        yield str(path), suit.decode(read_file(path, "published release", MAX_ENVELOPE))


def _site(base: str, classes: set[bytes]) -> Iterator[tuple[str, suit.Envelope]]:
    """A static site shows the newest release of a class only; which is enough, for it has the largest number."""
    for one in sorted(classes):
        home = str(UUID(bytes=one))
        envelope = fetch(base, f"{home}/{publish.LATEST}", MAX_ENVELOPE)
        if envelope is not None:
            yield f"{base.rstrip('/')}/{home}/{publish.LATEST}", suit.decode(envelope)
        elif fetch(base, f"{home}/{publish.NEWEST}", MAX_KEYSET) is None:
            raise ToolError(
                "PUBLISHED",
                f"{base} has neither a release nor a key set for class {home}; is it the right address? An update "
                "server with accounts needs --user.",
            )


def _managed(api: Api) -> Iterator[tuple[str, suit.Envelope]]:
    try:
        for module in api.everything("/softwaremodules"):
            path = f"/softwaremodules/{module['id']}/artifacts"
            for artifact in api.call("GET", path) or ():
                if str(artifact["providedFilename"]).endswith(".suit"):
                    data = api.download(f"{path}/{artifact['id']}/download")
                    yield f"{api.url} {module['name']} {module['version']}", suit.decode(data)
    finally:
        api.close()
