"""The examples of docs/application.md, each run on the simulated device as it stands there."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import powercut
from helpers.site import Product, consoles, firmware, run
from sekisho_sim.device import Limits, power_cycle
from sekisho_tools import config
from sekisho_tools.serve import StaticServer

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
GUIDE = EXAMPLES.parent / "application.md"
OLD, NEW = firmware("old", 20_000), firmware("new", 30_000)


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    made = Product(tmp_path)
    with StaticServer(made.root) as server:
        made.server = server.url
        yield made


def text(name: str) -> str:
    return (EXAMPLES / name).read_text()


def test_every_example_is_on_the_page_and_tested_here() -> None:
    page, tests = GUIDE.read_text(), Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f"(examples/{path.name})" in page, path
        assert f'"{path.name}"' in tests or path.name == "try_it.py", path


@pytest.mark.requirement("UPE13", "UPE14")
def test_the_lamp_is_updated_confirmed_and_switched_off_before_each_restart(product: Product) -> None:
    lamp = text("lamp.py")
    assert len([line for line in lamp.splitlines() if line and not line.startswith("#")]) <= 20
    product.personalities.default = product.personality(application=lamp)
    world = product.factory(OLD)
    product.offer(2, NEW, application=lamp)
    console = consoles(run(world, "sekisho: confirmed"))
    assert re.search(r"release 2 staged\n(.*\n)*lamp off\nsekisho: restarting", console)
    dark = lamp.replace("        lit.set()\n", "")
    product.offer(3, firmware("dark", 30_000), application=dark)
    console = consoles(run(world, "release 3 failed: HEALTH"))
    assert "health check failed" in console


def test_an_application_without_asyncio_updates_itself(product: Product) -> None:
    plain = text("plain.py")
    product.personalities.default = product.personality(main=plain)
    world = product.factory(OLD)
    product.offer(2, NEW, main=plain)
    console = consoles(run(world, "sekisho: confirmed", seconds=90))
    assert "release 2 staged" in console
    assert "working" in console


@pytest.mark.requirement("UPE13")
def test_a_sensor_that_sleeps_is_updated_and_a_wake_writes_nothing(product: Product) -> None:
    sensor = text("sensor.py").replace("SLEEP = 300", "SLEEP = 10")
    product.personalities.default = product.personality(main=sensor)
    world = product.factory(OLD)
    powercut.settle(world)
    wakes = list(power_cycle(world, limits=Limits(40), max_boots=4))
    assert {result.cause for result in wakes} == {"deep-sleep"}
    assert all("measured" in result.console for result in wakes)
    quiet = [result for result in wakes if "sekisho:" not in result.console]
    assert quiet, [result.console for result in wakes]
    assert all(not result.ops for result in quiet), "a wake with nothing to do costs no flash"
    product.offer(2, NEW, main=sensor)
    results = list(power_cycle(world, limits=Limits(40, "sekisho: confirmed"), max_boots=30))
    console = consoles(results)
    assert "release 2 staged" in console
    assert "sekisho: confirmed" in console


def test_data_goes_forward_with_an_update_and_is_still_there_after_a_rollback(product: Product) -> None:
    newer = text("counter.py")
    older = newer.replace("VERSION = 2", "VERSION = 1").replace("None if sekisho.on_trial() else _read(2)", "_read(1)")
    older = older.replace('found = {"count": old["count"] if old else 0, "unit": "turns"}', 'found = {"count": 0}')
    older = older.split("    if not sekisho.on_trial()")[0]
    use = """
import counter
import sekisho
async def main():
    values = counter.load()
    values["count"] += 1
    counter.save(values)
    print("count", sorted(values.items()))
"""
    product.personalities.default = product.personality(application=use, counter=older)
    world = product.factory(OLD)
    run(world, "count [('count', ")
    bad = use.replace("import sekisho\n", "import sekisho\nsekisho.on_health(lambda: False)\n")
    product.offer(2, NEW, application=bad, counter=newer)
    console = consoles(run(world, "release 2 failed: HEALTH"))
    tried = [json.loads(found) for found in re.findall(r"'count', (\d+)\), \('unit'", console)]
    assert tried, console
    kept = [int(found) for found in re.findall(r"\[\('count', (\d+)\)\]", console)]
    after = consoles(run(world, "[('count', "))
    assert int(re.findall(r"\[\('count', (\d+)\)\]", after)[0]) > max(kept), "the older version goes on with its own"
    product.offer(3, firmware("third", 30_000), application=use, counter=newer)
    console = consoles(run(world, "sekisho: confirmed"))
    assert "('unit', 'turns')" in console


def test_an_application_is_tried_in_the_simulator_as_the_page_says(product: Product) -> None:
    sys.path.insert(0, str(EXAMPLES))
    try:
        import try_it  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(EXAMPLES))
    world = product.factory(OLD)
    found = try_it.run(world.flash_path.read_bytes(), config.render(product.device), text("lamp.py"), "lamp on")
    assert found[-1].cause == "until"
