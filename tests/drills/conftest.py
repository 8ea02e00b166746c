"""One company for all drills, made once from docs/runbooks/README.md and copied for each drill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from helpers import images
from helpers.fleet import HOST, Fleet, Sites, firmware
from helpers.pages import REPO, Stage

RUNBOOKS = REPO / "docs" / "runbooks"
EVIL = firmware("the intruder's")


@dataclass
class Company:
    """Desk, site and devices of one drill."""

    stage: Stage
    sites: Sites
    fleet: Fleet = field(init=False)

    def __post_init__(self) -> None:
        self.fleet = Fleet(self.directory)
        self.sites.root = self.directory / "site"
        self.sites.down = False

    @property
    def directory(self) -> Path:
        return self.stage.directory

    @property
    def home(self) -> Path:
        return self.directory / "site" / "7fd968df-da31-5a19-b454-35f5cb2264c7"

    def file(self, name: str) -> bytes:
        return (self.directory / name).read_bytes()

    def firmware(self, number: int) -> bytes:
        return self.file(f"firmware-{number}.bin")


def prepare(stage: Stage, sites: Sites) -> None:
    """What the first page needs, and its commands."""
    directory = stage.directory
    (directory / "bootloader.bin").write_bytes(images.bootloader())
    (directory / "notes.txt").write_text("A lamp that updates itself.\n")
    settings = {"server": f"http://{HOST}:{sites.port}", "wifi": [["sekisho", "sekisho-lab"]], "poll": 3600}
    (directory / "settings.json").write_text(json.dumps(settings))
    (directory / "site").mkdir()
    (directory / "advisories").mkdir()
    package = {"ecosystem": "PyPI", "name": "of-somebody-else"}
    advisory = {"id": "EXAMPLE-1", "affected": [{"package": package, "versions": ["1.0"]}]}
    (directory / "advisories" / "EXAMPLE-1.json").write_text(json.dumps(advisory))

    def firmware_is_built() -> None:
        document = (directory / "keyset-1.cose").read_bytes()
        for number in range(1, 4):
            (directory / f"firmware-{number}.bin").write_bytes(firmware(f"{number}.0", document))

    stage.play(RUNBOOKS / "README.md", {"firmware-is-built": firmware_is_built})


@pytest.fixture(scope="session")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    with Sites(tmp_path_factory.mktemp("sites")).serving() as found:
        yield found


@pytest.fixture(scope="session")
def template(sites: Sites, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("company")
    with pytest.MonkeyPatch.context() as patch:
        prepare(Stage(directory, patch), sites)
    return directory


@pytest.fixture
def company(template: Path, sites: Sites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Company:
    directory = tmp_path / "company"
    shutil.copytree(template, directory)
    return Company(Stage(directory, monkeypatch), sites)
