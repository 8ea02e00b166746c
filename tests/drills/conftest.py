"""One company for all drills, made once from docs/runbooks/README.md and copied for each drill."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from helpers import images
from helpers.fleet import HOST, SPEED, Device, Fleet, Sites, firmware, together
from helpers.pages import PASSPHRASE, REPO, Stage
from sekisho_tools import keyset
from sekisho_tools.server import run
from sekisho_tools.server.options import Limits, Options

RUNBOOKS = REPO / "docs" / "runbooks"
EVIL = firmware("the intruder's")


SERVE = "sekisho serve --data fleet --port 8443"
ENROLS = 4
"""Speed of a device that enrols: the answer with its token is the only copy, so a busy machine must not time it out."""
FREE = Options(limits=Limits(address_reads=0, address_writes=0, device=0, failures=0))
"""All devices of a drill have one address."""


@dataclass
class Company:
    """Desk, web site, update server and devices of one drill."""

    stage: Stage
    sites: Sites
    fleet: Fleet = field(init=False)
    server: run.EmbeddedServer | None = None
    running: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.fleet = Fleet(self.directory)
        self.sites.root = self.directory / "site"
        self.sites.down = False
        self.stage.serve = self.serve

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

    # -- the update server ---------------------------------------------------------------------
    def serve(self, line: str = SERVE) -> None:
        """What `sekisho serve` does, in this process; ``$URL`` is its address, the same when it is started again."""
        assert line == SERVE, "only the port is another, so that drills can run side by side"
        port = self.server.port if self.server else 0
        self.server = run.EmbeddedServer(self.directory / "fleet", port=port, settings=FREE)
        self.running.enter_context(self.server)
        self.stage.values["URL"] = self.server.url
        if "SEKISHO_SERVER" in self.stage.environment:
            self.stage.environment["SEKISHO_SERVER"] = self.server.url

    def stop(self) -> None:
        """The server is gone."""
        self.running.close()

    def devices(self, count: int) -> list[Device]:
        """So many more devices, enrolled at the server with one-time tokens that an operator made for them."""
        assert self.server
        made = []
        for _ in range(count):
            one = self.fleet.new()
            name = f"lamp-{len(self.fleet.devices)}"
            token = self.stage.run(f"sekisho devices invite {name}").strip()
            address = f"http://{HOST}:{self.server.port}"
            one.change_settings(server=address, protocol="ddi", controller=name, enrolment=token)
            one.world.speed = ENROLS
            made.append(one)
        together("sekisho: NOTHING", *made)
        for one in made:
            one.world.speed = SPEED
        return made

    def named(self) -> dict[str, Device]:
        """The devices of `devices` by the names that the server knows them by."""
        return {f"lamp-{number}": one for number, one in enumerate(self.fleet.devices, 1)}

    def knows(self, query: str = "") -> list[str]:
        """The devices that the server's table shows for a filter."""
        found = json.loads(self.stage.run(f"sekisho devices list --json --filter '{query or 'controllerid==*'}'"))
        return [str(one["controllerId"]) for one in found]

    def actions(self, name: str) -> list[str]:
        """What became of a device's updates, the newest first."""
        found = json.loads(self.stage.run(f"sekisho devices show {name} --json"))["actions"]
        return [one["status"] for one in found]

    def rollout(self, name: str, status: str) -> None:
        """Wait until a rollout has come to *status*: the server looks at it every second."""
        deadline = time.monotonic() + 20
        while json.loads(self.stage.run(f"sekisho rollout status {name} --json"))["status"] != status:
            assert time.monotonic() < deadline, self.stage.run(f"sekisho rollout status {name}")
            time.sleep(0.2)

    def safe_and_updated(self, app: bytes, sequence: int, document: bytes, never: tuple[bytes, ...] = ()) -> None:
        """Every device is safe and updated (`Fleet.safe_and_updated`), and the server knows it of those it manages."""
        self.fleet.safe_and_updated(app, sequence, document, never)
        version = keyset.decode(document).version
        known = self.knows()
        assert known
        assert self.knows(f"attribute.fw_version=={sequence} and attribute.keyset=={version}") == known
        assert self.knows("attribute.state==ok") == known


def prepare(company: Company) -> None:
    """What the first page needs, and its commands."""
    directory = company.directory
    (directory / "bootloader.bin").write_bytes(images.bootloader())
    (directory / "notes.txt").write_text("A lamp that updates itself.\n")
    settings = {"server": f"http://{HOST}:{company.sites.port}", "wifi": [["sekisho", "sekisho-lab"]], "poll": 3600}
    (directory / "settings.json").write_text(json.dumps(settings))
    (directory / "site").mkdir()
    (directory / "pw").write_text(PASSPHRASE)
    (directory / "advisories").mkdir()
    package = {"ecosystem": "PyPI", "name": "of-somebody-else"}
    advisory = {"id": "EXAMPLE-1", "affected": [{"package": package, "versions": ["1.0"]}]}
    (directory / "advisories" / "EXAMPLE-1.json").write_text(json.dumps(advisory))

    def firmware_is_built() -> None:
        document = (directory / "keyset-1.cose").read_bytes()
        for number in range(1, 4):
            (directory / f"firmware-{number}.bin").write_bytes(firmware(f"{number}.0", document))

    company.stage.values["PASSWORD"] = PASSPHRASE
    company.stage.play(RUNBOOKS / "README.md", {"firmware-is-built": firmware_is_built})


@pytest.fixture(scope="session")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    with Sites(tmp_path_factory.mktemp("sites")).serving() as found:
        yield found


@pytest.fixture(scope="session")
def template(sites: Sites, tmp_path_factory: pytest.TempPathFactory) -> Company:
    """The company as the first page leaves it, its server stopped."""
    with pytest.MonkeyPatch.context() as patch:
        company = Company(Stage(tmp_path_factory.mktemp("company"), patch), sites)
        try:
            prepare(company)
        finally:
            company.stop()
    return company


@pytest.fixture
def maker(template: Company, sites: Sites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Company:
    """A copy of the company, for a flow: devices ask its web site."""
    directory = tmp_path / "company"
    shutil.copytree(template.directory, directory)
    return Company(Stage(directory, monkeypatch), sites)


@pytest.fixture
def company(maker: Company, template: Company) -> Iterator[Company]:
    """A copy of the company, for a drill: its update server runs."""
    maker.stage.environment = dict(template.stage.environment)
    maker.serve()
    yield maker
    maker.stop()
