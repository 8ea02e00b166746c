"""The `sekisho` command: mounts the command groups and is the one place that shows errors.

Each group is a module of `sekisho_tools.commands` with a `typer.Typer` named ``app``. Commands parse and print; what
they do lives in modules of its own.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from typing import Annotated

import typer
from rich.console import Console
from typer.main import get_command

from .errors import ToolError

GROUPS = {
    "keys": "Make and look at signing keys.",
    "keyset": "Make, sign and look at key sets: who may sign what.",
    "log": "Look at the signing log: who signed what, when, with which key.",
    "release": "Make, look at and verify signed releases.",
    "sheet": "The product sheet that customers get with a release.",
    "audit": "What auditors get: one file with evidence, keys and releases; and verifying one.",
    "order": "Have devices do something: settings, approvals, rollback, wipe; signed by an operator.",
    "update": "Bring releases and key sets to a device by hand: serial line or card.",
    "report": "Verify the signed reports of devices.",
    "wipe": "Verify the last statements of devices that were wiped.",
    "events": "Look at the event logs of devices.",
    "settings": "Look at the settings that devices have, and at backups of them.",
    "image": "Put a flash image together and look at one.",
    "issue": "Make device identities and give each out once: keys, tokens, labels.",
    "factory": "The production line: check, flash and register devices, plan their eFuses.",
    "sim": "Run a flash image on the simulated ESP32.",
    "devices": "The devices that an update server knows.",
    "rollout": "Give a release to many devices, a few first.",
    "admin": "Accounts and backup of the update server.",
}
"""Command groups in the order of the help text: module and group name -> one line of help."""

COMMANDS = ("publish", "mirror", "assign", "withdraw", "serve", "migrate")
"""Modules whose commands stand at the top level."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells count it (128 + SIGINT)."""

app = typer.Typer(
    name="sekisho",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Secure software update for MicroPython on ESP32: keys, releases, flash images, server and simulator.",
)


def version() -> str:
    """The version of this Sekisho, or ``0+uninstalled`` when it runs from a plain checkout."""
    try:
        return package_version("sekisho")
    except PackageNotFoundError:
        return "0+uninstalled"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sekisho {version()}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    """Options of the command itself."""


def _mount() -> None:
    for name in (*GROUPS, *COMMANDS):
        commands = importlib.import_module(f"{__package__}.commands.{name}").app
        if name in GROUPS:
            app.add_typer(commands, name=name, help=GROUPS[name], no_args_is_help=True)
        else:
            app.add_typer(commands)


def show_error(error: ToolError) -> None:
    """Print *error* on stderr as ``error[CODE]: sentence``, coloured on a terminal only, never wrapped."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"error[{error.code}]: ", style="bold red", markup=False, end="")
    console.print(error.sentence, markup=False)


def run(arguments: list[str] | None = None) -> int:
    """Run one command line (default: that of the process) and return its exit code: 0 done, 1 error, 2 usage."""
    try:
        get_command(app).main(arguments, prog_name="sekisho")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except ToolError as error:
        show_error(error)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        show_error(ToolError("SYSTEM", f"{name}{(error.strerror or str(error)).lower()}."))
        return 1
    return 0


def main() -> None:
    """Entry point of `sekisho`."""
    code = run()
    if code == INTERRUPTED:
        # Die of the signal, so that a shell script around us stops as well.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGINT)
    sys.exit(code)


_mount()
