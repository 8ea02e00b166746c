"""Approvals: people who must have looked at a release before the release key signs it.

An *approvals policy* names the approvers and how many of them are needed. An approval is a COSE_Sign1 by an approver's
key over the release's manifest digest, made offline from a request file. Its payload begins with a label of its own, so
that no approval ever passes as the signature of a release, nor the other way round.

Devices know nothing of approvals: they bind the people at the desk, and the signing log shows that they were given.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cbor2

from . import cose, keys, strict_cbor
from .errors import ToolError
from .files import read_file

NAME = "approvals.json"
"""Usual name of a policy: beside the release key it is followed without being asked for."""
MAX_POLICY = 65_536
MAX_APPROVAL = 512
_FORMAT = "sekisho-approvals-1"
_LABEL = "sekisho release approval 1"


@dataclass(frozen=True)
class Policy:
    """Who may approve, and how many must."""

    needed: int
    approvers: tuple[keys.Statement, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the policy in hex, for the signing log."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The text of a policy file."""
        fields = {"format": _FORMAT, "needed": self.needed, "approvers": [one.to_dict() for one in self.approvers]}
        return json.dumps(fields, indent=2)


def make_policy(needed: int, approvers: Sequence[keys.Statement]) -> Policy:
    """A policy; ToolError APPROVALS when it cannot be met or names a key twice, KEY_ROLE, KEYSET_ENVIRONMENT."""
    distinct = {one.public_key for one in approvers}
    if not 1 <= needed <= len(approvers) or len(distinct) != len(approvers):
        raise ToolError("APPROVALS", "A policy needs 1 or more approvals and as many approvers, each named once.")
    for one in approvers:
        keys.require(one, "approver", approvers[0].environment)
    return Policy(needed, tuple(approvers))


def read_policy(path: Path) -> Policy:
    """The policy in the file *path*. Raises ToolError FILE, APPROVALS, KEY_STATEMENT."""
    try:
        fields = json.loads(read_file(path, "approvals policy", MAX_POLICY))
        if fields["format"] != _FORMAT or set(fields) != {"format", "needed", "approvers"}:
            raise ValueError(fields["format"])
        statements = [keys.read_statement(one, f"approver in {path}") for one in fields["approvers"]]
        return make_policy(int(fields["needed"]), statements)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ToolError("APPROVALS", f"{path} is no approvals policy, or it is damaged.") from error


def find_policy(named: Path | None, key_uri: str) -> Policy | None:
    """The policy that binds the release key *key_uri*: *named*, else `approvals.json` beside the key, else none."""
    beside = keys.log_path(key_uri).with_name(NAME)
    if named is not None:
        return read_policy(named)
    return read_policy(beside) if beside.exists() else None


def approve(manifest_digest: bytes, signer: keys.Signer, environment: str) -> bytes:
    """An approval of the release with *manifest_digest* (32 bytes). Raises ToolError KEY_ROLE, KEYSET_ENVIRONMENT."""
    keys.require(signer.statement, "approver", environment)
    return cose.sign1(_payload(manifest_digest), signer, attached=True)


def _payload(manifest_digest: bytes) -> bytes:
    return cose.encode([_LABEL, manifest_digest])


@dataclass(frozen=True)
class Approval:
    """An approval as it was read: by whom (key id), for which manifest digest. Not verified yet."""

    key_id: bytes
    manifest_digest: bytes
    document: bytes


def read(path: Path) -> Approval:
    """The approval in the file *path*. Raises ToolError FILE or APPROVAL_FORMAT."""
    return parse(read_file(path, "approval", MAX_APPROVAL), str(path))


def parse(document: bytes, what: str = "The approval") -> Approval:
    """The approval in *document*; ToolError APPROVAL_FORMAT when it is none."""
    try:
        parts: Any = strict_cbor.loads(document)
        protected, unprotected, payload, signature = parts.value
        label, digest = strict_cbor.loads(payload)
        good = parts.number == cose.TAG_SIGN1 and label == _LABEL and len(digest) == 32 and len(signature) == 64
        good = good and strict_cbor.loads(protected) == {cose.LABEL_ALG: cose.ALG_ED25519}
        key_id = unprotected[cose.LABEL_KID]
        if not good or not isinstance(digest, bytes) or not isinstance(key_id, bytes):
            raise ValueError(what)
    except (ToolError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ToolError("APPROVAL_FORMAT", f"{what} is no approval of a release, or it is damaged.") from error
    return Approval(key_id, digest, document)


def require(policy: Policy, manifest_digest: bytes, approvals: Sequence[Approval]) -> list[keys.Statement]:
    """The approvers whose approvals of *manifest_digest* hold; each counts once.

    Raises ToolError: APPROVAL_RELEASE (an approval of another release, such as the one before it was changed),
    APPROVAL_UNKNOWN (by nobody in the policy), SIGNATURE, APPROVAL (too few, and who has not approved).
    """
    known = {one.key_id: one for one in policy.approvers}
    given: dict[bytes, keys.Statement] = {}
    for approval in approvals:
        who = known.get(approval.key_id)
        if who is None:
            raise ToolError("APPROVAL_UNKNOWN", f"{approval.key_id.hex()} has approved but is no approver.")
        if approval.manifest_digest != manifest_digest:
            raise ToolError(
                "APPROVAL_RELEASE",
                f"{who.label!r} has approved another release ({approval.manifest_digest.hex()[:16]}), not this one "
                f"({manifest_digest.hex()[:16]}); it was changed after the review, or the files were swapped.",
            )
        signature = cbor2.loads(approval.document).value[3]
        protected = cbor2.loads(approval.document).value[0]
        if not cose.verify(who.public_key, cose.sign1_input(protected, _payload(manifest_digest)), signature):
            raise ToolError("SIGNATURE", f"The approval by {who.label!r} does not verify.")
        given[who.key_id] = who
    if len(given) < policy.needed:
        missing = ", ".join(repr(one.label) for one in policy.approvers if one.key_id not in given)
        raise ToolError("APPROVAL", f"{len(given)} of {policy.needed} approvals are there; not yet: {missing}.")
    return [one for one in policy.approvers if one.key_id in given]
