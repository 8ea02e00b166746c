"""The product sheet that a maker gives to customers with each release (chapter 4 of the CCDS guideline).

A *product file* (TOML) says what the release does not; `FIELDS` is everything it is asked for. A sheet is made for each
language as Markdown and as HTML, and signed like the release: a detached COSE_Sign1 by a release key beside each file.
The same product file and release give the same bytes.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from . import pages, publish, published, release_check, sbom, suit
from .errors import ToolError
from .files import read_file, write_atomic

LANGUAGES = ("en", "ja")
MAX_PRODUCT = 1 << 18
MAX_SHEET = 4 << 20
_MARK = re.compile(r"<!-- sekisho product sheet 1; language (\w+); release manifest SHA-256 ([0-9a-f]{64}) -->")
_MARK_LINES = 3
"""Lines of a sheet among which the mark stands."""


@dataclass(frozen=True)
class Field:
    """One thing that a product file is asked for: table, key, heading by language, and what to write there."""

    table: str
    key: str
    en: str
    ja: str
    hint: str

    @property
    def name(self) -> str:
        """As errors name it: ``support.end_of_life``."""
        return f"{self.table}.{self.key}"


TABLES = {
    "product": ("Product", "製品"),
    "intended": ("What it is made for", "想定する利用"),
    "responsibilities": ("Who is responsible for what", "責任の分担"),
    "support": ("Support", "サポート"),
    "vulnerabilities": ("Vulnerabilities", "脆弱性"),
    "inventory": ("Hardware and software", "ハードウェアとソフトウェア"),
    "data": ("Data", "データ"),
    "control": ("Control", "操作"),
    "updates": ("Updates", "更新"),
    "life": ("Handing over, resetting, disposing", "譲渡・初期化・廃棄"),
    "security": ("Security", "セキュリティ"),
}

FIELDS = (
    Field("product", "name", "Product", "製品名", "Name under which customers know the product."),
    Field("product", "maker", "Maker", "製造者", "Who makes it, and where."),
    Field("intended", "customer", "Intended customers", "想定する顧客", "For whom the product is made."),
    Field("intended", "use", "Intended use", "想定する用途", "What it is for, and what it must not be used for."),
    Field(
        "intended",
        "environment",
        "Intended environment",
        "想定する環境",
        "Where it may be run: place, network, climate.",
    ),
    Field("responsibilities", "maker", "Of the maker", "製造者", "What the maker takes care of."),
    Field("responsibilities", "customer", "Of the customer", "顧客", "What the customer takes care of."),
    Field(
        "responsibilities",
        "others",
        "Of others",
        "その他の関係者",
        "What installers, administrators or service companies take care of; or that there are none.",
    ),
    Field(
        "support", "end_of_life", "End of life", "サポート終了時", "How the end is announced, and what happens then."
    ),
    Field(
        "vulnerabilities",
        "report",
        "How to report one",
        "報告の方法",
        "Address or form, and whether it can be encrypted.",
    ),
    Field(
        "vulnerabilities", "answer", "What happens then", "報告後の対応", "Times of answer, and how customers are told."
    ),
    Field("inventory", "hardware", "Hardware", "ハードウェア", "Board, chip, revision, memory, radios, interfaces."),
    Field(
        "data", "collected", "Data collected", "収集するデータ", "Which data, where they go, how long they are kept."
    ),
    Field("control", "who", "Who can control it", "操作できる者", "Who can control the device, locally and from afar."),
    Field("updates", "when", "When and why", "時期と理由", "When updates are issued, and for which reasons."),
    Field("updates", "delivery", "Delivery", "配布方法", "How updates reach the device."),
    Field("updates", "announcement", "Announcement", "告知方法", "How customers hear of an update."),
    Field("updates", "installer", "Who installs", "適用の責任者", "Who is responsible for installing updates."),
    Field("updates", "verify", "How to verify one", "検証方法", "How a customer can verify that an update is genuine."),
    Field("life", "hand_over", "Handing over", "譲渡", "What to do before the device gets another owner."),
    Field("life", "reset", "Resetting", "初期化", "How the device is reset, and what that erases."),
    Field("life", "dispose", "Disposing", "廃棄", "How to dispose of it so that no data or keys stay in it."),
    Field("security", "functions", "Security functions", "セキュリティ機能", "What the product does for its security."),
    Field("security", "left", "What remains for the customer", "顧客に残る対策", "What customers must do themselves."),
)

_FROM_RELEASE = {
    "support": ("until", ("Updates until", "更新の提供期限")),
    "inventory": ("software", ("Software of this release", "このリリースのソフトウェア")),
    "updates": ("changes", ("What this update changes", "この更新の内容")),
}
_WORDS = {
    "en": {"title": "Product sheet", "version": "Version", "sequence": "Sequence number", "digest": "Manifest SHA-256"},
    "ja": {"title": "製品情報シート", "version": "版", "sequence": "通し番号", "digest": "マニフェストのSHA-256"},
}


# -- the product file -----------------------------------------------------------------------------------------------


def template() -> str:
    """A product file to be filled in, every field with a comment that says what is asked."""
    lines = [
        "# Product file: what customers must be told besides what each release says itself.",
        "# From the release come: version, software and changes, and (if it says so) until when there are updates.",
        "# Every field is needed in every language. Longer texts stand between three quotes; they are plain text.",
        "",
        f"languages = [{', '.join(f'{one!r}' for one in LANGUAGES)}]".replace("'", '"'),
        "",
        "# May be left out where the release says it (--support-until), and must not differ from that.",
        "# support_until = 2031-12-31",
    ]
    for table, (title, _) in TABLES.items():
        lines += ["", f"[{table}]  # {title}"]
        for one in FIELDS:
            if one.table == table:
                lines += [f"# {one.hint}", *(f'{one.key}.{language} = ""' for language in LANGUAGES)]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Product:
    """A product file that lacks nothing. *texts*: name of a field -> language -> text."""

    languages: tuple[str, ...]
    until: date | None
    texts: Mapping[str, Mapping[str, str]]


def read_product(path: Path) -> Product:
    """The product file *path*.

    Raises ToolError FILE, PRODUCT_FILE (no TOML, unknown fields, wrong types) and SHEET, which names every field that
    is missing or empty.
    """
    try:
        content = tomllib.loads(read_file(path, "product file", MAX_PRODUCT).decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ToolError("PRODUCT_FILE", f"{path} is no TOML file: {error}.") from error
    languages = content.pop("languages", list(LANGUAGES))
    good = isinstance(languages, list) and bool(languages) and all(one in LANGUAGES for one in languages)
    if not good or len(set(languages)) != len(languages):
        raise ToolError("PRODUCT_FILE", f"languages in {path} is a list of some of: {', '.join(LANGUAGES)}.")
    until = content.pop("support_until", None)
    if until is not None and type(until) is not date:
        raise ToolError("PRODUCT_FILE", f"support_until in {path} is a date without quotes, such as 2031-12-31.")
    texts, missing = _take(content, languages, path)
    if missing:
        raise ToolError("SHEET", f"{path} does not say: {', '.join(missing)}.")
    return Product(tuple(languages), until, texts)


def _take(content: dict[str, Any], languages: Sequence[str], path: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    known = {table: {one.key: one for one in FIELDS if one.table == table} for table in TABLES}
    unknown = [table for table in content if table not in known]
    unknown += [
        f"{table}.{key}" for table, keys in known.items() for key in _table(content, table, path) if key not in keys
    ]
    if unknown:
        raise ToolError("PRODUCT_FILE", f"{path} has fields that nobody asks for: {', '.join(map(repr, unknown))}.")
    texts: dict[str, dict[str, str]] = {}
    missing: list[str] = []
    for one in FIELDS:
        value = _table(content, one.table, path).get(one.key, {})
        said = value if isinstance(value, dict) else dict.fromkeys(languages, value)
        texts[one.name] = {language: _plain(said.get(language, ""), one.name, path) for language in languages}
        missing += [f"{one.name} ({language})" for language, text in texts[one.name].items() if not text]
    return texts, missing


def _table(content: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    value = content.get(name, {})
    if not isinstance(value, dict):
        raise ToolError("PRODUCT_FILE", f"{name} in {path} is no table; see `sekisho sheet init`.")
    return value


def _plain(value: Any, name: str, path: Path) -> str:
    if not isinstance(value, str) or not all(sign.isprintable() or sign == "\n" for sign in value):
        raise ToolError("PRODUCT_FILE", f"{name} in {path} is no plain text.")
    return "\n".join(line.strip() for line in value.strip().splitlines())


# -- making a sheet -------------------------------------------------------------------------------------------------


def make(product: Product, release: Path) -> dict[str, bytes]:
    """The sheets of the release in the file *release*: file name -> content.

    Raises ToolError FILE, the errors of reading a release, SBOM, and SHEET: what neither product file nor release says,
    or where they contradict each other.
    """
    decoded = suit.decode(read_file(release, "release", published.MAX_ENVELOPE))
    bills = publish.bill_beside(release, publish.sbom_digests(decoded.manifest))
    texts = decoded.manifest.text or {}
    missing = [] if bills else [f"inventory.software (the SBOM of {release.name} is not beside it)"]
    made: dict[str, bytes] = {}
    for language in product.languages:
        said = str(texts.get(language, {}).get("manifest-description", ""))
        until = _until(product, release_check.labels(said).get(release_check.SUPPORT), missing)
        changes = _changes(said)
        if not changes:
            missing.append(f"updates.changes (the release has no text in {language})")
        if missing:
            continue
        inside = {"until": until, "software": _software(bills[0][1]), "changes": changes}
        values = _values(product, language, decoded, inside)
        for ending in ("md", "html"):
            text = pages.render(f"sheet.{ending}", **values, marked=_markdown)
            made[f"{release.stem}.sheet.{language}.{ending}"] = text.encode()
    if missing:
        raise ToolError("SHEET", f"Neither product file nor release says: {', '.join(dict.fromkeys(missing))}.")
    return made


def _until(product: Product, said: str | None, missing: list[str]) -> str:
    if said is not None and product.until is not None and said != product.until.isoformat():
        raise ToolError("SHEET", f"The release says {said} for the end of support, the product file {product.until}.")
    if said is None and product.until is None:
        missing.append("support.until (support_until in the product file, or --support-until of the release)")
    return said or str(product.until)


def _changes(text: str) -> str:
    labels = release_check.labels(text)
    return "\n".join(line for line in text.splitlines() if line.partition(":")[0] not in labels).strip()


def _software(bill: bytes) -> str:
    parts = {f"{one['name']} {one['version']}" for one in sbom.components(sbom.parse(bill)) if one.get("version")}
    return "\n".join(sorted(parts, key=str.lower))


def _values(product: Product, language: str, decoded: suit.Envelope, inside: Mapping[str, str]) -> dict[str, Any]:
    at = LANGUAGES.index(language)
    sections = []
    for table, titles in TABLES.items():
        rows = [(getattr(one, language), product.texts[one.name][language]) for one in FIELDS if one.table == table]
        if table in _FROM_RELEASE:
            key, headings = _FROM_RELEASE[table]
            rows.append((headings[at], inside[key]))
        sections.append((titles[at], rows))
    digest = decoded.digest.value.hex()
    words = _WORDS[language]
    versions = {
        fields["component-version"]
        for fields in (decoded.manifest.text or {}).get(language, {}).values()
        if isinstance(fields, Mapping) and "component-version" in fields
    }
    about = [
        (words["version"], ", ".join(sorted(versions))),
        (words["sequence"], str(decoded.manifest.sequence_number)),
        (words["digest"], digest),
    ]
    return {
        "lang": language,
        "title": f"{words['title']}: {product.texts['product.name'][language]}",
        "mark": f"<!-- sekisho product sheet 1; language {language}; release manifest SHA-256 {digest} -->",
        "about": about,
        "sections": sections,
    }


def _markdown(text: str) -> str:
    """Plain *text* as Markdown that shows just that: no links, no HTML, no headings, each line a line."""
    lines = []
    for plain in re.sub(r"\n\s*\n", "\n\n", text.strip()).splitlines():
        line = re.sub(r"([\\`*_\[\]<>#|~&!])", r"\\\1", plain.strip())
        line = re.sub(r"^([-+=])", r"\\\1", line)
        lines.append(re.sub(r"^(\d+)([.)])", r"\1\\\2", line))
    return "\\\n".join(lines).replace("\\\n\\\n", "\n\n")


def write(sheets: Mapping[str, bytes], directory: Path) -> list[Path]:
    """Write the sheets; what was there under their names is replaced."""
    return [write_atomic(directory / name, data) for name, data in sheets.items()]


# -- reading ------------------------------------------------------------------------------------------------------


def release_of(data: bytes) -> tuple[str, str]:
    """(language, manifest SHA-256 in hex) that a sheet says it is for. Raises ToolError SHEET where it is no sheet."""
    head = b"\n".join(data.split(b"\n", _MARK_LINES)[:_MARK_LINES]).decode(errors="replace")
    found = _MARK.search(head)
    if found is None:
        raise ToolError("SHEET", "This is no product sheet.")
    return found[1], found[2]


def require_release(data: bytes, release: Path) -> None:
    """Refuse with SHEET a sheet that is not of the release in the file *release*."""
    wanted = suit.decode(read_file(release, "release", published.MAX_ENVELOPE)).digest.value.hex()
    told = release_of(data)[1]
    if told != wanted:
        raise ToolError("SHEET", f"This sheet is of the release {told[:16]}, not of {release.name} ({wanted[:16]}).")


def beside(release: Path, digest: bytes) -> list[Path]:
    """The sheets of the release with manifest digest *digest* that lie beside the file *release*, and signatures."""
    found = []
    for path in sorted(release.parent.glob(f"{release.stem}.sheet.*")):
        if path.suffix not in (".md", ".html"):
            continue
        try:
            told = release_of(read_file(path, "product sheet", MAX_SHEET))[1]
        except ToolError:
            continue
        if told == digest.hex():
            signature = path.with_name(path.name + ".cose")
            found += [path, signature] if signature.exists() else [path]
    return found
