"""Mutation testing of the engine's modules: change one operator, constant or branch, and see whether a test notices.

    python scripts/mutation.py                       every mutant of the pure modules; writes docs/evidence/mutation.md
    python scripts/mutation.py --module otadata      of one module; `engine` is so large that it must be asked for

mutmut rewrites files and imports them anew for each mutant, which modules with `from micropython import const` and a
device path do not survive. Here one process collects the tests and runs them once, noting which lines each one reaches;
each mutant is a fork of it in which the code of the changed function is replaced in place, so that every name that was
imported from it follows, and which runs only the tests that reach the changed statement, the quickest first.

Mutants that cannot make a difference are listed in tests/seeded/equivalent.toml, each with the reason.
"""

from __future__ import annotations

import argparse
import ast
import copy
import fcntl
import importlib
import json
import os
import signal
import sys
import time
import tomllib
import types
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / name) for name in ("tests", "tests/pure", "host_sim", "tools")]

import pytest  # noqa: E402
from sekisho_tools import device_code  # noqa: E402
from sekisho_tools.files import write_atomic  # noqa: E402

EQUIVALENT: dict[str, str] = {
    one["name"]: one["reason"]
    for one in tomllib.loads((ROOT / "tests" / "seeded" / "equivalent.toml").read_text())["mutant"]
}
BOOT = ROOT / "boot" / "sekisho_boot"
PURE = ("cbor", "cose", "image", "keyset", "ledger", "otadata", "records", "suit")
MODULES = (*PURE, "flash", "engine")
TESTS = (
    "tests/pure",
    *[
        f"tests/test_{name}.py"
        for name in (
            "efuse_floor",
            "engine",
            "engine_invariants",
            "engine_promises",
            "flash_model",
            "fuzz_regressions",
            "image_agreement",
            "keyset_tuf",
            "ledger_model",
            "otadata",
            "suit_profile",
            "suit_vectors",
        )
    ],
)
HANGS = 3.0
"""A mutant hangs when a test takes so many seconds of processor time and three times what it took with the tracer."""

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


_SIGNS: dict[type, str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.FloorDiv: "//",
    ast.LShift: "<<",
    ast.RShift: ">>",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.Mod: "%",
}


def _variants(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What a node can be replaced with."""
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            changed = copy.deepcopy(node)
            changed.ops[index] = _COMPARE[type(operator)]()
            yield f"{_SIGNS[type(operator)]} becomes {_SIGNS[_COMPARE[type(operator)]]}", changed
    elif isinstance(node, ast.BoolOp):
        changed_bool = copy.deepcopy(node)
        changed_bool.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and becomes or" if isinstance(node.op, ast.And) else "or becomes and", changed_bool
    elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        changed_binary = copy.deepcopy(node)
        changed_binary.op = _BINARY[type(node.op)]()
        yield f"{_SIGNS[type(node.op)]} becomes {_SIGNS[_BINARY[type(node.op)]]}", changed_binary
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "without not", node.operand
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield f"{node.value} becomes {node.value + 1}", ast.copy_location(ast.Constant(node.value + 1), node)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield f"{node.value} becomes {not node.value}", ast.copy_location(ast.Constant(not node.value), node)
    elif isinstance(node, (ast.Raise, ast.Continue, ast.AugAssign)) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield "removed", ast.copy_location(ast.Pass(), node)


class _Replace(ast.NodeTransformer):
    def __init__(self, target: ast.AST, new: ast.AST) -> None:
        self.target, self.new = target, new

    def visit(self, node: ast.AST) -> ast.AST:
        """Puts the new node in the place of the target."""
        return self.new if node is self.target else super().visit(node)


@dataclass
class Mutant:
    """One change: *name* is stable while the line stays as it is, *lines* those of the changed statement."""

    name: str
    module: str
    lines: range
    source: str = ""
    constant: tuple[str, int] | None = None


def _own(statement: ast.stmt) -> Iterator[ast.AST]:
    """A statement and its expressions, without the statements in it."""
    rest: list[ast.AST] = [statement]
    while rest:
        one = rest.pop(0)
        yield one
        rest[:0] = [child for child in ast.iter_child_nodes(one) if not isinstance(child, ast.stmt)]


def _own_lines(statement: ast.stmt) -> range:
    """The lines of a statement, without those of the statements in it."""
    inside = [child.lineno for child in ast.walk(statement) if isinstance(child, ast.stmt) and child is not statement]
    last = min(inside) - 1 if inside else statement.end_lineno or statement.lineno
    return range(statement.lineno, max(last, statement.lineno) + 1)


def mutants(module: str, *, sources: bool = True) -> list[Mutant]:
    """Every mutant of the functions and of the integer constants of a module; without *sources* only their names."""
    source = (BOOT / f"{module}.py").read_text()
    tree, lines = ast.parse(source), source.splitlines()
    found: list[Mutant] = []
    counted: dict[str, int] = {}

    def add(where: str, what: str, line: int, **options: object) -> None:
        base = f"{module}.{where}: {what}: `{lines[line - 1].strip()}`"
        counted[base] = counted.get(base, 0) + 1
        name = base if counted[base] == 1 else f"{base} #{counted[base]}"
        found.append(Mutant(name, module, **options))  # type: ignore[arg-type]

    owners: list[tuple[str, ast.FunctionDef]] = []
    for top in tree.body:
        if isinstance(top, ast.FunctionDef):
            owners.append((top.name, top))
        elif isinstance(top, ast.ClassDef):
            owners += [(f"{top.name}.{one.name}", one) for one in top.body if isinstance(one, ast.FunctionDef)]
        elif isinstance(top, ast.Assign) and isinstance(top.value, ast.Call) and isinstance(top.targets[0], ast.Name):
            call = top.value
            if isinstance(call.func, ast.Name) and call.func.id == "const" and isinstance(call.args[0], ast.Constant):
                value, name = call.args[0].value, top.targets[0].id
                if isinstance(value, int):
                    add(
                        "module", f"{value} becomes {value + 1}", top.lineno, lines=range(0), constant=(name, value + 1)
                    )
    for name, function in owners:
        for statement in [one for one in ast.walk(function) if isinstance(one, ast.stmt) and one is not function]:
            for node in list(_own(statement)):
                for what, new in _variants(node):
                    mutated = ""
                    if sources:
                        clone = _Replace(node, new).visit(tree)
                        mutated = ast.unparse(ast.fix_missing_locations(clone))
                        _Replace(new, node).visit(tree)
                    line = getattr(node, "lineno", statement.lineno)
                    add(name, what, line, lines=_own_lines(statement), source=mutated)
    return found


def _codes(code: types.CodeType, prefix: str = "") -> dict[str, types.CodeType]:
    """Every function's code object in a module's, by qualified name."""
    found = {}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found[prefix + constant.co_name] = constant
            found |= _codes(constant, f"{prefix}{constant.co_name}.")
    return found


def _plant(mutant: Mutant) -> None:
    """Replaces the code of every function of a loaded module, or one constant wherever it was imported to."""
    loaded = importlib.import_module(f"sekisho_boot.{mutant.module}")
    if mutant.constant:
        name, value = mutant.constant
        for other in MODULES:
            scope = vars(importlib.import_module(f"sekisho_boot.{other}"))
            if other == mutant.module or scope.get(name) == value - 1:
                scope[name] = value
            for one_function in _functions(scope):
                if name in _default_names(other, one_function.__qualname__):
                    given = one_function.__defaults__ or ()
                    one_function.__defaults__ = tuple(value if one == value - 1 else one for one in given)
        return
    codes = _codes(compile(mutant.source, f"{mutant.module}.py", "exec"))
    owners = [("", loaded)] + [(f"{name}.", one) for name, one in vars(loaded).items() if isinstance(one, type)]
    for prefix, owner in owners:
        for name, value in list(vars(owner).items()):
            function: object = value.fget if isinstance(value, property) else value
            if isinstance(function, types.FunctionType) and function.__module__ == loaded.__name__:
                new = codes.get(prefix + name)
                if new is not None:
                    function.__code__ = new


def _functions(scope: dict[str, object]) -> Iterator[types.FunctionType]:
    for value in scope.values():
        if isinstance(value, types.FunctionType):
            yield value
        elif isinstance(value, type):
            yield from (one for one in vars(value).values() if isinstance(one, types.FunctionType))


def _default_names(module: str, function: str) -> set[str]:
    """The constants that stand as default values in the head of a function."""
    tree = ast.parse((BOOT / f"{module}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == function.rpartition(".")[2]:
            return {one.id for one in node.args.defaults if isinstance(one, ast.Name)}
    return set()


@dataclass
class Run:
    """The tests, what each reaches, and the verdicts. A pytest plugin: the loop over the tests is replaced."""

    modules: list[str]
    workers: int
    tests: str
    killed: dict[str, str] = field(default_factory=dict)
    survivors: list[Mutant] = field(default_factory=list)
    tried: dict[str, int] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)
    failed: str = ""

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Runs the tests once with a tracer, then all mutants."""
        items = session.items
        reached, took = self._trace(items)
        self.failed = self.failed or _failing_again(items)
        if self.failed:
            return True
        for module in self.modules:
            self._module(module, items, reached, took)
        return True

    def _trace(self, items: list[pytest.Item]) -> tuple[list[set[tuple[str, int]]], list[float]]:
        reached, took = [], []
        names = {str(BOOT / f"{module}.py"): module for module in MODULES}
        lines: set[tuple[str, int]] = set()

        def local(frame: types.FrameType, event: str, _argument: object) -> object:
            if event == "line":
                lines.add((names[frame.f_code.co_filename], frame.f_lineno))
            return local

        def called(frame: types.FrameType, _event: str, _argument: object) -> object:
            return local if frame.f_code.co_filename in names else None

        for item in items:
            lines = set()
            began = time.monotonic()
            sys.settrace(called)  # type: ignore[arg-type]
            try:
                good = _passes(item)
            finally:
                sys.settrace(None)
            took.append(time.monotonic() - began)
            reached.append(lines)
            if not good:
                self.failed = item.nodeid
                break
        return reached, took

    def _module(
        self, module: str, items: list[pytest.Item], reached: list[set[tuple[str, int]]], took: list[float]
    ) -> None:
        began, every, kills = time.monotonic(), mutants(module), dict[int, int]()
        queue, running = list(every), dict[int, tuple[Mutant, float, int]]()
        numbers = range(len(items))
        while queue or running:
            while queue and len(running) < self.workers:
                mutant = queue.pop(0)
                wanted = {(module, line) for line in mutant.lines or range(2000)}
                named = f"test_{module}." if mutant.constant else "-"  # a test that compares constants runs no line
                chosen = [at for at in numbers if not wanted.isdisjoint(reached[at]) or named in items[at].nodeid]
                # Those first that noticed much for the time they take.
                chosen.sort(key=lambda at: took[at] / (1 + kills.get(at, 0)))
                told, tell = os.pipe()
                pid = os.fork()
                if pid == 0:
                    os.close(told)
                    _try(mutant, [(at, items[at], took[at]) for at in chosen], tell)
                os.close(tell)
                running[pid] = mutant, time.monotonic() + 60 + 10 * sum(took[at] for at in chosen), told
            for pid, (mutant, end, told) in list(running.items()):
                done, _ = os.waitpid(pid, os.WNOHANG)
                late = time.monotonic() > end
                if not done and not late:
                    continue
                said = os.read(told, 64) if done else b""
                os.close(told)
                _kill_group(pid)
                if not done:
                    os.waitpid(pid, 0)
                del running[pid]
                if said == b"none":
                    self.survivors.append(mutant)
                    if mutant.name not in EQUIVALENT:
                        print(f"    {mutant.name}", flush=True)
                else:
                    at = int(said) if said.isdigit() else -1
                    kills[at] = kills.get(at, 0) + 1
                    self.killed[mutant.name] = items[at].nodeid if at >= 0 else "it hangs or crashes"
            time.sleep(0.002)
        self.tried[module], self.took[module] = len(every), time.monotonic() - began
        record(self, module, self.tests)
        left = [one for one in self.survivors if one.module == module]
        print(
            f"{module}: {len(every) - len(left)} of {len(every)} noticed, {time.monotonic() - began:.0f} s", flush=True
        )


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _passes(item: pytest.Item) -> bool:
    from _pytest.runner import runtestprotocol

    return all(not report.failed for report in runtestprotocol(item, log=False, nextitem=None))


def _failing_again(items: list[pytest.Item]) -> str:
    """The first test that fails when it is run again in a child, without a mutant: it would notice every mutant."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            os.dup2(null, 2)
            failed = next((item.nodeid for item in items if not _passes(item)), "")
            os.write(tell, failed.encode())
        finally:
            os._exit(0)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        failed = pipe.read().decode()
    os.waitpid(pid, 0)
    return failed and f"{failed}, run again"


def _try(mutant: Mutant, chosen: list[tuple[int, pytest.Item, float]], tell: int) -> None:
    """In the child: the mutant, the tests until one fails; tells its number, or ``none``. Does not return."""
    try:
        os.setpgid(0, 0)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 2)
        _plant(mutant)
        for at, item, took in chosen:
            signal.setitimer(signal.ITIMER_PROF, HANGS + 3 * took)  # whose signal ends the process
            if not _passes(item):
                os.write(tell, str(at).encode())
                break
        else:
            os.write(tell, b"none")
    finally:
        os._exit(0)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--module", action="append", choices=MODULES, help="only this one")
    parser.add_argument("--pure", action="store_true", help="only the tests in tests/pure (quick)")
    parser.add_argument("--tests", action="append", metavar="FILE", help="only the tests in this file (quicker)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ["SEKISHO_SEEDED"] = "1"
    import hypothesis

    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)  # a failure is enough; it need not be made small
    hypothesis.settings.register_profile("mutation", phases=phases, database=None, deadline=None)
    hypothesis.settings.load_profile("mutation")
    tests = options.tests or (TESTS[:1] if options.pure else TESTS)
    named = ", ".join(Path(one).stem for one in options.tests or ()) or ("pure" if options.pure else "all")
    run = Run(options.module or [*PURE, "flash"], options.workers, named)
    arguments = ["-q", "--no-header", "--timeout=0", "-p", "no:cacheprovider", "-p", "no:faulthandler"]
    pytest.main([*arguments, "--hypothesis-seed=1", *tests], plugins=[run])
    if run.failed or not run.tried:
        print(f"error[MUTATION]: without a mutant there is a failure: {run.failed or 'no tests'}", file=sys.stderr)
        return 1
    known = [one for one in run.survivors if one.name in EQUIVALENT]
    left = [one for one in run.survivors if one.name not in EQUIVALENT]
    wrong = [name for name in EQUIVALENT if name in run.killed]
    gone = [name for name in EQUIVALENT if name.split(".")[0] in run.tried and name not in run.killed]
    gone = [name for name in gone if name not in [one.name for one in known]]
    for name in [*wrong, *gone]:
        print(f"listed as without effect, but {'noticed' if name in wrong else 'not there'}: {name}")
    return 1 if left or wrong or gone else 0


def record(run: Run, module: str, tests: str) -> None:
    """Puts the numbers of one module into docs/evidence/mutation.json and writes the page anew."""
    path = ROOT / "docs" / "evidence" / "mutation.json"
    survivors = [one.name for one in run.survivors if one.module == module]
    row = {
        "module": module,
        "boot": device_code.boot_digest(),
        "tests": tests,
        "mutants": run.tried[module],
        "noticed": run.tried[module] - len(survivors),
        "equivalent": [name for name in survivors if name in EQUIVALENT],
        "left": [name for name in survivors if name not in EQUIVALENT],
        "seconds": round(run.took[module]),
    }
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)  # modules may be tried by several processes at a time
        _put(path, row)
    finally:
        os.close(directory)


def _put(path: Path, row: dict[str, Any]) -> None:
    try:
        rows = {one["module"]: one for one in json.loads(path.read_text())["modules"]}
    except (OSError, KeyError, ValueError):
        rows = {}
    rows[row["module"]] = row
    ordered = [rows[name] for name in MODULES if name in rows]
    boots = {one["boot"] for one in ordered}
    content = {"boot": boots.pop() if len(boots) == 1 else "several", "modules": ordered}
    write_atomic(path, (json.dumps(content, indent=1) + "\n").encode())
    write_atomic(path.with_suffix(".md"), page(ordered).encode())


def page(rows: list[dict[str, Any]]) -> str:
    """The page in docs/evidence."""

    def line(name: str, tests: str, boot: str, counts: list[int]) -> str:
        score = f"{100 * counts[1] / max(1, counts[0] - counts[2]):.1f} %"
        return f"| {name} | {tests} | {boot} | {' | '.join(map(str, counts))} | {score} |"

    counts = [[row["mutants"], row["noticed"], len(row["equivalent"]), len(row["left"])] for row in rows]
    total = [sum(column) for column in zip(*counts, strict=True)]
    lines = [
        line(f"`{row['module']}`", row["tests"], row["boot"][:16], count)
        for row, count in zip(rows, counts, strict=True)
    ]
    lines.append(line("**these**", "", "", total))
    missing = [f"`{name}`" for name in MODULES if name not in [row["module"] for row in rows]]
    table = "\n".join(lines)
    left = "\n".join(f"* `{name.replace('`', '')}`" for row in rows for name in row["left"]) or "None."
    same = "\n".join(f"* `{name.replace('`', '')}` - {EQUIVALENT[name]}" for row in rows for name in row["equivalent"])
    return f"""# Mutation testing

Written by `make mutation`; do not edit. One operator, constant, condition or statement of a module is changed at a
time, each of them; the tests that reach it run until one fails. Unchanged code passes them all. What each change is,
and which tests run: `scripts/mutation.py`. *Tests*: "pure" are those in tests/pure alone; where files are named, only
those ran, so that more may be noticed than is said here; "all" are those in which the module runs on CPython. *boot/*:
the digest it was recorded for.

**{total[1]} of {total[0]} mutants are noticed; {total[2]} can make no difference; {total[3]} are not noticed.**

| module | tests | boot/ | mutants | noticed | no difference | not noticed | score |
|---|---|---|---:|---:|---:|---:|---:|
{table}

Not in it: {", ".join(missing) or "nothing"}. Bugs are seeded into all modules one by one (`seeded-bugs.md`), and the
campaign judges what the engine leaves in flash.

## Not noticed

{left}

## Can make no difference

{same or "None."}
"""


if __name__ == "__main__":
    sys.exit(main())
