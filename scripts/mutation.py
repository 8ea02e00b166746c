"""Mutation testing of the engine's modules: change one operator, constant or branch, and see whether a test notices.

    python scripts/mutation.py                       a sample of every module; writes docs/evidence/mutation.md
    python scripts/mutation.py --module otadata --all

mutmut rewrites files and imports them anew for each mutant, which modules with `from micropython import const` and a
device path do not survive. Here one process loads the tests; each mutant is a fork of it in which the code objects of
the changed module are replaced in place, so that every name that was imported from it follows.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import os
import random
import signal
import sys
import time
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / name) for name in ("tests", "tests/pure", "host_sim", "tools")]

import pytest  # noqa: E402
from sekisho_tools.files import write_atomic  # noqa: E402

BOOT = ROOT / "boot" / "sekisho_boot"
_ENGINE = ("tests/test_engine.py", "tests/test_engine_invariants.py")
_PURE = tuple(f"tests/pure/test_{name}.py" for name in ("cbor", "cose", "keyset", "suit"))
TESTS = {
    "otadata": (*_ENGINE, "tests/test_otadata.py"),
    "records": _ENGINE,
    "flash": ("tests/test_otadata.py", *_ENGINE),
    "image": _ENGINE,
    "engine": _ENGINE,
    "ledger": (*_ENGINE, "tests/test_ledger_model.py"),
    "cbor": _PURE,
    "cose": _PURE,
    "keyset": (*_PURE, "tests/test_keyset_tuf.py"),
    "suit": (*_PURE, *_ENGINE),
}
SAMPLE = 24
"""Mutants of a module that are tried by default, chosen by chance with a fixed seed."""
LIMIT = 60.0
"""Seconds until a mutant counts as noticed because it hangs."""

_COMPARE = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_BINARY = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Mod: ast.Mult,
}


def _variants(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What a node can be replaced with."""
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            changed = copy.deepcopy(node)
            changed.ops[index] = _COMPARE[type(operator)]()
            yield "comparison", changed
    elif isinstance(node, ast.BoolOp):
        changed_bool = copy.deepcopy(node)
        changed_bool.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and/or", changed_bool
    elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        changed_binary = copy.deepcopy(node)
        changed_binary.op = _BINARY[type(node.op)]()
        yield "arithmetic", changed_binary
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not", node.operand
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield "constant", ast.copy_location(ast.Constant(node.value + 1), node)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield "constant", ast.copy_location(ast.Constant(not node.value), node)
    elif isinstance(node, (ast.Raise, ast.Continue, ast.AugAssign)) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield "statement removed", ast.copy_location(ast.Pass(), node)


class _Replace(ast.NodeTransformer):
    def __init__(self, target: ast.AST, new: ast.AST) -> None:
        self.target, self.new = target, new

    def visit(self, node: ast.AST) -> ast.AST:
        """Puts the new node in the place of the target."""
        return self.new if node is self.target else super().visit(node)


def mutants(module: str) -> list[tuple[str, str, str]]:
    """(where, what, source) of every mutant of the functions of a module."""
    source = (BOOT / f"{module}.py").read_text()
    tree = ast.parse(source)
    found = []
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    nodes = {id(node): node for function in functions for part in function.body for node in ast.walk(part)}
    for node in nodes.values():
        for what, new in _variants(node):
            line = getattr(node, "lineno", 0)
            text = source.splitlines()[line - 1].strip()
            clone = _Replace(node, new).visit(tree)
            mutated = ast.unparse(ast.fix_missing_locations(clone))
            _Replace(new, node).visit(tree)
            found.append((f"{module}.py:{line}", f"{what}: `{text}`", mutated))
    return found


def _codes(code: types.CodeType, prefix: str = "") -> dict[str, types.CodeType]:
    """Every function's code object in a module's, by qualified name."""
    found = {}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found[prefix + constant.co_name] = constant
            found |= _codes(constant, f"{prefix}{constant.co_name}.")
    return found


def _plant(module: str, source: str) -> None:
    """Replaces the code of every function of a loaded module."""
    codes = _codes(compile(source, f"{module}.py", "exec"))
    loaded = importlib.import_module(f"sekisho_boot.{module}")
    owners = [("", loaded)] + [(f"{name}.", one) for name, one in vars(loaded).items() if isinstance(one, type)]
    for prefix, owner in owners:
        for name, value in list(vars(owner).items()):
            function = value.fget if isinstance(value, property) else value
            if isinstance(function, types.FunctionType) and function.__module__ == loaded.__name__:
                new = codes.get(prefix + name)
                if new is not None:
                    function.__code__ = new


def survives(module: str, source: str, tests: tuple[str, ...]) -> bool:
    """Whether no test notices the mutant."""
    pid = os.fork()
    if pid == 0:
        status = 3
        try:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            os.dup2(null, 2)
            _plant(module, source)
            options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:faulthandler", "--hypothesis-seed=1"]
            status = int(pytest.main([*options, *tests]))
        finally:
            os._exit(status)
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--module", action="append", choices=sorted(TESTS), help="only this one")
    parser.add_argument("--all", action="store_true", help="every mutant instead of a sample")
    parser.add_argument("--sample", type=int, default=SAMPLE)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ["SEKISHO_SEEDED"] = "1"
    importlib.import_module("sekisho_tools.device_code")
    for name in ("helpers.desk", "helpers.release", "hypothesis.stateful"):
        importlib.import_module(name)
    modules = options.module or list(TESTS)
    rows, survivors = [], []
    began = time.monotonic()
    for module in modules:
        every = mutants(module)
        chosen = every
        if not options.all and len(every) > options.sample:
            chosen = random.Random(module).sample(every, options.sample)  # noqa: S311 (a sample, no secret)
        with ThreadPoolExecutor(options.workers) as pool:
            alive = list(pool.map(lambda one, name=module: survives(name, one[2], TESTS[name]), chosen))
        left = [one for one, still in zip(chosen, alive, strict=True) if still]
        rows.append((module, len(every), len(chosen), len(chosen) - len(left)))
        survivors += [(where, what) for where, what, _ in left]
        print(f"{module}: {len(chosen) - len(left)} of {len(chosen)} noticed", flush=True)
        for where, what, _ in left:
            print(f"    {where} {what}", flush=True)
    if not options.module:
        write_atomic(
            ROOT / "docs" / "evidence" / "mutation.md", page(rows, survivors, time.monotonic() - began).encode()
        )
    return 0


def page(rows: list[tuple[str, int, int, int]], survivors: list[tuple[str, str]], took: float) -> str:
    """The page in docs/evidence."""
    tried, killed = sum(row[2] for row in rows), sum(row[3] for row in rows)
    lines = "\n".join(
        f"| `{name}` | {every} | {some} | {hit} | {100 * hit // some} % |" for name, every, some, hit in rows
    )
    left = "\n".join(f"* `{where}` {what}" for where, what in survivors)
    return f"""# Mutation testing

Written by `python scripts/mutation.py`; do not edit. One operator, constant, condition or statement of a function of
boot/ is changed at a time; the tests that cover the module run until one fails. Unchanged code passes them all.

**{killed} of {tried} mutants are noticed ({100 * killed // tried} %)**, {took:.0f} seconds.

| module | mutants | tried | noticed | |
|---|---:|---:|---:|---:|
{lines}

## Not noticed

{left}
"""


if __name__ == "__main__":
    sys.exit(main())
