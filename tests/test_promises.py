"""Every invariant and every rule has a test that carries its name, and every refusal of boot/ has a name."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest
from sekisho_boot import reasons
from sekisho_tools import device_code

ROOT = Path(__file__).parents[1]

spec = importlib.util.spec_from_file_location("docs_pages", ROOT / "scripts" / "docs.py")
assert spec
assert spec.loader
docs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(docs)

SHOWN = docs.marked(ROOT / "tests")
NAMES = {name: value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, int)}


def test_every_promise_has_a_test_and_the_page_names_it() -> None:
    assert docs.promises_page() == (ROOT / "docs" / "promises.md").read_text()


def test_there_are_nine_invariants_and_the_rules_of_state_and_flash() -> None:
    numbers = {name for kind, name in SHOWN if kind == "invariant"}
    assert numbers == {str(number) for number in range(1, 10)}
    assert len({name for kind, name in SHOWN if kind == "rule"}) >= 22


def only(tmp_path: Path, promise: tuple[str, str] | None, *more: str) -> Path:
    """A directory with one test for each promise but one, and for *more* markers."""
    directory = tmp_path / "tests"
    directory.mkdir(parents=True)
    known = [one for one in SHOWN if one != promise]
    lines = [f"@pytest.mark.{kind}({name!r})\ndef test_{n}(): ...\n" for n, (kind, name) in enumerate(known)]
    lines += [f"@pytest.mark.{marker}\ndef test_more(): ...\n" for marker in more]
    (directory / "test_all.py").write_text("\n".join(lines))
    return directory


@pytest.mark.parametrize("promise", [("invariant", "5"), ("rule", "target")])
def test_a_promise_without_a_test_is_an_error(tmp_path: Path, promise: tuple[str, str]) -> None:
    docs.promises_page(only(tmp_path, None))
    with pytest.raises(SystemExit, match=f"no test carries the marker of {promise[0]} {promise[1]}"):
        docs.promises_page(only(tmp_path / "b", promise))


@pytest.mark.parametrize("marker", ["invariant(10)", 'rule("never-made")'])
def test_a_marker_that_names_no_promise_is_an_error(tmp_path: Path, marker: str) -> None:
    with pytest.raises(SystemExit, match=r"which docs/promises\.toml does not have"):
        docs.promises_page(only(tmp_path, None, marker))


@pytest.mark.invariant(6)
def test_every_reason_has_its_own_number_and_is_permanent_temporary_or_unproven() -> None:
    assert len(set(NAMES.values())) == len(NAMES)
    for name, code in NAMES.items():
        assert reasons.name(code) == name
        assert reasons.kind(code) in ("permanent", "temporary", "unproven")
    assert {reasons.kind(code) for code in NAMES.values()} == {"permanent", "temporary", "unproven"}


@pytest.mark.invariant(6)
def test_what_boot_raises_is_a_refusal_out_of_the_list() -> None:
    """By name, or handed on: the reason of another refusal, or what a reader was told to say."""
    handed_on = {"code", "wrong", "refused.code", "error.code", "self.wrong", "reader.wrong"}
    raised = 0
    for path in sorted((device_code.BOOT / "sekisho_boot").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Raise) or node.exc is None:
                continue
            assert isinstance(node.exc, ast.Call), f"{path.name}:{node.lineno}"
            assert ast.unparse(node.exc.func) == "Refused", f"{path.name}:{node.lineno}"
            value = node.exc.args[0]
            for one in (value.body, value.orelse) if isinstance(value, ast.IfExp) else (value,):
                said = ast.unparse(one)
                known = said.removeprefix("reasons.") in NAMES or said in handed_on or said.startswith("_TELLING[")
                assert known, f"{path.name}:{node.lineno} {said}"
            raised += 1
    assert raised > 100
