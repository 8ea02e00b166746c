"""docs/suit-profile.md says what the code does."""

import re
from pathlib import Path

import pytest
from sekisho_boot import cbor, cose, reasons, suit
from sekisho_tools import suit_names

TEXT = (Path(__file__).parents[1] / "docs" / "suit-profile.md").read_text()
ENGINE, TOOLS = TEXT.split("## What the tools read")


def section(title):
    return re.search(rf"^### {title}\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)[1]


@pytest.mark.invariant(8)
def test_limits_are_the_constants():
    rows = re.findall(r"^\| .*? \| (\d+).*? \| `(\w+)\.(\w+)` \|$", section("Limits"), re.MULTILINE)
    modules = {"suit": suit, "cose": cose, "cbor": cbor}
    assert len(rows) == 9
    for value, module, constant in rows:
        assert getattr(modules[module], constant) == int(value), constant


def test_reasons_exist():
    for name in re.findall(r"`([A-Z][A-Z_]+)`", ENGINE):
        assert isinstance(getattr(reasons, name), int), name


def test_every_reason_that_the_verifier_gives_is_in_the_order_of_checks():
    order = section("Order of checks")
    for module in (suit, cose, cbor):
        source = Path(module.__file__).read_text()
        for name in set(re.findall(r"\b[A-Z][A-Z_]+\b", source)) & set(vars(reasons)):
            assert f"`{name}`" in order or name in ("KEYSET",), name


@pytest.mark.parametrize(("title", "names"), [("Commands", suit_names.COMMANDS), ("Parameters", suit_names.PARAMETERS)])
def test_names_and_numbers_are_the_registered_ones(title, names):
    rows = re.findall(r"^\| (\d+) \| (?:condition-|directive-)?([\w-]+) \|", section(title), re.MULTILINE)
    assert len(rows) in (8, 9)
    assert all(names[int(number)] == name for number, name in rows)
    for name, number in re.findall(r"\b([a-z][a-z-]+) \((\d+)\)", section(title)):
        assert names[int(number)] == name


def numbers(row):
    found = set()
    for low, high in re.findall(r"(?<!-)\b(\d+)(?: to (\d+))?", row):
        found |= set(range(int(low), int(high or low) + 1))
    return found


def test_what_the_tools_read_is_complete():
    rows = dict(re.findall(r"^\| (\w+) \| (.*) \|$", TOOLS, re.MULTILINE))
    assert numbers(rows["envelope"]) == set(suit_names.ENVELOPE_MEMBERS)
    assert numbers(rows["manifest"]) == set(suit_names.MANIFEST_MEMBERS)
    assert numbers(rows["conditions"]) == set(suit_names.CONDITIONS)
    assert numbers(rows["directives"].split(", custom")[0]) == set(suit_names.DIRECTIVES)
    assert numbers(rows["parameters"]) == set(suit_names.PARAMETERS)
