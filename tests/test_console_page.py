"""The device's console in a real headless Chromium, against the simulated device: on a desk, on a phone, in Japanese.

SEKISHO_SHOTS=1 writes the pictures of docs/img/.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.console import PASSWORD, SECRET, Device
from PIL import Image
from sekisho_tools import suit
from sekisho_tools.serve import StaticServer
from test_console import NEW, TELLS, Operator

IMAGES = Path(__file__).parents[1] / "docs" / "img"
SHOWN = ("console-login", "console-state", "console-settings", "console-log", "console-state-ja", "console-settings-ja")
"""The pages whose pictures are in the documents."""
DESK = {"viewport": {"width": 1000, "height": 760}, "locale": "en"}
PHONE = {"viewport": {"width": 375, "height": 720}, "device_scale_factor": 2, "locale": "ja", "is_mobile": True}


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    root = tmp_path / "site"
    root.mkdir()
    with StaticServer(root) as server:
        made = Device(
            tmp_path,
            server=server.url,
            modules={"application": TELLS},
            interfaces=("console", "access-point"),
            update_start="user",
            wifi=[["sekisho", "sekisho-lab"]],
        )
        made.product.root = root
        words = {
            "en": suit.Text(update="The lamp starts faster.\nA fault of the dimmer is mended."),
            "ja": suit.Text(update="起動が速くなりました。\n調光の不具合を直しました。"),
        }
        made.product.publish(made.product.release(2, NEW, text=words), NEW)
        with made:
            yield made


class Tab:
    """A page of the browser that notes everything the policy, the network or a script complains about."""

    def __init__(self, chromium: Any, device: Device, how: dict[str, Any]) -> None:
        self.device = device
        self.complaints: list[str] = []
        self.context = chromium.new_context(reduced_motion="reduce", **how)
        self.page = self.context.new_page()
        self.page.on("console", lambda note: self.complaints.append(note.text) if note.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._asked)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.device.url, "data:")):
            self.complaints.append(request.url)

    def go(self, path: str) -> Any:
        self.page.goto(self.device.url + path)
        return self.page

    def log_in(self, password: str = PASSWORD) -> None:
        self.go("/")
        self.page.locator("#password").fill(password)
        with self.page.expect_navigation():  # the hash takes its time
            self.page.locator("main button").click()

    def shoot(self, name: str) -> None:
        """A picture for the documents; and in any case no page is wider than its screen."""
        wide = self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        assert not wide, f"{name} is wider than the screen"
        if os.environ.get("SEKISHO_SHOTS") and name in SHOWN:
            picture = self.page.screenshot(full_page="settings" not in name)
            # Few colours are enough for a page, and a third of the bytes.
            Image.open(io.BytesIO(picture)).quantize(64).save(IMAGES / f"{name}.png", optimize=True)

    def close(self, *expected: str) -> None:
        left = [one for one in self.complaints if not any(re.search(words, one) for words in expected)]
        self.context.close()
        assert left == []


@pytest.mark.requirement("HLC04", "UPE04", "UPE06", "STS04")
def test_from_the_label_to_an_installed_update(chromium: Any, device: Device) -> None:
    tab = Tab(chromium, device, DESK)
    page = tab.go("/")
    tab.shoot("console-login")
    tab.log_in("not the secret")
    assert page.get_by_role("alert").inner_text() == "Wrong name or password."
    page.wait_for_timeout(1200)
    tab.log_in(SECRET)
    page.get_by_label("New password").fill(PASSWORD)
    page.get_by_label("Once more").fill(PASSWORD)
    tab.shoot("console-password")
    page.get_by_role("button", name="Save").click()
    assert page.get_by_role("status").inner_text() == "Saved."
    device.wait_for("sekisho: APPROVAL")
    tab.go("/")
    assert page.get_by_text("Release 2 is available").is_visible()
    assert page.get_by_text("The lamp starts faster.").is_visible()
    tab.shoot("console-state")
    for path, name in (("/settings", "settings"), ("/files", "files"), ("/wifi", "wifi"), ("/accounts", "accounts")):
        tab.go(path)
        tab.shoot(f"console-{name}")
    tab.go("/settings")
    page.get_by_label("Seconds between two looks").fill("1200")
    page.get_by_label("When updates may start").fill("sat,sun 00:00-24:00; mon-fri 00:00-24:00")
    page.get_by_role("button", name="Save").click()
    assert page.get_by_role("status").inner_text() == "Saved."
    assert page.get_by_label("Seconds between two looks").input_value() == "1200"
    tab.go("/")
    page.get_by_role("button", name="Install now").click()
    assert "installs it now" in page.get_by_role("status").inner_text()
    device.wait_for("sekisho: confirmed", 60)
    device.wait_for("console on port")
    tab.log_in()
    assert page.get_by_text("Release 2: confirmed").is_visible()
    tab.go("/log")
    assert page.get_by_role("cell", name="INSTALLED", exact=True).first.is_visible()
    tab.shoot("console-log")
    tab.close("401", "ERR_CONNECTION")


@pytest.mark.requirement("STS04", "UPE06")
def test_on_a_phone_in_japanese(chromium: Any, device: Device) -> None:
    device.browser().set_up()
    tab = Tab(chromium, device, PHONE)
    page = tab.go("/")
    assert page.locator("html").get_attribute("lang") == "ja"
    tab.shoot("console-login-ja")
    tab.log_in()
    device.wait_for("sekisho: APPROVAL")
    tab.go("/")
    assert page.get_by_text("起動が速くなりました。").is_visible()
    tab.shoot("console-state-ja")
    for path in ("/settings", "/files", "/wifi", "/log", "/accounts", "/password"):
        tab.go(path)
        tab.shoot(f"console-{path[1:]}-ja")
        small = page.evaluate(
            "[...document.querySelectorAll('button,nav a,select,main input:not([type=hidden]):not([type=checkbox])"
            ":not([type=radio])')].filter(e => e.getBoundingClientRect().height < 36).map(e => e.outerHTML)"
        )
        assert small == []  # a finger finds everything
    page.get_by_role("link", name="English").click()
    assert page.locator("html").get_attribute("lang") == "en"
    tab.close()


NAMELESS = """[...document.querySelectorAll('input:not([type=hidden]),select,textarea,button,a')].filter(e =>
  !(e.labels && e.labels.length) && !e.textContent.trim() && !e.getAttribute('aria-label')).map(e => e.outerHTML)"""
FAINT = """() => {
  const paint = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (...colors) => {
    paint.clearRect(0, 0, 1, 1);
    for (const color of colors) { paint.fillStyle = color; paint.fillRect(0, 0, 1, 1); }
    return [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = color => color.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const dark = matchMedia('(prefers-color-scheme:dark)').matches;
  const read = 'a,p,b,h1,h2,dt,dd,small,label,button,input,select,textarea,th,td';
  return [...document.querySelectorAll(read)].filter(e => {
    if (e.disabled || !e.getClientRects().length) return false;
    const under = [];
    for (let at = e; at; at = at.parentElement) under.unshift(getComputedStyle(at).backgroundColor);
    const ground = light(rgba(dark ? '#121212' : '#fff', ...under)), ink = light(rgba(getComputedStyle(e).color));
    return (Math.max(ground, ink) + .05) / (Math.min(ground, ink) + .05) < 4.5;
  }).map(e => e.outerHTML);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_and_reach_everything(chromium: Any, device: Device, scheme: str) -> None:
    """Names for screen readers, contrast of at least 4.5 (WCAG 2.2, AA), a focus that can be seen, one heading."""
    device.browser().set_up()
    tab = Tab(chromium, device, {**PHONE, "locale": "en", "color_scheme": scheme})
    page = tab.page
    tab.log_in()
    device.wait_for("sekisho: APPROVAL")
    for path in ("/", "/settings", "/files", "/wifi", "/log", "/accounts", "/password"):
        tab.go(path)
        assert page.evaluate(NAMELESS) == [], path
        assert page.evaluate(FAINT) == [], path
        assert page.locator("h1").count() == 1
        assert page.locator("html").get_attribute("lang") == "en"
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids)), path
        named = page.evaluate(
            "[...document.querySelectorAll('[aria-labelledby],[aria-describedby]')]"
            ".map(e => e.getAttribute('aria-labelledby') || e.getAttribute('aria-describedby'))"
        )
        assert set(named) <= set(ids), path
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.close()


def test_everything_works_without_javascript(chromium: Any, device: Device) -> None:
    device.browser().set_up()
    tab = Tab(chromium, device, {**DESK, "java_script_enabled": False})
    page = tab.page
    tab.log_in()
    tab.go("/files")
    page.locator("#file").set_input_files(
        {
            "name": "order.cose",
            "mimeType": "application/cose",
            "buffer": Operator(device).order("settings", {"poll": 900}),
        }
    )
    page.get_by_role("button", name="Send").click()
    assert page.get_by_role("status").inner_text() == "The order was obeyed."
    tab.go("/settings")
    assert page.get_by_label("Seconds between two looks").input_value() == "900"
    page.get_by_role("button", name="Log out").click()
    assert page.get_by_role("button", name="Log in").is_visible()
    tab.close()


def test_a_page_of_another_origin_can_neither_post_nor_frame(chromium: Any, device: Device) -> None:
    device.browser().set_up()
    tab = Tab(chromium, device, DESK)
    page = tab.page
    tab.log_in()
    text = (
        f'<form method="post" action="{device.url}/settings"><input name="poll" value="31"></form>'
        f'<iframe src="{device.url}/settings"></iframe><script>document.forms[0].submit()</script>'
    )
    page.route("http://evil.example/", lambda route: route.fulfill(body=text, content_type="text/html"))
    with page.expect_response(device.url + "/settings", timeout=20_000):
        page.goto("http://evil.example/", wait_until="commit")
    page.wait_for_timeout(1500)
    tab.go("/settings")
    assert page.get_by_label("Seconds between two looks").input_value() != "31"
    tab.context.close()
