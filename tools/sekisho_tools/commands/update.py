"""`sekisho update`: releases that are brought to a device by hand."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Annotated

import typer

from .. import line as lines
from ..errors import ToolError
from ..files import read_file, write_atomic

app = typer.Typer(no_args_is_help=True)

Port = Annotated[str, typer.Option("--port", metavar="PORT", help="Serial port, such as /dev/ttyUSB0 or COM3.")]
Baud = Annotated[int, typer.Option(min=300, help="Bits per second.")]
_MAX = 1 << 16


@app.callback()
def _group() -> None:
    """Bring releases and key sets to a device by hand: over its serial line, or on a card."""


def _told(text: str) -> None:
    typer.echo(f"  {text}", err=True)


@app.command(epilog="Example: sekisho update send lamp-2.suit payload/* --key-set keyset.cose --port /dev/ttyUSB0")
def send(
    envelope: Annotated[Path, typer.Argument(metavar="RELEASE.suit", help="A signed release.")],
    payloads: Annotated[list[Path], typer.Argument(metavar="PAYLOAD...", help="Its payloads, in any order.")],
    port: Port,
    key_set: Annotated[
        list[Path] | None, typer.Option("--key-set", help="A key set that goes first; several in their order.")
    ] = None,
    baud: Baud = lines.BAUD,
    console: Annotated[bool, typer.Option("--console", help="Show what the device prints meanwhile.")] = False,
) -> None:
    """Send a release over the serial line. The device judges it as if it came from its server, and restarts into it.

    What broke off goes on where it was when the command is given again.
    """
    document = read_file(envelope, "release", _MAX)
    with lines.Line(lines.open_port(port, baud), _told if console else None) as line:
        hello = line.hello()
        typer.echo(f"{hello.device}: key set {hello.keyset}")
        for one in key_set or []:
            typer.echo(f"key set {line.keyset(read_file(one, 'key set', _MAX))}")
        with typer.progressbar(length=sum(path.stat().st_size for path in payloads), label="sending") as bar:
            last = 0

            def progress(sent: int) -> None:
                nonlocal last
                bar.update(max(0, sent - last))
                last = sent

            size = lines.release(line, document, payloads, progress)
    typer.echo(f"Sent {size} bytes; the device restarts into the update.")


@app.command(epilog="Example: sekisho update card lamp-2.suit lamp-2.bin keyset.cose --to /media/sd/sekisho")
def card(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Releases, orders, key sets and payloads.")],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Folder of the card that devices look at.")],
) -> None:
    """Put releases, payloads, orders and key sets onto a card in the way that devices look for them."""
    for path in files:
        content = read_file(path, "file")
        if path.suffix in (".suit", ".cose"):
            if len(content) > _MAX:
                raise ToolError("LIMIT", f"{path} is too large for what its name says.")
            target = to / path.name
        else:
            target = to / "payload" / hashlib.sha256(content).hexdigest()
        target.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(to).free < len(content):
            raise ToolError("SYSTEM", f"There is no room for {path} at {to}.")
        write_atomic(target, content)
        typer.echo(f"Wrote {target}.")
