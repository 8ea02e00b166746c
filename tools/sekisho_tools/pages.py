"""HTML pages that are handed on as files: one file each, readable offline and on a phone, nothing in them runs.

Everything that comes from elsewhere goes through the templates' escaping; raw HTML in Markdown stays text.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markdown_it import MarkdownIt

_TEMPLATES = Path(__file__).parent / "templates"


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=lambda name: name is None or not name.endswith(".md"),  # noqa: S701  (`sheet` escapes Markdown)
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: Any) -> str:
    """The file *template* of templates/ with *values*: escaped, unless it is Markdown."""
    return _environment().get_template(template).render(**values)


def from_markdown(text: str, resolve: Callable[[str], str | None]) -> str:
    """*text* as HTML. *resolve* says where a link leads, None drops it; pictures are left out, their words stay."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse(text)
    for block in tokens:
        opened: list[bool] = []
        for token in block.children or ():
            if token.type == "link_open":
                target = resolve(str(token.attrs["href"]))
                opened.append(target is not None)
                token.attrs["href"] = target or ""
                token.hidden = target is None
            elif token.type == "link_close":
                token.hidden = not opened.pop()
            elif token.type == "image":
                token.type, token.tag = "text", ""
    for block in tokens:
        block.children = [one for one in block.children or () if not one.hidden] if block.children else block.children
    return str(reader.renderer.render(tokens, reader.options, {}))
