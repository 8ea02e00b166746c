"""Vendor, class and device ids are the UUIDs that SUIT asks for, the same on desk and device."""

import sys
from types import SimpleNamespace
from uuid import UUID

import pytest
from sekisho_tools import identity
from sekisho_tools.errors import ToolError


def test_the_ids_are_the_examples_of_the_suit_draft() -> None:
    # Appendix B of draft-ietf-suit-manifest-37.
    assert identity.vendor_id("arm.com") == UUID("fa6b4a53-d5ad-5fdf-be9d-e663e4d41ffe")
    assert identity.class_id("arm.com", "suit") == UUID("1492af14-2569-5e48-bf42-9b2d51f2ab45")


def test_a_uuid_stands_for_itself() -> None:
    text = "1492af14-2569-5e48-bf42-9b2d51f2ab45"
    assert str(identity.vendor_id(text)) == text
    assert str(identity.class_id("example.com", text)) == text


def test_classes_of_two_vendors_differ() -> None:
    assert identity.class_id("example.com", "board") != identity.class_id("example.org", "board")
    assert identity.class_id("EXAMPLE.com", "board") == identity.class_id("example.com", "board")


@pytest.mark.parametrize("name", ["", "  ", "a\nb"])
def test_an_empty_name_is_refused(name: str) -> None:
    with pytest.raises(ToolError) as caught:
        identity.class_id("example.com", name)
    assert caught.value.code == "IDENTITY"


def test_the_device_makes_the_same_id(monkeypatch: pytest.MonkeyPatch) -> None:
    from sekisho_boot.port import Port

    chip = bytes.fromhex("aabbccddeeff")
    monkeypatch.setitem(sys.modules, "machine", SimpleNamespace(unique_id=lambda: chip))
    port = SimpleNamespace(vendor=identity.vendor_id("example.com").bytes)
    assert Port.device.fget(port) == identity.device_id("example.com", chip).bytes
