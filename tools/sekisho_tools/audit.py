"""Audit bundles: what somebody from outside needs to judge engine, evidence, keys and releases, in one file.

`gather` reads, `finish` makes the file; verifying is `audit_file`'s. The project's own part (requirement table,
evidence, threat model, decisions, engine source) comes from the checkout or package that this `sekisho` runs from; the
company's part (keys, key sets, signing log, releases) from what it names. Only public facts go in: statements of keys
and never key files, a signing log only if its chain holds, and a last look for private keys in everything.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from . import (
    audit_file,
    cose,
    device_code,
    keys,
    keyset,
    libraries,
    measure,
    pages,
    pkcs11_keys,
    publish,
    published,
    release_check,
    sbom,
    sheet,
    signlog,
    suit,
)
from .audit_words import NOTES, WORDS
from .errors import ToolError
from .files import read_file

ALGORITHM = "Ed25519"
RECORD = "requirements.json"
RECORD_FORMAT = "sekisho-requirements-1"
MAX_KEYSET = 1 << 20
MAX_SIDECAR = 1 << 20
INDEX = {"en": "index.html", "ja": "index.ja.html"}

Rows = list[Sequence[Any]]


@dataclass(frozen=True)
class Inputs:
    """What the company adds. *releases*: ``.suit`` files, or directories that hold some."""

    keys: Path | None = None
    tokens: tuple[str, ...] = ()
    keysets: tuple[Path, ...] = ()
    log: Path | None = None
    releases: tuple[Path, ...] = ()
    published: published.Found = field(default_factory=list)


@dataclass
class Part:
    """One entry of the index: *name* is a key of `WORDS`, *notes* are gaps and warnings: key of `NOTES`, its values."""

    name: str
    href: str = ""
    words: str = ""
    notes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    more: list[tuple[str, str]] = field(default_factory=list)

    def note(self, key: str, **values: Any) -> None:
        """Add a gap or warning."""
        self.notes.append((key, values))

    def told(self, language: str) -> list[str]:
        """The notes in words."""
        return [NOTES[language][key].format(**values) for key, values in self.notes]


class Bundle:
    """A bundle in the making: files by name, and the parts that the index lists."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, bytes] = {}
        self.parts: list[Part] = []

    def page(self, name: str, template: str, **values: Any) -> None:
        """Add an HTML page; its links back lead to the English index."""
        above = "../" * name.count("/")
        text = pages.render(template, lang="en", home=above + INDEX["en"], back="Audit bundle", **values)
        self.files[name] = text.encode()

    def table(self, name: str, title: str, head: Sequence[str], rows: Rows, **more: Any) -> None:
        """Add a page with a table."""
        self.page(name, "audit_table.html", title=title, head=head, rows=rows, **{"lines": [], "texts": [], **more})

    def json(self, name: str, content: Any) -> None:
        """Add a JSON file."""
        self.files[name] = (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def gather(inputs: Inputs, root: Path = device_code.ROOT) -> tuple[dict[str, bytes], list[str]]:
    """(name -> content of every file but manifest and signature, warnings). *root* holds docs/ and LICENSE.

    Raises ToolError: FILE, KEYSET..., RELEASE, SBOM, and AUDIT_SECRET where something private was about to go in.
    """
    bundle = Bundle(root)
    chain = _key_sets(inputs.keysets)
    _requirements(bundle)
    _documents(bundle)
    _engine(bundle)
    _host_sbom(bundle)
    _licences(bundle)
    _keys(bundle, inputs, chain)
    _log(bundle, inputs)
    _releases(bundle, inputs, chain)
    for language, name in INDEX.items():
        _index(bundle, language, name)
    _refuse_secrets(bundle.files)
    return bundle.files, [f"{part.name}: {note}" for part in bundle.parts for note in part.told("en")]


def _refuse_secrets(files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        if any(mark in data for mark in release_check.SECRETS):
            raise ToolError("AUDIT_SECRET", f"{name} would hold a private key; no bundle was made. Take it out there.")


# -- the project's own part -----------------------------------------------------------------------------------------


def _requirements(bundle: Bundle) -> None:
    part = Part("requirements")
    bundle.parts.append(part)
    docs = bundle.root / "docs"
    try:
        guideline = tomllib.loads((docs / "guideline.toml").read_text())
        recorded = json.loads((docs / "evidence" / RECORD).read_text())
        if recorded["format"] != RECORD_FORMAT:
            raise ValueError(recorded["format"])
    except (OSError, ValueError, KeyError):
        part.note("no_results")
        return
    results = recorded["requirements"]
    rows = [
        {
            "id": name,
            **entry,
            "tests": sorted(tests.items()),
            "shown": bool(tests) and set(tests.values()) == {"passed"},
        }
        for name, entry in guideline.items()
        for tests in (results.get(name, {}),)
    ]
    shown = sum(bool(row["shown"]) for row in rows)
    here = device_code.boot_digest()
    if recorded["boot"] != here:
        part.note("other_engine", what=RECORD, recorded=recorded["boot"][:16], here=here[:16])
    if recorded["changed"]:
        part.note("changed")
    part.href = "requirements.html"
    part.words = f"{shown} / {len(rows)}; {recorded['date']}, {recorded['commit'][:12]}"
    part.more = [(RECORD, "JSON")]
    bundle.files[RECORD] = (docs / "evidence" / RECORD).read_bytes()
    told = {"record": recorded, "rows": rows, "shown": shown, "notes": part.told("en")}
    bundle.page(part.href, "audit_requirements.html", title="Requirements", **told)


def _documents(bundle: Bundle) -> None:
    """Evidence, threat model, decisions and the security policy, as pages; evidence also as it was recorded."""
    docs = bundle.root / "docs"
    groups = {
        "evidence": sorted((docs / "evidence").glob("*.md")),
        "threats": [docs / "threat-model.md"],
        "decisions": sorted((docs / "decisions").glob("*.md")),
        "policy": [bundle.root / "SECURITY.md"],
    }
    sources = {path: _place(path, bundle.root) for group in groups.values() for path in group if path.is_file()}
    known = set(sources.values())
    for path, name in sources.items():
        body = pages.from_markdown(path.read_text(), lambda target, name=name: _leads(target, name, known))  # type: ignore[misc]
        bundle.page(name, "page.html", title=path.stem, body=body)
    for group, paths in groups.items():
        part = Part(group, more=[(sources[path], _title(path)) for path in paths if path in sources])
        if not part.more:
            part.note("not_found")
        bundle.parts.append(part)
    here = device_code.boot_digest()
    evidence = next(part for part in bundle.parts if part.name == "evidence")
    for path in sorted((docs / "evidence").glob("*.json")):
        if path.name == RECORD:
            continue
        name = f"evidence/{path.name}"
        bundle.files[name] = path.read_bytes()
        try:
            told = json.loads(bundle.files[name]).get("boot", here)
        except (ValueError, AttributeError):
            told = "unreadable"
        recorded = told if isinstance(told, str) else here
        evidence.more.append((name, path.name))
        if recorded != here:
            evidence.note("other_engine", what=path.name, recorded=recorded[:16], here=here[:16])


def _place(path: Path, root: Path) -> str:
    """Name in the bundle of a document: docs/evidence/README.md -> evidence/README.html."""
    return path.relative_to(root).with_suffix(".html").as_posix().removeprefix("docs/")


def _leads(target: str, name: str, known: set[str]) -> str | None:
    """Where a link of the document *name* leads in the bundle: to another page of it, to the web, or nowhere."""
    if re.match(r"https?://", target):
        return target
    path = target.partition("#")[0]
    if not path:
        return None
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(name), path.removesuffix(".md") + ".html"))
    return posixpath.relpath(wanted, posixpath.dirname(name) or ".") if wanted in known else None


def _title(path: Path) -> str:
    found = re.search(r"^# (.+)$", path.read_text(), re.MULTILINE)
    return found[1] if found else path.stem


def _engine(bundle: Bundle) -> None:
    sizes = {one.name: one for one in measure.engine_size()}
    rows: Rows = []
    for path in sorted((device_code.BOOT / "sekisho_boot").glob("*.py")):
        name, data = f"engine/{path.name}", path.read_bytes()
        bundle.files[name] = data
        one = sizes[path.stem]
        link = {"href": name, "words": path.name}
        rows.append((link, len(data), one.lines, one.code, one.mpy, hashlib.sha256(data).hexdigest()))
    mpy, lines = (sum(getattr(one, what) for one in sizes.values()) for what in ("mpy", "lines"))
    digest = device_code.boot_digest()
    budgets = f"{lines} lines (budget {measure.LINE_BUDGET}), {mpy} bytes of .mpy (budget {measure.MPY_BUDGET})"
    total = f"{len(rows)} modules, {budgets}"
    over = mpy > measure.MPY_BUDGET or lines > measure.LINE_BUDGET
    bundle.table(
        "engine.html",
        "The first update engine",
        ("module", "bytes", "lines", "with code", ".mpy bytes", "SHA-256"),
        rows,
        lines=[(over, total), (False, f"Digest of the sources, which evidence is recorded for: {digest}")],
    )
    bundle.parts.append(part := Part("engine", "engine.html", str(len(rows))))
    if over:
        part.note("over")


def _host_sbom(bundle: Bundle) -> None:
    name = f"sbom/sekisho{sbom.SUFFIX}"
    bundle.files[name] = sbom.for_host()
    count = len(sbom.components(sbom.parse(bundle.files[name])))
    bundle.parts.append(Part("host_sbom", name, f"CycloneDX, {count}"))


def _licences(bundle: Bundle) -> None:
    rows: Rows = [
        *sbom.licences(),
        *((one.name, one.version, f"{one.licence} (device)") for one in libraries.LIBRARIES),
    ]
    texts = [libraries.licence(one).decode(errors="replace") for one in libraries.LIBRARIES]
    own = bundle.root / "LICENSE"
    if own.is_file():
        bundle.files["LICENSE.txt"] = own.read_bytes()
    bundle.table("licences.html", "Licences", ("package", "version", "licence"), rows, texts=texts)
    bundle.parts.append(Part("licences", "licences.html", str(len(rows))))


# -- keys ---------------------------------------------------------------------------------------------------------


def _key_sets(paths: Iterable[Path]) -> list[tuple[bytes, keyset.KeySet]]:
    """The key sets of a chain, oldest first, each judged as devices judge it. Raises ToolError as they would refuse."""
    documents = {keyset.decode(data).version: data for data in (read_file(one, "key set", MAX_KEYSET) for one in paths)}
    chain: list[tuple[bytes, keyset.KeySet]] = []
    for version in sorted(documents):
        before = documents.get(version - 1)
        chain.append((documents[version], keyset.verify(documents[version], before)))
    return chain


def _day(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s after 1970"


@dataclass
class KeyFacts:
    """What is public of one key. *revoked* and *expires* are days, or None where no key set given says so."""

    key_id: str
    label: str | None = None
    role: str | None = None
    environment: str | None = None
    algorithm: str = ALGORITHM
    created: str | None = None
    kept: str = "named in a key set"
    in_key_sets: list[int] = field(default_factory=list)
    revoked: str | None = None
    revoked_in: int | None = None
    expires: str | None = None
    public_key: str | None = None


def inventory(
    statements: Iterable[tuple[keys.Statement, str]], chain: Sequence[tuple[bytes, keyset.KeySet]]
) -> list[KeyFacts]:
    """Every key that has a statement (with how its private half is kept) or stands in a key set, by role and label."""
    found: dict[str, KeyFacts] = {}
    for told, kept in statements:
        one = found.setdefault(told.key_id.hex(), KeyFacts(told.key_id.hex()))
        one.label, one.role, one.environment, one.created = told.label, told.role, told.environment, told.created
        one.kept, one.public_key = kept, told.public_key.hex()
    for _, content in chain:
        for key_id, (role, public) in content.key_roles().items():
            one = found.setdefault(key_id.hex(), KeyFacts(key_id.hex()))
            one.role, one.environment = one.role or role, one.environment or content.environment_name
            one.public_key = public.hex()
            one.in_key_sets.append(content.version)
            one.expires = _day(content.expires)
        for key_id in content.revoked_keys:
            one = found.setdefault(key_id.hex(), KeyFacts(key_id.hex()))
            if one.revoked is None:
                one.revoked, one.revoked_in = _day(content.issued_at), content.version
    return sorted(found.values(), key=lambda one: (one.role or "", one.label or "", one.key_id))


def _keys(bundle: Bundle, inputs: Inputs, chain: Sequence[tuple[bytes, keyset.KeySet]]) -> None:
    part = Part("keys")
    bundle.parts.append(part)
    statements: list[tuple[keys.Statement, str]] = []
    for one in keys.list_keys(inputs.keys) if inputs.keys else ():
        if one.statement:
            statements.append((one.statement, f"file, {one.protection}"))
        else:
            part.note("bad_key", name=Path(one.path).name, why=one.protection)
    for token in inputs.tokens:
        uri = pkcs11_keys.parse_uri(token)
        statements += [(told, f"token {uri.token}") for told in pkcs11_keys.statements(uri)]
    facts = inventory(statements, chain)
    for fact in facts:
        if fact.environment == "release" and fact.kept == "file, open":
            part.note("open_key", label=fact.label, key_id=fact.key_id)
    if not facts:
        part.note("no_keys")
        return
    head = (
        "key id",
        "label",
        "role",
        "environment",
        "algorithm",
        "made",
        "private half",
        "key sets",
        "revoked",
        "expires",
    )
    rows: Rows = [
        (
            one.key_id,
            one.label or "?",
            one.role or "?",
            one.environment or "?",
            one.algorithm,
            (one.created or "?")[:10],
            one.kept,
            ", ".join(map(str, one.in_key_sets)),
            f"{one.revoked} (key set {one.revoked_in})" if one.revoked else "",
            one.expires or "",
        )
        for one in facts
    ]
    lines = [
        (False, "Only what is public: statements that the keys made of themselves, and what key sets say of them.")
    ]
    for document, content in chain:
        name = f"keysets/keyset-{content.version}.cose"
        bundle.files[name] = document
        issued = f"issued {_day(content.issued_at)}, expires {_day(content.expires)}"
        roots = f"{content.threshold} of {len(content.roots)} roots"
        lines.append((False, f"Key set {content.version} ({content.environment_name}): {issued}, {roots}; verified."))
        part.more.append((name, f"keyset-{content.version}.cose"))
    bundle.table("keys.html", "Key inventory", head, rows, lines=lines)
    bundle.json("keys.json", [asdict(one) for one in facts])
    part.href, part.words = "keys.html", str(len(facts))
    part.more.append(("keys.json", "JSON"))


def _log(bundle: Bundle, inputs: Inputs) -> None:
    part = Part("log")
    bundle.parts.append(part)
    if inputs.log is None:
        part.note("no_log")
        return
    try:
        entries = signlog.verify(inputs.log)
    except ToolError as error:
        if error.code != "LOG":
            raise
        part.note("bad_log", why=error.sentence)
        return
    head = entries[-1].hash() if entries else signlog.START
    rows: Rows = [(e.number, e.time, e.who, e.what, f"{e.role} {e.key_id}", e.environment, e.object) for e in entries]
    sentence = f"The chain of {len(entries)} entries holds. Head: {head}"
    names = ("", "time", "who", "what", "key", "environment", "SHA-256 of what was signed")
    bundle.table("signing-log.html", "Signing log", names, rows, lines=[(False, sentence)])
    bundle.files[signlog.NAME] = b"".join(entry.line() + b"\n" for entry in entries)
    part.href, part.words, part.more = "signing-log.html", f"{len(entries)}; {head[:16]}", [(signlog.NAME, "JSONL")]


# -- releases -----------------------------------------------------------------------------------------------------


def releases_in(paths: Iterable[Path]) -> list[Path]:
    """The ``.suit`` files that *paths* name or, as directories, hold. Raises ToolError RELEASE where one holds none."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.suit")) if path.is_dir() else [path]
        if not inside:
            raise ToolError("RELEASE", f"There is no release (*.suit) in {path}.")
        found += inside
    return found


def _releases(bundle: Bundle, inputs: Inputs, chain: Sequence[tuple[bytes, keyset.KeySet]]) -> None:
    part = Part("releases")
    bundle.parts.append(part)
    found: dict[tuple[bytes, ...], tuple[str, suit.Envelope]] = {}
    for path in releases_in(inputs.releases):
        data = read_file(path, "release", published.MAX_ENVELOPE)
        decoded = suit.decode(data)
        home = f"releases/{decoded.manifest.sequence_number}-{hashlib.sha256(data).hexdigest()[:16]}"
        bundle.files[f"{home}/release.suit"] = data
        _beside(bundle, part, path, decoded, home)
        found.setdefault(_signed(decoded), (path.name, decoded))
    for where, decoded in inputs.published:
        found.setdefault(_signed(decoded), (where, decoded))
    if not found:
        part.note("no_release")
        return
    out = {_signed(decoded) for _, decoded in inputs.published}
    told = [
        _release(name, decoded, chain, _signed(decoded) in out)
        for name, decoded in sorted(found.values(), key=lambda one: (one[1].manifest.sequence_number, one[0]))
    ]
    for one in told:
        if one["bad"]:
            part.note("bad_release", name=one["name"], why=one["signature"])
    head = ("sequence", "version", "name", "class", "out", "signature", "manifest SHA-256")
    rows: Rows = [
        (one["sequence"], one["version"], one["name"], one["class"], "yes" if one["published"] else "",
         one["signature"], one["manifest_sha256"])
        for one in told
    ]  # fmt: skip
    bundle.table("releases.html", "Releases", head, rows)
    bundle.json("releases.json", told)
    part.href, part.words = "releases.html", str(len(told))
    part.more.append(("releases.json", "JSON"))


def _signed(decoded: suit.Envelope) -> tuple[bytes, ...]:
    """What a release is told from others by: its manifest, and who signed it."""
    return decoded.digest.value, *(block.encoded for block in decoded.blocks)


def _beside(bundle: Bundle, part: Part, path: Path, decoded: suit.Envelope, home: str) -> None:
    """SBOM, sidecar and product sheets that lie beside a release and belong to it."""
    bills = publish.bill_beside(path, publish.sbom_digests(decoded.manifest))
    if not bills:
        part.note("no_sbom", name=path.name)
    for _, bill in bills:
        bundle.files[f"{home}/sbom{sbom.SUFFIX}"] = bill
        part.more.append((f"{home}/sbom{sbom.SUFFIX}", f"SBOM {path.stem}"))
    side = path.with_suffix(".release.json")
    if side.exists():
        data = read_file(side, "sidecar", MAX_SIDECAR)
        try:
            same = json.loads(data)["manifest_sha256"] == decoded.digest.value.hex()
        except (ValueError, TypeError, KeyError):
            same = False
        if same:
            bundle.files[f"{home}/release.json"] = data
        else:
            part.note("other_sidecar", name=side.name)
    for found in sheet.beside(path, decoded.digest.value):
        bundle.files[f"{home}/{found.name}"] = read_file(found, "product sheet", sheet.MAX_SHEET)
        part.more.append((f"{home}/{found.name}", found.name))


def _release(
    name: str, decoded: suit.Envelope, chain: Sequence[tuple[bytes, keyset.KeySet]], is_out: bool
) -> dict[str, Any]:
    manifest = decoded.manifest
    signed_by = [block.kid.hex() for block in decoded.blocks if block.kid]
    words, bad = f"by {', '.join(signed_by) or 'nobody'}; not verified, for no key set was named", not signed_by
    if chain:
        newest = chain[-1][1]
        public = [grant.public_key for _, content in chain for grant in content.release]
        good = [cose.key_id(public[index]) for index in suit.verify(decoded, public)]
        kept = [one.hex() for one in dict.fromkeys(good) if one not in newest.revoked_keys]
        if kept:
            words, bad = f"verified, by {', '.join(kept)}", False
        elif good:
            words, bad = f"by {good[0].hex()}, which key set {newest.version} revokes", True
        else:
            words, bad = "does NOT verify with any release key of the key sets", True
        if decoded.digest.value in newest.revoked_manifests:
            words, bad = f"{words}; revoked by key set {newest.version}", True
    versions = {
        str(fields["component-version"])
        for entry in (manifest.text or {}).values()
        for fields in entry.values()
        if isinstance(fields, Mapping) and "component-version" in fields
    }
    classes = {str(UUID(bytes=parameters[2])) for parameters in manifest.parameters() if 2 in parameters}
    return {
        "name": name,
        "sequence": manifest.sequence_number,
        "version": ", ".join(sorted(versions)),
        "class": ", ".join(sorted(classes)),
        "published": is_out,
        "signed_by": signed_by,
        "signature": words,
        "bad": bad,
        "manifest_sha256": decoded.digest.value.hex(),
        "images": [
            {"sha256": parameters[3].value.hex(), "size": parameters.get(14)}
            for parameters in manifest.parameters()
            if 3 in parameters
        ],
    }


# -- the index ------------------------------------------------------------------------------------------------------


def _index(bundle: Bundle, language: str, name: str) -> None:
    words = WORDS[language]
    other = "ja" if language == "en" else "en"
    text = pages.render(
        "audit_index.html",
        lang=language,
        title=words["title"],
        t=words,
        parts=[{**asdict(part), "title": words[part.name], "notes": part.told(language)} for part in bundle.parts],
        other=INDEX[other],
        other_lang=other,
        other_name=WORDS[other]["own_name"],
        home=name,
        back="",
    )
    bundle.files[name] = text.encode()


def finish(files: Mapping[str, bytes], signature: bytes | None = None) -> bytes:
    """The archive of *files* with their manifest and, if there is one, its signature."""
    document = audit_file.manifest(files)
    whole = {**files, audit_file.MANIFEST: document}
    if signature is not None:
        whole[audit_file.SIGNATURE] = signature
    return audit_file.pack(whole)
