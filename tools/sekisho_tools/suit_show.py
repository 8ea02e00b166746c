"""Shows a decoded SUIT envelope: as JSON-able values (`describe`) and as lines for people (`render`)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sekisho_tools import cose, strict_cbor
from sekisho_tools.suit import SHA256, Command, Digest, Encryption, Envelope, show_id
from sekisho_tools.suit_names import (
    COMMANDS,
    COMPARISONS,
    CONTENT_ALGORITHMS,
    CUSTOM_PARAMETERS,
    ENVELOPE_MEMBERS,
    KEY_ALGORITHMS,
    MANIFEST_MEMBERS,
    METADATA,
    PARAMETERS,
    POLICIES,
    WAIT_EVENTS,
)


def _plain(value: Any) -> Any:
    """*value* with nothing in it that JSON lacks."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Digest):
        return value.value.hex() if value.algorithm == SHA256 else f"{value.algorithm}:{value.value.hex()}"
    if isinstance(value, Encryption):
        return {
            "algorithm": CONTENT_ALGORITHMS.get(value.algorithm, str(value.algorithm)),
            "iv": _plain(value.iv),
            "recipients": [
                {"algorithm": KEY_ALGORITHMS.get(alg or 0, str(alg)), "kid": _plain(kid), "wrapped-key": _plain(key)}
                for alg, kid, key in value.recipients
            ],
        }
    if isinstance(value, strict_cbor.Tag):
        return {"tag": value.number, "value": _plain(value.value)}
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _show_version(match: tuple[int, tuple[int, ...]]) -> str:
    return f"{COMPARISONS[match[0]]} {'.'.join(map(str, match[1]))}"


def _show_parameters(parameters: Mapping[int, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for key, value in parameters.items():
        name = PARAMETERS.get(key) or CUSTOM_PARAMETERS.get(key, f"custom {key}")
        if key in (1, 2, 24) and len(value) == 16:
            shown[name] = str(UUID(bytes=value))
        elif key == 28:
            shown[name] = _show_version(value)
        elif key == 29:
            shown[name] = {WAIT_EVENTS[event]: _plain(item) for event, item in value.items()}
        elif key == 30:
            shown[name] = {METADATA[member]: _plain(item) for member, item in value.items()}
        else:
            shown[name] = _plain(value)
    return shown


def _show_commands(commands: tuple[Command, ...]) -> list[dict[str, Any]]:
    shown = []
    for command in commands:
        entry: dict[str, Any] = {"command": command.name, "code": command.code}
        argument = command.argument
        if command.code == 12:
            entry["index"] = _plain(argument)
        elif command.code in (19, 20):
            entry["parameters"] = _show_parameters(argument)
        elif command.code == 15:
            entry["alternatives"] = [_show_commands(alternative) for alternative in argument]
        elif command.code == 32:
            entry["sequence"] = _show_commands(argument)
        elif command.code == 34:
            entry["parameters"] = {str(index): _show_parameters(values) for index, values in argument.items()}
        elif command.code == 35:
            entry["parameters"] = {str(index): [PARAMETERS[key] for key in keys] for index, keys in argument.items()}
        elif command.code in COMMANDS:
            entry["policy"] = [name for bit, name in enumerate(POLICIES) if argument >> bit & 1]
        else:
            entry["argument"] = _plain(argument)
        shown.append(entry)
    return shown


def describe(envelope: Envelope) -> dict[str, Any]:
    """Everything in *envelope* as JSON-able values, by the names of the documents."""
    manifest = envelope.manifest
    shown: dict[str, Any] = {
        "size": envelope.size,
        "manifest-digest": envelope.digest.value.hex(),
        "authentication": [
            {
                "type": cose.KINDS[block.tag],
                "algorithm": cose.ALGORITHMS.get(block.algorithm, str(block.algorithm))  # type: ignore[arg-type]
                if block.algorithm is not None
                else None,
                "kid": _plain(block.kid),
            }
            for block in envelope.blocks
        ],
        "manifest-version": 1,
        "sequence-number": manifest.sequence_number,
        "components": [show_id(identifier) for identifier in manifest.components],
    }
    if manifest.dependencies:
        shown["dependencies"] = {
            str(index): show_id(prefix) if prefix else None for index, prefix in manifest.dependencies.items()
        }
    optional = {
        "reference-uri": manifest.reference_uri,
        "manifest-component-id": show_id(manifest.component_id) if manifest.component_id else None,
        "set-version": ".".join(map(str, manifest.set_version)) if manifest.set_version else None,
        "coswid": _plain(manifest.coswid),
        "mud": _plain(manifest.mud),
        "text": manifest.text,
    }
    shown.update({key: value for key, value in optional.items() if value is not None})
    if manifest.shared:
        shown["shared"] = _show_commands(manifest.shared)
    for key, commands in manifest.sequences.items():
        shown[MANIFEST_MEMBERS[key]] = _show_commands(commands)
    if manifest.severable:
        shown["severable"] = {
            ENVELOPE_MEMBERS[key]: {"digest": digest.value.hex(), "severed": key in manifest.severed}
            for key, digest in manifest.severable.items()
        }
    if envelope.payloads:
        shown["integrated-payloads"] = {
            key: {"size": len(value), "sha256": hashlib.sha256(value).hexdigest()}
            for key, value in envelope.payloads.items()
        }
    return shown


def render(envelope: Envelope) -> str:
    """*envelope* for people: `describe` as indented lines, control characters in texts escaped."""
    lines: list[str] = []
    _render(describe(envelope), 0, lines)
    return "\n".join(lines)


def _line(value: Any) -> str:
    text = "yes" if value is True else "no" if value is False else "-" if value is None else str(value)
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _render(value: Any, depth: int, lines: list[str]) -> None:
    pad = "  " * depth
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(item, Mapping | list) and item:
                lines.append(f"{pad}{_line(key)}:")
                _render(item, depth + 1, lines)
            else:
                lines.append(f"{pad}{_line(key)}: {_line(item if item or item in (0, False) else None)}")
        return
    for item in value:
        if isinstance(item, Mapping) and "command" in item:
            _render_command(item, depth, lines)
        elif isinstance(item, Mapping | list) and item:
            lines.append(f"{pad}-")
            _render(item, depth + 1, lines)
        else:
            lines.append(f"{pad}{_line(item)}")


def _render_command(item: Mapping[str, Any], depth: int, lines: list[str]) -> None:
    rest = {key: value for key, value in item.items() if key not in ("command", "code")}
    head = f"{'  ' * depth}{item['command']} ({item['code']})"
    if "policy" in rest:
        lines.append(head + (f"  report: {', '.join(rest['policy'])}" if rest["policy"] else ""))
    elif "index" in rest:
        index = rest["index"]
        lines.append(f"{head} {'all' if index is True else _line(index)}")
    else:
        lines.append(head)
        for key, value in rest.items():
            if key == "alternatives":
                for number, alternative in enumerate(value, 1):
                    lines.append(f"{'  ' * (depth + 1)}alternative {number}:{'' if alternative else ' do nothing'}")
                    _render(alternative, depth + 2, lines)
            elif isinstance(value, Mapping | list):
                _render(value, depth + 1, lines)
            else:
                lines.append(f"{'  ' * (depth + 1)}{_line(value)}")
