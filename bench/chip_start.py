"""What a start with nothing to do costs on genuine MicroPython v1.16 for ESP32, in instructions of the chip.

``make test-chip`` once, then ``PYTHONPATH=tools:host_sim:tests python -m bench.chip_start``. The firmware interprets
bytecode as any MicroPython does, but it is older and slower than what the product supports
(docs/decisions/0011-an-esp32-for-tests.md). The machine code modules are left out.
"""

from __future__ import annotations

import ast
import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / room) for room in (".", "tools", "host_sim", "tests")]

from scripts.chip import compiler  # noqa: E402

os.environ.setdefault("SEKISHO_MPY_CROSS_1_16", compiler())  # before the tests' helpers ask for it

from sekisho_tools import device_code  # noqa: E402
from test_on_the_chip import Twins, device  # noqa: E402

from scripts.bench import BOOT_BUDGET, CHIP_BOOT, CHIP_CLOCK  # noqa: E402

COUNT = """
import utime
def count(call):
    gc.collect()
    start = utime.ticks_cpu()
    call()
    return utime.ticks_cpu() - start & 0x3FFFFFFF
"""
BUILT_IN = """
import sys
for name in ("binascii", "collections", "hashlib", "os", "struct", "time"):
    sys.modules[name] = __import__(name)  # frozen code finds them without a look into the file system, too
"""
BODIES = """
def body(name):
    gc.collect()
    code = compile(open("/" + name + ".txt").read(), name, "exec")
    return count(lambda: exec(code, {"__name__": "body"}))
"""
IMPORTS = """
import sys
def imports():
    global engine, port, p
    for name in [name for name in sys.modules if name.startswith("sekisho_")]:
        del sys.modules[name]
    engine = port = p = None
    gc.collect()
    import sekisho_config
    from sekisho_boot import engine, port
"""


class Hollow(ast.NodeTransformer):
    """Functions without their insides: to run the body of a module makes them, and does not look into them."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        called = node.name == "_fastest"  # by the body; its last statement is what happens without machine code
        node.body = node.body[-1:] if called else [ast.Pass()]
        node.returns = None
        for argument in node.args.args:
            argument.annotation = None
        return node


def sources() -> dict[str, bytes]:
    """The portable modules' bodies, as those of frozen modules are run at every start."""
    out = {}
    for path in sorted((device_code.BOOT / "sekisho_boot").glob("*.py")):
        if not path.stem.endswith("_native"):
            text = ast.unparse(Hollow().visit(ast.parse(path.read_text())))
            text = text.replace("from . import", "from sekisho_boot import").replace("from .", "from sekisho_boot.")
            out[path.stem] = text.encode()
    return out


def measure() -> dict[str, int]:
    """Instructions by what they are spent on."""
    texts = sources()
    desk, _ = device(more={f"{name}.txt": text for name, text in texts.items()})
    desk.power_on()
    with tempfile.TemporaryDirectory() as place:
        twins = Twins(Path(place), desk)
        with twins.on() as board:
            board.run(COUNT)
            empty = int(board.run("print(count(lambda: None))"))
            run = [int(board.run("print(count(lambda: engine.boot(p)))")) - empty for _ in range(3)]
        # Each from a new start, since the heap is small and the second copy of the engine fills it.
        with twins.on() as board:
            board.run(COUNT + BUILT_IN + BODIES)
            bodies = {name: int(board.run(f"print(body({name!r}))")) - empty for name in texts}
        imports = []
        for before in (COUNT, COUNT + BUILT_IN):
            with twins.on() as board:
                board.run(before + IMPORTS)
                imports.append(int(board.run("print(count(imports))")) - empty)
        searching, loaded = imports
    return {
        "engine": sorted(run)[1],
        "bodies": sum(bodies.values()),
        "imports": loaded,
        "search": searching - loaded,
    }


def main() -> int:
    """Measure and print."""
    cost = measure()
    budget = BOOT_BUDGET * CHIP_BOOT * CHIP_CLOCK
    print(f"the engine's run, nothing to do          {cost['engine']:12,}")
    print(f"bodies of its modules, once a start      {cost['bodies']:12,}")
    print(f"importing it from .mpy files in littlefs {cost['imports']:12,}")
    print(f"looking there for built-in modules first {cost['search']:12,}")
    print(f"3 % of a start of {1000 * CHIP_BOOT:.0f} ms at {CHIP_CLOCK / 1e6:.0f} MHz      {budget:12,.0f} cycles")
    share = (cost["engine"] + cost["bodies"]) / CHIP_BOOT / CHIP_CLOCK
    print(f"run and bodies, were an instruction a cycle {share:9.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
