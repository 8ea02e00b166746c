"""Runs a whole SUIT manifest against a device held in memory: what would this envelope do? (draft section 6)

Used to try releases on the desk before a device sees them, and by tests to hold the engine's small interpreter
against a full one. It follows docs/suit-profile.md where the documents leave a choice.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sekisho_tools.errors import ToolError
from sekisho_tools.suit import Command, ComponentId, Digest, Encryption, Envelope, decode, show_id
from sekisho_tools.suit_names import COMMANDS, COMPRESSION, MANIFEST_MEMBERS, PARAMETERS, ZLIB

UPDATE = (15, 16, 18, 20, 7)
INVOCATION = (7, 8, 9)
_MAX_IMAGE = 1 << 24
"""Bytes that a compressed source may inflate to."""


def _no_fetch(uri: str) -> bytes:
    raise ToolError("NETWORK", f"There is no payload under {uri}.")


def _no_decrypt(_info: Encryption, _data: bytes) -> bytes:
    raise ToolError("PARAMETER", "This device has no key to decrypt payloads.")


@dataclass
class Device:
    """What a manifest can ask and change."""

    vendors: Sequence[bytes] = ()
    classes: Sequence[bytes] = ()
    ids: Sequence[bytes] = ()
    sequence_number: int = 0
    storage: dict[ComponentId, bytes] = field(default_factory=dict)
    slots: dict[ComponentId, int] = field(default_factory=dict)
    versions: dict[ComponentId, tuple[int, ...]] = field(default_factory=dict)
    now: int = 0
    battery: int = 1 << 30
    """mWh"""
    fetch: Callable[[str], bytes] = _no_fetch
    decrypt: Callable[[Encryption, bytes], bytes] = _no_decrypt
    trusts: Callable[[Envelope], bool] = lambda _envelope: False
    """Whether a dependency's signature is good."""
    authorized: Callable[[int], bool] = lambda _priority: True
    invoked: list[tuple[ComponentId, bytes | None]] = field(default_factory=list)


class ConditionFailedError(ToolError):
    """A condition does not hold; inside try-each the next alternative is taken."""


def compare(operation: int, actual: Sequence[int], wanted: Sequence[int]) -> bool:
    """update-management section 5.3.3: element by element of *wanted*; what *actual* lacks counts as 0."""
    for place, number in enumerate(wanted):
        own = actual[place] if place < len(actual) else 0
        if own != number:
            return operation in ((1, 2) if own > number else (4, 5))
    return operation in (2, 3, 4)


class Processor:
    """Runs one manifest; parameters live as long as it does."""

    def __init__(self, envelope: Envelope, device: Device) -> None:
        self.envelope, self.manifest, self.device = envelope, envelope.manifest, device
        identifiers: dict[int, ComponentId] = dict(enumerate(self.manifest.components))
        for index, prefix in self.manifest.dependencies.items():
            if prefix is not None:
                identifiers.setdefault(index, prefix)
        self.identifiers = identifiers
        self.parameters: dict[int, dict[int, Any]] = {index: {} for index in identifiers}
        self.checked: set[int] = set()
        self.section = 0
        self.soft: list[bool] = []
        if self.manifest.sequence_number < device.sequence_number:
            raise ToolError("SEQUENCE", "The sequence number is lower than that of the device.")

    def run(self, sections: Sequence[int]) -> None:
        """Runs the sequences with these manifest keys, the shared one before each. Raises ToolError."""
        for section in sections:
            if section in self.manifest.severed:
                raise ToolError("SEVERABLE", f"The {MANIFEST_MEMBERS[section]} sequence has been cut off.")
            if section in self.manifest.sequences:
                self.section = 0
                self._sequence(self.manifest.shared, [0])
                self.section = section
                self._sequence(self.manifest.sequences[section], [0])

    def _sequence(self, commands: Sequence[Command], current: list[int]) -> None:
        for command in commands:
            code, argument = command.code, command.argument
            if code == 12:
                if argument is True:
                    current = list(range(len(self.manifest.components)))
                else:
                    current = [argument] if isinstance(argument, int) else list(argument)
                continue
            if code == 34:
                for index, values in argument.items():
                    self.parameters[index].update(values)
                    current = [index]
                continue
            for index in current:
                self._command(code, argument, index)

    def _command(self, code: int, argument: Any, index: int) -> None:
        own = self.parameters[index]
        if code == 20:
            self._override(own, argument)
        elif code == 19:
            own.update({key: value for key, value in argument.items() if key not in own})
        elif code == 35:
            for source, keys in argument.items():
                own.update({key: self.parameters[source][key] for key in keys if key in self.parameters[source]})
        elif code == 15:
            self._try_each(argument, index)
        elif code == 32:
            self._nested(argument, index, False)
        elif code in _CONDITIONS:
            if not _CONDITIONS[code](self, index):
                raise ConditionFailedError(_CODES.get(code, "CONDITION"), self._say(code, index))
        elif code in _DIRECTIVES:
            _DIRECTIVES[code](self, index)
        else:
            raise ToolError("COMMAND", f"{COMMANDS.get(code, code)} cannot be run here.")

    def _override(self, own: dict[int, Any], values: dict[int, Any]) -> None:
        for key, value in values.items():
            if key == 13:
                if not self.soft:
                    raise ToolError("PARAMETER", "soft-failure is set outside of try-each and run-sequence.")
                self.soft[-1] = value
            else:
                own[key] = value

    def _say(self, code: int, index: int) -> str:
        return f"The condition {COMMANDS[code]} does not hold for {show_id(self.identifiers[index])}."

    def _nested(self, commands: Sequence[Command], index: int, soft: bool) -> bool:
        """Runs a nested sequence; False when a condition failed softly."""
        self.soft.append(soft)
        try:
            self._sequence(commands, [index])
        except ConditionFailedError:
            if not self.soft[-1]:
                raise
            return False
        finally:
            self.soft.pop()
        return True

    def _try_each(self, alternatives: Sequence[Sequence[Command]], index: int) -> None:
        if not any(self._nested(alternative, index, True) for alternative in alternatives):
            raise ToolError("CONDITION", f"No alternative fits {show_id(self.identifiers[index])}.")

    def _need(self, index: int, key: int) -> Any:
        if key not in self.parameters[index]:
            raise ToolError(
                "PARAMETER", f"{PARAMETERS[key]} is needed for {show_id(self.identifiers[index])} and not set."
            )
        return self.parameters[index][key]

    def _content(self, index: int) -> bytes:
        data = self.device.storage.get(self.identifiers[index])
        if data is None:
            raise ToolError("TARGET_LOST", f"The component {show_id(self.identifiers[index])} is empty.")
        return data

    def _store(self, index: int, data: bytes) -> None:
        self.checked.discard(index)
        self.device.storage[self.identifiers[index]] = data

    # -- conditions ------------------------------------------------------------------------------------------------

    def _image_match(self, index: int) -> bool:
        digest: Digest = self._need(index, 3)
        data = self.device.storage.get(self.identifiers[index], b"")
        size = self.parameters[index].get(14)
        if size is not None and size != len(data):
            name = show_id(self.identifiers[index])
            raise ConditionFailedError("IMAGE_SIZE", f"{name} has {len(data)} bytes, announced are {size}.")
        if index in self.manifest.dependencies:  # a dependency is named by the digest of its manifest
            return self._dependency(index).digest == digest
        return digest.matches(data)

    def _dependency(self, index: int) -> Envelope:
        if index not in self.manifest.dependencies:
            raise ToolError("COMPONENT", f"{show_id(self.identifiers[index])} is not a dependency.")
        return decode(self._content(index))

    def _dependency_integrity(self, index: int) -> bool:
        envelope = self._dependency(index)
        if envelope.digest != self._need(index, 3) or not self.device.trusts(envelope):
            raise ToolError("SIGNATURE", "A dependency is not the one that was signed, or its signer is not trusted.")
        self.checked.add(index)
        return True

    def _version(self, index: int) -> bool:
        operation, wanted = self._need(index, 28)
        return compare(operation, self.device.versions.get(self.identifiers[index], ()), wanted)

    # -- directives ------------------------------------------------------------------------------------------------

    def _process(self, index: int) -> None:
        if index not in self.checked or self.section == 0:
            raise ToolError("COMMAND", "A dependency must pass dependency-integrity before it is processed.")
        inner = Processor(self._dependency(index), self.device)
        inner.run([self.section])

    def _fetch(self, index: int) -> None:
        uri = self._need(index, 21)
        data = self.envelope.payloads.get(uri)
        if data is None and uri.startswith("#"):
            raise ToolError("NETWORK", f"The payload {uri} is not in the envelope.")
        self._store(index, self.device.fetch(uri) if data is None else data)

    def _decrypted(self, index: int, data: bytes) -> bytes:
        info = self.parameters[index].get(19)
        return data if info is None else self.device.decrypt(info, data)

    def _write(self, index: int) -> None:
        self._store(index, self._decrypted(index, self._need(index, 18)))

    def _copy(self, index: int) -> None:
        self._store(index, self._inflated(index, self._decrypted(index, self._content(self._need(index, 22)))))

    def _inflated(self, index: int, data: bytes) -> bytes:
        if self.parameters[index].get(COMPRESSION) is None:
            return data
        if self.parameters[index][COMPRESSION] != ZLIB:
            raise ToolError("PARAMETER", "The source is compressed in a way that is not supported.")
        try:
            return zlib.decompressobj().decompress(data, _MAX_IMAGE)
        except zlib.error as error:
            raise ToolError("IMAGE_DIGEST", f"The source does not inflate ({error}).") from error

    def _swap(self, index: int) -> None:
        source = self._need(index, 22)
        first, second = self._content(index), self._content(source)
        self._store(index, second)
        self._store(source, first)

    def _invoke(self, index: int) -> None:
        self._content(index)
        self.device.invoked.append((self.identifiers[index], self.parameters[index].get(23)))

    def _unlink(self, index: int) -> None:
        self.device.storage.pop(self.identifiers[index], None)

    def _wait(self, index: int) -> None:
        if self._need(index, 29).get(5, 0) > self.device.now:
            raise ToolError("WINDOW", "The manifest waits for a later time.")


_CODES = {1: "VENDOR", 2: "CLASS", 3: "IMAGE_DIGEST", 4: "EXPIRED_MANIFEST", 24: "DEVICE", 28: "VERSION_TIE"}
_CONDITIONS: dict[int, Callable[[Processor, int], bool]] = {
    1: lambda run, index: run._need(index, 1) in run.device.vendors,
    2: lambda run, index: run._need(index, 2) in run.device.classes,
    3: Processor._image_match,
    4: lambda run, index: bool(run.device.now < run._need(index, 4)),
    5: lambda run, index: run.device.slots.get(run.identifiers[index]) == run._need(index, 5),
    6: lambda run, index: run.device.storage.get(run.identifiers[index]) == run._need(index, 18),
    7: Processor._dependency_integrity,
    8: lambda run, index: index in run.manifest.dependencies,
    14: lambda _run, _index: False,
    24: lambda run, index: run._need(index, 24) in run.device.ids,
    25: lambda run, index: not run._need(index, 3).matches(run.device.storage.get(run.identifiers[index], b"")),
    26: lambda run, index: bool(run.device.battery >= run._need(index, 26)),
    27: lambda run, index: run.device.authorized(run._need(index, 27)),
    28: Processor._version,
}
_DIRECTIVES: dict[int, Callable[[Processor, int], None]] = {
    11: Processor._process,
    18: Processor._write,
    21: Processor._fetch,
    22: Processor._copy,
    23: Processor._invoke,
    29: Processor._wait,
    31: Processor._swap,
    33: Processor._unlink,
}


def update(envelope: Envelope, device: Device) -> None:
    """Runs the update procedure of *envelope* on *device*, which is changed. Signatures are the caller's to check."""
    Processor(envelope, device).run(UPDATE)


def invoke(envelope: Envelope, device: Device) -> None:
    """Runs the invocation procedure: validate, load, invoke."""
    Processor(envelope, device).run(INVOCATION)
