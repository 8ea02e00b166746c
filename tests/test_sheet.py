"""The product sheet: complete or an error that names what is missing, plain text whatever it is fed, signed."""

from __future__ import annotations

import re
import tomllib
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.company import NAME, RELEASE, Company
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from sekisho_tools import sheet, suit
from sekisho_tools.errors import ToolError

MADE = f"made/{NAME}.sheet"


def fill(text: str = "about {name} in {language}", leave: str = "") -> None:
    """Fill in the template that `sheet init` wrote, except for the line that begins with *leave*."""
    lines, table = [], ""
    for line in sheet.template().splitlines():
        if line.startswith("["):
            table = line[1:].partition("]")[0]
        found = re.match(r'(\w+)\.(en|ja) = ""$', line)
        if found and f"{table}.{found[1]}.{found[2]}" != leave:
            said = text.format(name=f"{table}.{found[1]}", language=found[2])
            line = f"{found[1]}.{found[2]} = '''{said}'''"
        lines.append(line)
    Path("product.toml").write_text("\n".join(lines))


def page(ending: str, language: str = "en") -> str:
    return Path(f"{MADE}.{language}.{ending}").read_text()


def test_the_guideline_is_asked_for_in_full() -> None:
    """Chapter 4, item by item."""
    asked = {
        "intended customer, use and environment": ["intended.customer", "intended.use", "intended.environment"],
        "shared responsibilities": ["responsibilities.maker", "responsibilities.customer", "responsibilities.others"],
        "support period and end-of-life process": ["support.end_of_life"],
        "how to report vulnerabilities": ["vulnerabilities.report", "vulnerabilities.answer"],
        "hardware/software inventory and versions": ["inventory.hardware"],
        "data collected": ["data.collected"],
        "who can control the device": ["control.who"],
        "when and why updates are issued": ["updates.when"],
        "how they are delivered and announced": ["updates.delivery", "updates.announcement"],
        "who is responsible for installing": ["updates.installer"],
        "how the customer can verify an update": ["updates.verify"],
        "how to hand over, reset and dispose": ["life.hand_over", "life.reset", "life.dispose"],
        "security functions, what remains for the customer": ["security.functions", "security.left"],
    }
    names = {one.name for one in sheet.FIELDS}
    assert {name for wanted in asked.values() for name in wanted} == names - {"product.name", "product.maker"}
    assert set(sheet._FROM_RELEASE) == {"support", "inventory", "updates"}  # period, software, what changes
    assert all(set(sheet.TABLES) >= {one.table} for one in sheet.FIELDS)


def test_the_template_names_every_field_that_is_missing(company: Company) -> None:
    company.good("sheet init")
    assert company("sheet init").error == "FILE_EXISTS"
    told = company(f"sheet render product.toml --release {RELEASE}")
    assert told.error == "SHEET"
    for one in sheet.FIELDS:
        for language in ("en", "ja"):
            assert f"{one.name} ({language})" in told.err
    assert not list(Path("made").glob("*.sheet.*"))


@pytest.mark.parametrize("one", sheet.FIELDS, ids=lambda one: one.name)
def test_one_missing_field_is_named_alone(one: sheet.Field, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(leave=f"{one.name}.ja")
    with pytest.raises(ToolError) as caught:
        sheet.read_product(Path("product.toml"))
    assert caught.value.sentence == f"product.toml does not say: {one.name} (ja)."


def test_a_sheet_says_what_product_file_and_release_say_in_both_languages(company: Company) -> None:
    fill()
    company.good(f"sheet render product.toml --release {RELEASE}")
    digest = suit.decode(Path(RELEASE).read_bytes()).digest.value.hex()
    for language in ("en", "ja"):
        for ending in ("md", "html"):
            text = page(ending, language)
            for one in sheet.FIELDS:
                escaped = one.name.replace("_", r"\_") if ending == "md" else one.name
                assert f"about {escaped} in {language}" in text
                assert getattr(one, language) in text
            assert "2099-12-31" in text
            assert "1.2.0" in text
            assert digest in text
            assert "esp-idf" in text
            assert ("ポンプを修正しました。" in text) == (language == "ja")
            assert "SBOM-SHA256" not in text
    assert '<html lang="ja">' in page("html", "ja")
    before = {path: path.read_bytes() for path in Path("made").glob("*.sheet.*")}
    assert len(before) == 4
    company.good(f"sheet render product.toml --release {RELEASE}")
    assert {path: path.read_bytes() for path in before} == before


def test_what_the_release_lacks_is_named_too(company: Company) -> None:
    fill()
    Path(f"made/{NAME}.cdx.json").rename("bill")
    assert "inventory.software" in company(f"sheet render product.toml --release {RELEASE}").err
    Path("bill").rename(f"made/{NAME}.cdx.json")
    line = "--version 1.3 --sequence 3 --firmware fw.bin --out made --key keys/toy.key "
    line += "--vendor example.com --class my-board"
    company.good("keys generate droot --role root --env development --no-passphrase")
    company.good("keyset create dev.cose --root keys/droot.key --release keys/toy.pub")
    company.good(f"release create {line} --keyset dev.cose --text en=en.txt")
    told = company("sheet render product.toml --release made/my-board-1.3.suit")
    assert told.error == "SHEET"
    assert "support.until" in told.err
    assert "updates.changes (the release has no text in ja)" in told.err


def test_product_file_and_release_must_not_contradict_each_other(company: Company) -> None:
    fill()
    text = Path("product.toml").read_text()
    Path("product.toml").write_text(text.replace("# support_until = 2031-12-31", "support_until = 2031-12-31"))
    told = company(f"sheet render product.toml --release {RELEASE}")
    assert told.error == "SHEET"
    assert "2099-12-31" in told.err
    assert "2031-12-31" in told.err


@pytest.mark.parametrize(
    "text",
    [
        "x = ",
        "[surprise]\na = 1",
        "[product]\nsurprise = 1",
        "product = 1",
        "[product]\nname = 1",
        "[product]\nname.en = [1]",
        '[product]\nname.en = "\\u001b[31m"',
        '[product]\nname.en = "\\u202e"',
        'languages = ["fr"]',
        "languages = []",
        'languages = ["en", "en"]',
        'support_until = "soon"',
        "\0",
    ],
)
def test_what_is_no_product_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(ToolError) as caught:
        sheet.read_product(tmp_path / "p.toml")
    assert caught.value.code == "PRODUCT_FILE"


def test_the_template_is_toml_with_a_comment_on_every_field() -> None:
    content = tomllib.loads(sheet.template())
    lines = sheet.template().splitlines()
    for one in sheet.FIELDS:
        assert content[one.table][one.key] == {"en": "", "ja": ""}
        assert f"# {one.hint}" in lines


# -- hostile text ------------------------------------------------------------------------------------------------------

EVIL = (
    "<script>alert(1)</script> <img src=x onerror=alert(1)> & \" ' [a](javascript:b) ![p](q) `c` *d* "
    "<https://e.f> | --> {{ 7*7 }}"
)


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert {name for name, _ in attrs} <= {"lang", "charset", "name", "content", "http-equiv", "class"}

    def handle_data(self, data: str) -> None:
        self.words += data


def test_nothing_in_a_sheet_is_more_than_text(company: Company) -> None:
    fill(EVIL.replace("{", "{{").replace("}", "}}"))
    company.good(f"sheet render product.toml --release {RELEASE}")
    shown = Tags(page("html"))
    assert not shown.tags & {"script", "img", "a"}
    assert shown.words.count(EVIL) >= len(sheet.FIELDS)
    assert "<script>alert(1)</script>" in shown.words, "the release's own text"
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(page("md"))
    body = Tags(html.partition("-->")[2])
    assert body.tags <= {"h1", "h2", "h3", "ul", "li", "p", "br"}
    assert body.words.count(EVIL) >= len(sheet.FIELDS)
    assert sheet.release_of(page("md").encode()) == sheet.release_of(page("html").encode())


@given(
    st.text(
        st.characters(blacklist_categories=("Cc", "Cs", "Cf", "Zl", "Zp")) | st.sampled_from("\n`*_[]()<>#-+=.1!|~&\\ ")
    )
)
def test_markdown_of_plain_text_shows_that_text(text: str) -> None:
    wanted = re.sub(r"\s+", "", text)
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render("# t\n\n" + sheet._markdown(text) + "\n")
    shown = Tags(html.partition("</h1>")[2])
    assert shown.tags <= {"p", "br"}
    assert re.sub(r"\s+", "", shown.words) == wanted


# -- signed like the release -------------------------------------------------------------------------------------------


def test_a_sheet_is_signed_like_the_release_and_its_command_finds_every_change(company: Company) -> None:
    fill()
    company.good(f"sheet render product.toml --release {RELEASE} --key keys/release.key")
    for language in ("en", "ja"):
        for ending in ("md", "html"):
            line = f"sheet verify {MADE}.{language}.{ending} --keyset keyset-3.cose --release {RELEASE}"
            assert "good, signed by release key of key set 3" in company.good(line).out
    path = Path(f"{MADE}.en.md")
    good = path.read_bytes()
    for data in (good + b" ", good.replace(b"1.2.0", b"1.2.1"), good.replace(b"2099", b"2199")):
        path.write_bytes(data)
        assert company(f"sheet verify {path} --key keys/release.pub").error == "SIGNATURE"
    path.write_bytes(Path(f"{MADE}.ja.md").read_bytes())
    assert company(f"sheet verify {path} --key keys/release.pub").error == "SIGNATURE"
    path.write_bytes(good)
    assert company(f"sheet verify {path} --key keys/stolen.pub").error == "KEY_UNKNOWN"
    assert company(f"sheet verify {path} --key keys/aiko.pub").error == "KEY_ROLE"
    assert company(f"sheet verify {path}").error == "USAGE"
    assert company("sheet verify product.toml --key keys/release.pub").error == "SHEET"
    Path(f"{MADE}.en.md.cose").unlink()
    assert company(f"sheet verify {path} --key keys/release.pub").error == "FILE"
    assert company(f"sheet render product.toml --release {RELEASE} --key keys/aiko.key").error == "KEY_ROLE"


def test_a_sheet_of_another_release_is_noticed(company: Company) -> None:
    fill()
    company.good(f"sheet render product.toml --release {RELEASE} --key keys/release.key")
    Path("en.txt").write_text("Something else.")
    company.create(version="1.9")
    line = f"sheet verify {MADE}.en.md --keyset keyset-3.cose --release made/my-board-1.9.suit"
    assert company(line).error == "SHEET"


def test_an_audit_bundle_takes_the_sheets_of_its_releases_along(company: Company) -> None:

    fill()
    company.good(f"sheet render product.toml --release {RELEASE} --key keys/release.key")
    Path(f"{MADE}.xx.md").write_text(
        page("md").replace(suit.decode(Path(RELEASE).read_bytes()).digest.value.hex(), "0" * 64)
    )
    company.good("audit bundle --out audit.zip --release made")
    with zipfile.ZipFile("audit.zip") as archive:
        found = {Path(name).name for name in archive.namelist() if ".sheet." in name}
    both = {f"{NAME}.sheet.{language}.{ending}" for language in ("en", "ja") for ending in ("md", "html")}
    assert found == both | {f"{name}.cose" for name in both}
