"""Labels: what is printed onto a device, as QR code and text, single (PNG) or as a sheet (PDF).

The QR code is a URI, ``sekisho:1?id=UUID&mac=240AC4000001&pw=SECRET``: who the device is (logical and physical id) and
the first console secret, which its owner must change. The text says the same for people without a camera.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .errors import ToolError
from .issued import IssuingRecord

VERSION = "1"
QUIET = 4
"""Modules of white around a QR code, as ISO/IEC 18004 asks."""
PER_ROW, PER_COLUMN = 3, 8
"""Labels of 70 by 37 mm on a sheet of A4, a common kind."""
WIDTH_MM, HEIGHT_MM = 70.0, 37.0
MAX_LABELS = 10_000


@dataclass(frozen=True)
class Label:
    """One label. *physical* and *console* may be unknown; what is not known is not printed."""

    id: str
    product: str = ""
    physical: str | None = None
    console: str | None = None

    @property
    def uri(self) -> str:
        """What the QR code says."""
        parts = [f"id={self.id}"]
        if self.physical:
            parts.append(f"mac={self.physical.replace(':', '').upper()}")
        if self.console:
            parts.append(f"pw={self.console}")
        return f"sekisho:{VERSION}?{'&'.join(parts)}"

    @property
    def lines(self) -> list[str]:
        """What is printed beside it, at most 26 characters a line."""
        half = [f"ID {self.id[:18]}", f"   {self.id[18:]}"]
        mac = [f"MAC {self.physical.upper()}"] if self.physical else []
        secret = [f"PW {self.console}"] if self.console else []
        return [*([self.product[:26]] if self.product else []), *half, *mac, *secret]


def of(record: IssuingRecord, console: str | None) -> Label:
    """The label of an issued device."""
    return Label(record.id, record.product, record.physical, console)


def parse(uri: str) -> Label:
    """What a scanner read, as a label without product; ToolError LABEL when it is none of ours."""
    parts = urlsplit(uri)
    found = parse_qs(parts.query)
    if parts.scheme != "sekisho" or parts.path != VERSION or "id" not in found:
        raise ToolError("LABEL", "This code is not on the label of a Sekisho device.")
    mac = found.get("mac", [None])[0]
    return Label(
        id=found["id"][0],
        physical=bytes.fromhex(mac).hex(":") if mac else None,
        console=found.get("pw", [None])[0],
    )


def _need() -> tuple[Any, Any, Any]:
    try:
        import reportlab.graphics.shapes
        import segno
        from PIL import Image
    except ImportError as error:
        raise ToolError("LABELS", "Labels need a few more packages: pip install 'sekisho[labels]'.") from error
    return segno, Image, reportlab


def _modules(label: Label) -> list[list[bool]]:
    """The QR code with its quiet zone, row by row; level M mends 15 % of damage."""
    segno, _, _ = _need()
    code = segno.make(label.uri, error="m", micro=False)
    return [[bool(module) for module in row] for row in code.matrix_iter(border=QUIET)]


FONTS = (
    *("NotoSansCJK-Regular.ttc", "NotoSansCJKjp-Regular.otf", "ipagp.ttf", "ipag.ttf", "TakaoPGothic.ttf"),
    *("DejaVuSans.ttf", "Arial Unicode.ttf", "YuGothR.ttc", "msgothic.ttc", "meiryo.ttc"),
)
"""Fonts of usual systems that have more letters than the one that Pillow brings; the first that has all is taken."""


def _font(text: str, size: int) -> Any:
    """A font with every letter of *text*. Raises ToolError LABELS."""
    from PIL import ImageFont

    def has_all(font: Any) -> bool:
        nothing = bytes(font.getmask("\U0010ffff", "1"))
        return all(sign == " " or bytes(font.getmask(sign, "1")) != nothing for sign in set(text))

    font = ImageFont.load_default(size=size)
    if has_all(font):
        return font
    for name in FONTS:
        try:
            found = ImageFont.truetype(name, size)
        except OSError:
            continue
        if has_all(found):
            return found
    raise ToolError(
        "LABELS",
        f"No font here has all letters of {text[:26]!r}; install one (Debian: fonts-noto-cjk), or make the PDF sheet.",
    )


def png(label: Label, scale: int = 6) -> bytes:
    """The label as a PNG of black and white; *scale* is pixels per module of the code. Raises ToolError LABELS."""
    _, image, _ = _need()
    from PIL import ImageDraw

    modules = _modules(label)
    side = len(modules) * scale
    lines = label.lines
    font = _font("".join(lines), scale * 4)
    wide = max(int(font.getlength(line)) for line in lines)
    canvas = image.new("1", (side + wide + QUIET * scale, max(side, (len(lines) * 5 + 4) * scale)), 1)
    draw = ImageDraw.Draw(canvas)
    for y, row in enumerate(modules):
        for x, dark in enumerate(row):
            if dark:
                draw.rectangle((x * scale, y * scale, (x + 1) * scale - 1, (y + 1) * scale - 1), fill=0)
    for number, line in enumerate(lines):
        draw.text((side, (QUIET + number * 5) * scale), line, fill=0, font=font)
    out = io.BytesIO()
    canvas.save(out, "PNG", optimize=True)
    return out.getvalue()


def sheet(labels: Sequence[Label]) -> bytes:
    """A PDF of A4 pages with 3 by 8 labels each; the same labels give the same bytes. Raises ToolError LABELS."""
    _need()
    if not 1 <= len(labels) <= MAX_LABELS:
        raise ToolError("LABELS", f"A sheet has 1 to {MAX_LABELS} labels, not {len(labels)}.")
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.units import mm
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont
    from reportlab.pdfgen.canvas import Canvas

    pdfmetrics.registerFont(UnicodeCIDFont("HeiseiKakuGo-W5"))  # a product's name may be Japanese
    out = io.BytesIO()
    page = Canvas(out, pagesize=A4, invariant=1, pageCompression=1)
    page.setTitle("Sekisho device labels")
    per_page = PER_ROW * PER_COLUMN
    for number, label in enumerate(labels):
        if number and number % per_page == 0:
            page.showPage()
        row, column = divmod(number % per_page, PER_ROW)
        _draw(page, label, column * WIDTH_MM * mm, A4[1] - (row + 1) * HEIGHT_MM * mm, mm)
    page.save()
    return out.getvalue()


def _draw(page: Any, label: Label, left: float, bottom: float, mm: float) -> None:
    modules = _modules(label)
    module = 31 * mm / len(modules)
    for y, row in enumerate(modules):
        for x, dark in enumerate(row):
            if dark:
                at = left + 2 * mm + x * module, bottom + 34 * mm - (y + 1) * module
                page.rect(*at, module, module, stroke=0, fill=1)
    for number, line in enumerate(label.lines):
        page.setFont("Courier" if line.isascii() else "HeiseiKakuGo-W5", 6)
        page.drawString(left + 34 * mm, bottom + (30 - 4 * number) * mm, line)
