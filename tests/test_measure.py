"""What counts as a line of code, and that the engine can be measured at all."""

import pytest
from sekisho_tools import measure
from sekisho_tools.errors import ToolError

SOURCE = '''"""Docstring
of two lines."""

import os  # a comment

# a comment
def f(a):
    """Docstring."""
    text = """one
    two"""

    return (
        text
    )
'''


def test_docstrings_comments_and_blank_lines_are_no_code() -> None:
    assert measure.code_lines(SOURCE) == 1 + 1 + 2 + 3


def test_every_module_of_the_engine_is_measured() -> None:
    sizes = {size.name: size for size in measure.engine_size()}
    assert {"cbor", "cose", "ed25519", "reasons"} <= set(sizes)
    assert all(0 < size.code <= size.lines or size.name == "__init__" for size in sizes.values())
    assert sizes["cbor"].mpy > 1000


def test_code_that_does_not_compile_is_named(tmp_path) -> None:
    (tmp_path / "bad.py").write_text("def f(:\n")
    with pytest.raises(ToolError, match=r"bad\.py"):
        measure.compile_module(tmp_path / "bad.py", tmp_path / "bad.mpy")
