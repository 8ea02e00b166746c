"""The documents say what the code does: help texts, reason codes, links."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from sekisho_tools import cli
from typer.main import get_command

REPO = Path(__file__).parents[1]
PAGES = sorted([*REPO.glob("*.md"), *(REPO / "docs").rglob("*.md")])


def test_the_generated_pages_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, REPO / "scripts" / "docs.py", "--check"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{REPO / 'tools'}:{REPO / 'host_sim'}", "PATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_command_has_an_example_in_its_help() -> None:
    page = (REPO / "docs" / "commands.md").read_text()
    sections = re.findall(r"^## (sekisho .*?)$\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    groups = {f"sekisho {name}" for name in cli.GROUPS}
    missing = [name for name, text in sections if name not in groups and "xample" not in text]
    assert sections
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_links_and_paths_in_the_documents_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"
    for path in re.findall(r"`((?:boot|lib|tools|host_sim|firmware|tests|docs|scripts)/[\w./-]*\w)`", text):
        assert (REPO / path).exists(), f"{page.name} names {path}, which does not exist"


def test_make_targets_in_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"`make ([a-z-]+)", page.read_text()):
            assert target in targets, f"{page.name} names make {target}"


def commands_in(page: Path) -> list[list[str]]:
    """The `sekisho` command lines in the code blocks of a document, continued lines joined."""
    text = page.read_text().replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(r"^\s*\$ sekisho (.+)$", text, re.MULTILINE) if "…" not in line]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "commands.md"], ids=lambda page: page.name)
def test_commands_in_the_documents_exist_with_their_options(page: Path) -> None:
    for words in commands_in(page):
        command = get_command(cli.app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not hasattr(command, "commands") or words == ["--help"], f"no such command: {' '.join(words)}"
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used <= known, f"{page.name}: sekisho {command.name} has no {', '.join(used - known)}"
