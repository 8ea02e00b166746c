"""`sekisho report`: what devices say of themselves, signed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .. import advisories, cose, issued, report
from ..errors import ToolError
from ..files import read_file
from .keys import Json

app = typer.Typer(no_args_is_help=True)

ReportFile = Annotated[Path, typer.Argument(metavar="REPORT", help="A report as the device made it.")]


def _key(text: str | None, record: issued.IssuingRecord | None) -> bytes:
    value = text if text is not None else record.public_key if record else None
    if value is None:
        raise ToolError(
            "KEY_UNKNOWN", "Give the device's public key (--device-key), or its issuing record that has it."
        )
    try:
        key = bytes.fromhex(value)
    except ValueError:
        key = b""
    cose.device_key_type(key)
    return key


@app.command(epilog="Example: sekisho report verify lamp.report --record issued/7e0c/record.json --nonce 00112233")
def verify(
    file: ReportFile,
    record: Annotated[Path | None, typer.Option(help="Issuing record of the device.")] = None,
    device_key: Annotated[str | None, typer.Option("--device-key", metavar="HEX", help="Its public key.")] = None,
    nonce: Annotated[str | None, typer.Option(metavar="HEX", help="The nonce that it was asked with.")] = None,
    release: Annotated[list[Path] | None, typer.Option(help="A release that is known (.suit); several times.")] = None,
    sbom: Annotated[list[Path] | None, typer.Option(help="CycloneDX SBOM of a release; several times.")] = None,
    advisory: Annotated[
        list[Path] | None,
        typer.Option("--advisories", metavar="PATH", help="Advisories (OSV JSON) to hold SBOMs against; repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a report and say what is wrong with the device; exit code 1 where anything is."""
    known = issued.read_record(record) if record else None
    try:
        asked = bytes.fromhex(nonce) if nonce is not None else None
    except ValueError as error:
        raise ToolError("NONCE", "A nonce is given in hex digits.") from error
    verdict = report.verify(
        read_file(file, "report", report.MAX_REPORT),
        _key(device_key, known),
        nonce=asked,
        known=known,
        releases=[read_file(path, "release", 1 << 20) for path in release or ()],
        boms=[report.read_bom(path) for path in sbom or ()],
        known_vulnerabilities=advisories.load(advisory) if advisory else (),
    )
    shown = report.describe(verdict.report)
    if as_json:
        findings = [{"text": one.text, "bad": one.bad} for one in verdict.findings]
        typer.echo(json.dumps({"good": verdict.good, "findings": findings, "report": shown}, indent=2))
    else:
        for name, value in shown.items():
            typer.echo(f"{name:16} {value}")
        for one in verdict.findings:
            typer.echo(f"{'WRONG' if one.bad else 'note'}: {one.text}")
        typer.echo("The signature is good." + (" Nothing is wrong." if verdict.good else ""))
    if not verdict.good:
        raise typer.Exit(1)


@app.command(epilog="Example: sekisho report show lamp.report")
def show(file: ReportFile, as_json: Json = False) -> None:
    """Show what a report says, nothing of it verified."""
    shown = report.describe(report.parse(read_file(file, "report", report.MAX_REPORT)))
    if as_json:
        typer.echo(json.dumps(shown, indent=2))
        return
    for name, value in shown.items():
        typer.echo(f"{name:16} {value}")
