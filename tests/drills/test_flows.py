"""The guideline's three flows, played from docs/flows with simulated devices."""

from __future__ import annotations

import pytest
from helpers.pages import REPO
from sekisho_tools import flashimage, issued
from sekisho_tools.serve import StaticServer

from drills.conftest import Company
from drills.test_drills import put_release

FLOWS = REPO / "docs" / "flows"


@pytest.mark.requirement("UPE04", "UPE06")
def test_consumer(maker: Company) -> None:
    device = maker.fleet.new()
    device.change_settings(update_start="user")

    def device_asks_its_user() -> None:
        printed = device.until("sekisho: APPROVAL")
        assert "fetched" not in printed, "nothing is fetched before the user has decided"

    def user_says_yes() -> None:
        device.change_settings(update_start="automatic")
        device.until("sekisho: confirmed")

    maker.stage.play(
        FLOWS / "consumer.md", {"device-asks-its-user": device_asks_its_user, "user-says-yes": user_says_yes}
    )
    maker.fleet.safe_and_updated(maker.firmware(2), 2, maker.file("keyset-1.cose"))


@pytest.mark.requirement("UPC05", "UPE04")
def test_industrial(maker: Company) -> None:
    device = maker.fleet.new()
    maker.sites.root = maker.directory / "local"
    with StaticServer(maker.directory / "site") as site:
        maker.stage.values["URL"] = site.url

        def maker_publishes() -> None:
            roots = "--key keys/root-1.key --key keys/root-2.key"
            maker.stage.run(f"sekisho keyset replace keyset-2.cose --previous keyset-1.cose {roots}")
            put_release(maker, 2)
            maker.stage.run(f"sekisho publish --to site --class {maker.home.name} keyset-2.cose")

        def plant_has_nothing_new() -> None:
            printed = device.until("sekisho: NOTHING")
            assert "key set 2 accepted" in printed, "revocations do not wait for the approval"

        def plant_updates() -> None:
            device.until("sekisho: confirmed")

        maker.stage.play(
            FLOWS / "industrial.md",
            {
                "maker-publishes": maker_publishes,
                "plant-has-nothing-new": plant_has_nothing_new,
                "plant-updates": plant_updates,
            },
        )
    maker.fleet.safe_and_updated(maker.firmware(2), 2, maker.file("keyset-2.cose"))


@pytest.mark.requirement("STS01", "UPC11")
def test_outsourced(maker: Company) -> None:
    # What a device with a serial console would be asked for: its identity, as its own firmware reads it.
    maker.fleet.modules["application"] = (
        "from sekisho import issued\nfound = issued.load()\nprint('application: I am', found['id'].hex())\n"
        "async def main():\n    pass\n"
    )

    def device_has_its_identity() -> None:
        folder = next((maker.directory / "devices").iterdir())
        assert issued.read_record(folder).physical == "24:0a:c4:00:00:01"
        config = flashimage.config_beside(maker.directory / "flash.bin")
        common = maker.file("flash.bin")
        (maker.directory / "flash.bin").write_bytes((folder / "flash.bin").read_bytes())
        device = maker.fleet.new()
        (maker.directory / "flash.bin").write_bytes(common)
        assert config.exists()
        assert f"application: I am {folder.name.replace('-', '')}" in device.until("sekisho: NOTHING")

    def issued_device_updates() -> None:
        printed = maker.fleet.devices[0].until("sekisho: confirmed")
        assert "application: I am" in printed, "the new firmware has the same identity"

    maker.stage.play(
        FLOWS / "outsourced.md",
        {"device-has-its-identity": device_has_its_identity, "issued-device-updates": issued_device_updates},
    )
    maker.fleet.safe_and_updated(maker.firmware(2), 2, maker.file("keyset-1.cose"))


def test_every_flow_is_played_listed_and_drawn() -> None:
    pages = {page.stem for page in FLOWS.glob("*.md")} - {"README"}
    assert pages == {"consumer", "industrial", "outsourced"}
    for page in pages:
        text = (FLOWS / f"{page}.md").read_text()
        assert "```mermaid\nsequenceDiagram" in text
        assert f"({page}.md)" in (FLOWS / "README.md").read_text()
