"""A company's directory with everything in it that an audit or a product sheet is made of, secrets included."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sekisho_tools import keys, keyset

from helpers import images
from helpers.cli import Result, Runner
from helpers.keys import make_keyset

PASSPHRASE = "correct horse battery staple"
NAME = "my-board-1.2.0"
RELEASE = f"made/{NAME}.suit"


class Fixed(keys.Passphrases):
    """The same passphrase for all."""

    def get(self, what: str) -> bytes:
        return PASSPHRASE.encode()


class Company:
    """Keys and signing log in keys/, a chain of key sets, a release in made/, published in site/."""

    def __init__(self, folder: Path, run: Runner) -> None:
        self.folder, self._run = folder, run

    def __call__(self, line: str) -> Result:
        signs = "--sign-with" in line or ("--key keys/" in line and "verify" not in line)
        return self._run(line, *([PASSPHRASE] if signs else []))

    def good(self, line: str) -> Result:
        """The command, which must succeed."""
        done = self(line)
        assert done.code == 0, done.err
        return done

    def fill(self) -> None:
        """Make it all, by the commands that a company uses; firmware and roots are made for the test."""
        for name, role, environment in (
            ("release", "release", "release"),
            ("stolen", "release", "release"),
            ("aiko", "approver", "release"),
            ("root", "root", "release"),
            ("toy", "release", "development"),
        ):
            keys.generate(name, Path("keys"), role, environment, f"{name} <b>of</b> Aiko", Fixed())
        public = {name: keys.load_statement(Path(f"keys/{name}.pub")).public_key for name in ("release", "stolen")}
        first = make_keyset(environment="release")
        second = first.next(release=tuple(keyset.ReleaseKey(one) for one in public.values()))
        third = second.next(
            release=(keyset.ReleaseKey(public["release"]),),
            revoked_keys=(keys.load_statement(Path("keys/stolen.pub")).key_id,),
        )
        for made in (first, second, third):
            Path(f"keyset-{made.content.version}.cose").write_bytes(made.document)
        data = images.descriptor() + b"\0MicroPython v1.26.1 on 2025-09-11; toy\0\0"
        Path("fw.bin").write_bytes(images.image([(images.MAPPED["esp32"], data.ljust(-(-len(data) // 4) * 4, b"\0"))]))
        Path("en.txt").write_text("Fixes the *pump*.\n<script>alert(1)</script>\n")
        Path("ja.txt").write_text("ポンプを修正しました。\n")
        self.good("release group-key line-a keys/line-a.kek")
        self.create()
        self.good(f"publish {RELEASE} --to site")

    def create(self, key: str = "release", keyset_file: str = "keyset-3.cose", version: str = "1.2.0") -> None:
        """Make a release, overriding what the gate has against a toy image."""
        log = Path("keys/signing-log.jsonl")
        arguments = (
            f"release create --version {version} --sequence 2 --firmware fw.bin --out made --key keys/{key}.key "
            f"--keyset {keyset_file} --vendor example.com --class my-board --text en=en.txt --text ja=ja.txt "
            f"--support-until 2099-12-31 --contact security@example.com --override for-this-test-only --log {log}"
        )
        self.good(arguments)


def open_company(
    factory: pytest.TempPathFactory,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Company:
    """A copy of the directory, which is made once, as the current one."""
    run, whole = Runner(capsys, monkeypatch), factory.getbasetemp() / "whole-company"
    if not whole.exists():
        whole.mkdir()
        monkeypatch.chdir(whole)
        Company(whole, run).fill()
    folder = tmp_path / "company"
    shutil.copytree(whole, folder)
    monkeypatch.chdir(folder)
    return Company(folder, run)
