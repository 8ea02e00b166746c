"""A disk that is full at any point: a clear error, nothing lost, nothing half-signed; the command can be repeated."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.cli import Result
from sekisho_tools import ceremony, issuing, keys, signlog
from test_release_desk import BASE, SUPPORT, Desk, desk, good, prepared

__all__ = ["desk", "prepared"]

GATE = "--published published --advisories osv.json"
REQUEST = "out/my-board-1.2.0.request"
MOST = 40
"""Writes of one command; more would mean that the fault never stops."""


@dataclass
class Disk:
    """Full at the *at*-th time that something is to be made durable (0: never)."""

    at: int = 0
    seen: int = 0

    def fsync(self, honest: Callable[[int], None]) -> Callable[[int], None]:
        def full(handle: int) -> None:
            self.seen += 1
            if self.seen == self.at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            honest(handle)

        return full


def tree() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def dev_keys(desk: Desk) -> None:
    for name, role in (("root-1", "root"), ("root-2", "root"), ("rel", "release")):
        keys.generate(name, Path("keys"), role, "development")


def ceremony_begun(desk: Desk) -> None:
    dev_keys(desk)
    roots = "--root keys/root-1.pub --root keys/root-2.pub --threshold 2"
    good(desk(f"keyset draft k1.request {roots} --release keys/rel.pub --issued 2026-01-01"))


def signed_by_both(desk: Desk) -> None:
    ceremony_begun(desk)
    digest = ceremony.read_request(Path("k1.request")).digest
    for root in ("root-1", "root-2"):
        good(desk(f"keyset sign k1.request --key keys/{root}.key --expect {digest} --out {root}.signature"))


def drafted(desk: Desk) -> None:
    good(desk.draft())


def signed(desk: Desk) -> None:
    drafted(desk)
    good(desk.sign("--out out/signature"))


def released(desk: Desk) -> None:
    good(desk.create())


def batch(desk: Desk) -> None:
    issuing.create(
        Path("b.batch"), 3, Path("keyset.cose").read_bytes(), "example.com", "lamp", b"correct horse battery"
    )


CASES: dict[str, tuple[Callable[[Desk], object] | None, str]] = {
    "keys generate": (None, "keys generate new --role release --env development --no-passphrase"),
    "keyset draft": (dev_keys, "keyset draft r --root keys/root-1.pub --release keys/rel.pub --issued 2026-01-01"),
    "keyset sign": (ceremony_begun, "keyset sign k1.request --key keys/root-1.key --out a.signature"),
    "keyset assemble": (signed_by_both, "keyset assemble k1.request root-1.signature root-2.signature --out k1.cose"),
    "release draft": (
        None,
        f"release draft --version 1.2.0 --sequence 2 --firmware fw.bin --out out --compress {BASE} {SUPPORT}",
    ),
    "release approve": (drafted, f"release approve {REQUEST} --key aiko.key --out out/aiko.approval"),
    "release sign": (drafted, f"release sign {REQUEST} --key release.key --keyset keyset.cose {GATE} --out out/sig"),
    "release assemble": (signed, f"release assemble {REQUEST} out/signature --keyset keyset.cose"),
    "release create": (
        None,
        "release create --version 1.2.0 --sequence 2 --firmware fw.bin --out made --key release.key "
        f"--keyset keyset.cose {BASE} {SUPPORT} {GATE}",
    ),
    "publish": (
        released,
        "publish made/my-board-1.2.0.suit keyset.cose --to site",
    ),
}


@pytest.mark.requirement("UPC11")
@pytest.mark.parametrize("case", list(CASES))
def test_a_full_disk_leaves_nothing_half_signed_and_the_command_can_be_repeated(
    desk: Desk, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, line = CASES[case]
    if prepare:
        prepare(desk)
    disk = Disk()
    monkeypatch.setattr(os, "fsync", disk.fsync(os.fsync))

    def run(at: int) -> Result:
        disk.at, disk.seen = at, 0
        return desk(line)

    before = tree()
    shutil.copytree(desk.folder, tmp_path / "before")
    good(run(0))
    writes, whole = disk.seen, tree()
    faults = 0
    assert 0 < writes < MOST
    for at in range(1, writes + 1):
        shutil.rmtree(desk.folder)
        shutil.copytree(tmp_path / "before", desk.folder)
        monkeypatch.chdir(desk.folder)
        result = run(at)
        if result.code == 0:  # the sync of a directory, without which the file is there all the same
            continue
        faults += 1
        assert result.error == "FILE", result.err
        assert "no space left" in result.err
        left = tree()
        assert not [name for name in left if name.endswith(".tmp")]
        for name, content in left.items():
            if Path(name).name == signlog.NAME:
                signlog.verify(Path(name))  # an entry too many is no harm: what is logged need not have been given out
            elif case != "keys generate":  # which makes another key each time
                assert content in (before.get(name), whole.get(name)), name
        assert set(before) <= set(left), "nothing is lost"
        good(run(0))
        assert set(tree()) == set(whole), "and the same command, repeated, does it all"
    assert faults >= 1


@pytest.mark.requirement("HLC02")
def test_a_full_disk_gives_no_identity_out_and_loses_none(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    batch(desk)
    disk = Disk()
    monkeypatch.setattr(os, "fsync", disk.fsync(os.fsync))
    ids = {record.id for record in issuing.load(Path("b.batch")).records}
    for at in range(1, MOST):
        disk.at, disk.seen = at, 0
        line = f"issue take b.batch --out devices-{at}"
        result = desk._run(line, "correct horse battery")
        if result.code == 0 and disk.seen < at:
            break
        if result.code:
            assert result.error in ("FILE", "BATCH_EMPTY"), result.err
        records = issuing.load(Path("b.batch")).records
        assert {record.id for record in records} == ids
        given = {path.name for path in Path().glob("devices-*/*") if (path / "secrets.json").exists()}
        fresh = {record.id for record in records if record.state == issuing.FRESH}
        assert not given & fresh, "what was given out is never fresh again"
        if result.error == "BATCH_EMPTY":
            break
    assert [entry for entry in signlog.verify(Path(issuing.LOG)) if entry.what.startswith("issued device")]
