"""The embedded server's web page: plainly over HTTP, and in a real Chromium."""

from __future__ import annotations

import ast
import os
import re
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import pytest
from sekisho import devicekey, eventlog
from sekisho import values as device_values
from sekisho_tools import report as desk_report
from sekisho_tools.server.options import Limits
from sekisho_tools.server.store import Busy
from sekisho_tools.server.words import JAPANESE, japanese
from server_fixtures import PASSWORD, Answer, Site, ask, basic, running
from test_report import Device as Whole

REPO = Path(__file__).parents[1]
TEMPLATES = REPO / "tools" / "sekisho_tools" / "server" / "templates"
IMAGES = REPO / "docs" / "img"
NASTY = "<script>document.title='owned'</script><img src=x onerror=alert(1)>\"'&"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("server")) as found, pytest.MonkeyPatch.context() as patch:
        for module, attribute in ((device_values, "KEPT"), (eventlog, "PATH"), (devicekey, "PATH")):
            patch.setattr(module, attribute, str(tmp_path_factory.mktemp("device") / module.__name__))
        fill(found)
        yield found


def fill(site: Site) -> None:
    """A small fleet with everything that the page shows."""
    release = site.release(b"new firmware")
    module = site.api.call("GET", f"/distributionsets/{release}/assignedSM")["content"][0]["id"]
    texts = [{"key": "text.en", "value": "Faster start."}, {"key": "text.ja", "value": "起動が速くなりました。"}]
    site.api.call("POST", f"/softwaremodules/{module}/metadata", texts)
    fleet = [site.device(f"lamp-{n:02}") for n in range(8)]
    for number, device in enumerate(fleet):
        device.poll()
        device.ask("/configData", "PUT", {"data": {"fw": f"1.{number}", "chip": "esp32"}})
    body = {
        "name": "lamps to 1.0",
        "distributionSetId": release,
        "targetFilterQuery": "controllerid==lamp-*",
        "silenceTimeout": 600,
        "groups": [{"name": "canary", "targetPercentage": 25}, {"name": "rest", "targetPercentage": 100}],
        "errorCondition": {"expression": "60"},
    }
    rollout = site.api.call("POST", "/rollouts", body)["id"]
    site.api.call("POST", f"/rollouts/{rollout}/start")
    assert fleet[0].feedback(fleet[0].order()["id"], details=["Installed, checked, confirmed."]) == 200
    assert fleet[1].feedback(fleet[1].order()["id"], finished="failure", details=[NASTY]) == 200
    site.work()
    whole = Whole()
    with ThreadPoolExecutor(1) as pool:  # in a thread of its own: the browser has an event loop in this one
        document = pool.submit(whole.report).result()
    site.api.call("PUT", "/targets/lamp-00", {"publicKey": whole.key.public.hex()})
    assert fleet[0].ask("/reports", "POST", document, Content_Type="application/cose").json["verdict"] == "verified"
    nasty = site.device("nasty")
    nasty.ask("/configData", "PUT", {"mode": "replace", "data": {NASTY[:60]: NASTY[:100]}})
    nasty.ask("/reports", "POST", NASTY.encode(), Content_Type="application/cose")
    site.api.call("PUT", "/targets/nasty", {"name": NASTY, "description": NASTY})


class Browser:
    """A very small one: cookies and forms."""

    def __init__(self, site: Site, who: str | None = "op", **headers: str) -> None:
        self.site = site
        self.cookies: dict[str, str] = {}
        self.headers = headers
        if who:
            assert self.post("/login", name=who, password=PASSWORD, next="/devices").status == 303

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        given = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())} | self.headers
        answer = ask(self.site.url + path, method, body, given, **headers)
        if "set-cookie" in answer.headers:
            name, _, value = answer.headers["set-cookie"].split(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    def get(self, path: str) -> Answer:
        return self.ask(path)

    def post(self, path: str, **values: str) -> Answer:
        kind = "application/x-www-form-urlencoded"
        return self.ask(path, "POST", urlencode(values).encode(), Content_Type=kind)

    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', self.get("/devices").body.decode())
        assert found
        return found[1]


PAGES = ["/devices", "/devices/lamp-00", "/devices/nasty", "/releases", "/rollouts", "/rollouts/1", "/approvals"]


@pytest.mark.requirement("STS12")
@pytest.mark.parametrize("path", ["/", *PAGES, "/rollouts/1/progress"])
def test_nothing_is_shown_without_logging_in(site, path):
    answer = Browser(site, None).get(path)
    assert (answer.status, answer.body) == (303, b"")
    assert answer.headers["location"].startswith("/login")


@pytest.mark.parametrize("path", PAGES)
def test_pages_keep_a_strict_policy_and_break_none_of_it(site, path):
    answer = Browser(site).get(path)
    assert answer.status == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-frame-options"] == "DENY"
    text = answer.body.decode()
    assert not re.search(r"\son\w+=", re.sub(r"&#34;|&lt;.*?&gt;|&lt;.*?&#34;", "", text))
    assert not re.search(r"<style|\sstyle=|javascript:", text)
    assert not re.search(r'(src|href|action)="(https?:)?//', text)
    assert re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL) == [""]


@pytest.mark.parametrize("path", PAGES)
def test_what_devices_say_stays_text(site, path):
    text = Browser(site).get(path).body.decode()
    assert "<img" not in text
    assert "<script>" not in text


def test_the_nasty_text_is_really_there(site):
    assert "&lt;script&gt;document.title" in Browser(site).get("/devices/nasty").body.decode()
    assert "&lt;script&gt;document.title" in Browser(site).get("/devices/lamp-01").body.decode()


def test_a_wrong_password_is_told_apart_from_nothing_else(site):
    answer = Browser(site, None).post("/login", name="op", password="wrong", next="/")
    other = Browser(site, None).post("/login", name="nobody-at-all", password="wrong", next="/")
    assert (answer.status, answer.body) == (401, other.body)
    assert "set-cookie" not in answer.headers


def test_the_session_cookie_is_out_of_reach_of_scripts_and_other_sites(site):
    browser = Browser(site, None)
    answer = browser.post("/login", name="op", password=PASSWORD, next="/devices")
    assert answer.headers["set-cookie"].lower().endswith("; httponly; path=/; samesite=strict")


@pytest.mark.parametrize(
    "where", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", ""]
)
def test_logging_in_never_leads_to_another_site(site, where):
    answer = Browser(site, None).post("/login", name="op", password=PASSWORD, next=where)
    assert answer.headers["location"] == "/devices"


def test_forms_need_their_token_and_our_origin(site):
    browser = Browser(site)
    csrf = browser.csrf()
    for values, headers in (
        ({}, {}),
        ({"csrf": "guess"}, {}),
        ({"csrf": Browser(site, "admin").csrf()}, {}),
        ({"csrf": csrf}, {"Origin": "https://evil.example"}),
        ({"csrf": csrf}, {"Sec-Fetch-Site": "cross-site"}),
    ):
        browser.headers = headers
        assert browser.post("/rollouts/1/pause", **values).status == 403
    assert site.api.call("GET", "/rollouts/1")["status"] != "paused"


def test_viewers_see_no_buttons_and_cannot_press_them(site):
    browser = Browser(site, "view")
    text = browser.get("/rollouts/1").body.decode()
    assert "/rollouts/1/stop" not in text
    assert browser.post("/rollouts/1/stop", csrf=browser.csrf()).status == 403


def test_logging_out_ends_the_session_on_the_server(site):
    browser = Browser(site)
    kept = dict(browser.cookies)
    browser.post("/logout", csrf=browser.csrf())
    browser.cookies = kept
    assert browser.get("/devices").status == 303


def test_a_session_ends_when_it_is_not_used(site):
    browser = Browser(site)
    before = site.clock.now
    site.clock.pass_seconds(3601)
    try:
        assert browser.get("/devices").status == 303
    finally:
        site.clock.now = before


@pytest.mark.parametrize(
    "path", ["/devices/none", "/rollouts/999", "/rollouts/x", "/static/none", "/nothing", "/devices?number=0"]
)
def test_what_is_not_there_is_said_on_a_page(site, path):
    answer = Browser(site).get(path)
    assert answer.status in (400, 404)
    assert b"<main" in answer.body


def test_devices_are_found(site):
    browser = Browser(site)
    assert re.findall(r'href="/devices/([^"]+)"', browser.get("/devices?search=LAMP-03").body.decode()) == ["lamp-03"]
    assert re.findall(r'href="/devices/([^"]+)"', browser.get("/devices?search=%25").body.decode()) == []
    assert "lamp-01" in browser.get("/devices?state=problem").body.decode()
    assert "lamp-00" not in browser.get("/devices?state=problem").body.decode()


def test_every_word_of_the_page_is_there_in_japanese():
    words = set()
    for path in TEMPLATES.glob("*.html"):
        words |= set(re.findall(r"\bt\(\"([^\"]+)\"\)|\bt\('([^']+)'\)", path.read_text()))
    used = {one or other for one, other in words}
    from sekisho_tools.server import actions, web

    assert used
    states = {*actions.EXECUTIONS.values(), "finished", "error", "canceling", "wait_for_confirmation", "retrieved"}
    assert sorted((used | states) - JAPANESE.keys()) == []
    assert web.translate("ja", "Devices") != "Devices"


def test_the_page_speaks_the_browsers_language(site):
    japanese = Browser(site, **{"Accept-Language": "ja,en;q=0.5"})
    assert 'lang="ja"' in japanese.get("/releases").body.decode()
    assert "起動が速くなりました。" in japanese.get("/releases").body.decode()
    assert "Faster start." in Browser(site).get("/releases").body.decode()


def test_what_the_server_writes_into_histories_is_japanese_too(site):
    text = Browser(site, **{"Accept-Language": "ja"}).get("/devices/lamp-00").body.decode()
    assert "デバイスが指示を受信。" in text
    assert "Assigned by" not in text
    assert "Installed, checked, confirmed." in text  # the device's own words stay as they are
    assert "秒前" in text
    for own in (
        "Assigned by alice.",
        "Nothing heard for 60 seconds after the device took the update.",
        "2 of 10 devices of group canary failed or fell silent",
        "group canary ended with 1 of 2 devices updated",
        "stopped by alice",
    ):
        assert japanese(own) != own
    assert japanese("2 of 10 devices of group canary failed or fell silent").startswith(
        "グループ canary の 10 台中 2 台"
    )
    assert japanese("{0.__class__} by alice.") == "{0.__class__} by alice."
    assert japanese("Assigned by {0.__class__}.") == "{0.__class__} が割り当て。"


def refusals() -> set[str]:
    """Every sentence with which what the page uses refuses something, a number where something is put in."""
    found = set()
    for name in ("web", "front", "app", "actions", "rollouts", "targets", "errors"):
        for call in ast.walk(ast.parse((TEMPLATES.parent / f"{name}.py").read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                continue
            at = {"Problem": 2, "wrong": 0, "quota": 0}.get(call.func.id)
            if at is not None:
                found.add(sentence(call.args[at]))
            elif call.func.id in ("missing", "exists") and name != "errors":
                words = "There is no {} 'x'." if call.func.id == "missing" else "There is a {} 'x' already."
                found.add(words.format(sentence(call.args[0])))
    return {one for one in found if one.strip("7 .")}


def sentence(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "'7'" if quoted(part) else "7"
            for part in node.values
        )
    return str(node.value) if isinstance(node, ast.Constant) else ""


def quoted(part: ast.expr) -> bool:
    return isinstance(part, ast.FormattedValue) and part.conversion == ord("r")


def test_every_refusal_that_people_may_see_is_there_in_japanese():
    # of the device API alone, or made of others that are looked at below
    aside = {
        "A controllerId has 1 to 256 characters, without slashes and control characters.",
        "A securityToken has 7 to 128 printable ASCII characters without spaces.",
        "This server keeps at most 7 targets.",
        "data must not be empty.",
        "Keys and values have at most 7 ASCII letters, digits, spaces and common signs.",
        "A target has at most 7 attributes.",
        "A target has at most 7 metadata entries.",
        "The one-time token is not valid for this device.",
        "There is no 7 '7'.",
        "There is a 7 '7' already.",
    }
    found = refusals()
    assert len(found) > 30
    assert aside <= found
    assert sorted(one for one in found - aside if japanese(one) == one) == []
    from sekisho_tools.server.app import PAGE_WORDS

    words = ["The action cannot be cancelled any more.", "Only an action that is being cancelled can be forced."]
    for one in (*PAGE_WORDS.values(), *words):
        assert japanese(one) != one
    assert japanese("The rollout is waiting for approval, so this cannot be done.") == (
        "ロールアウトは「承認待ち」のため、実行できません。"
    )


def test_every_finding_in_a_signed_report_is_there_in_japanese():
    reasons = [*desk_report._WORDS, *(f"{kind}:x" for kind in desk_report._KINDS), "news"]
    sentences = [desk_report.word(one) for one in reasons]
    source = ast.parse(Path(desk_report.__file__).read_text())
    functions = {node.name: node for node in source.body if isinstance(node, ast.FunctionDef)}
    for name in ("parse", "check_signature", "entries", "_events", "_octets", "_uuid"):
        for call in ast.walk(functions[name]):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in ("ToolError", "verdict.add"):
                sentences.append(sentence(call.args[-1]))
    assert len(sentences) > 20
    sentences += ["The device is in development mode.", "The report cannot be read."]
    assert [one for one in sentences if japanese(one) == one] == []
    assert japanese(desk_report.word("changed:fw_0")) == "fw_0 の内容が導入時のものと異なります。"


def test_a_report_with_findings_is_japanese_on_a_japanese_page(site, monkeypatch, tmp_path):
    for module, attribute in ((device_values, "KEPT"), (eventlog, "PATH"), (devicekey, "PATH")):
        monkeypatch.setattr(module, attribute, str(tmp_path / module.__name__))

    def changed() -> tuple[bytes, bytes]:
        whole = Whole()
        whole.desk.flash.buffer[0x10000 + 9000] ^= 1
        return whole.report(), whole.key.public

    with ThreadPoolExecutor(1) as pool:
        document, public = pool.submit(changed).result()
    device = site.device("changed")
    site.api.call("PUT", "/targets/changed", {"publicKey": public.hex()})
    device.ask("/reports", "POST", document, Content_Type="application/cose")
    english = Browser(site).get("/devices/changed").body.decode()
    text = Browser(site, **{"Accept-Language": "ja"}).get("/devices/changed").body.decode()
    assert '<li class="problem">The bytes in fw_0 are not those that were installed.</li>' in english
    assert '<li class="problem">fw_0 の内容が導入時のものと異なります。</li>' in text
    assert "<dt>says of itself</dt><dd>degraded: changed:fw_0</dd>" in english
    assert "<dt>自己診断</dt><dd>機能低下: changed:fw_0</dd>" in text
    assert "<dt>製品</dt><dd>lamp</dd>" in text
    shown = text[text.index("署名付きレポート") :]
    names = re.findall(r"<dt>([^<]*)</dt>", shown)
    assert len(names) > 8
    assert [name for name in names if re.fullmatch(r"[a-z ]+", name)] == []


def test_pages_of_errors_are_in_the_readers_language(site):
    browser = Browser(site, **{"Accept-Language": "ja"})
    csrf = browser.csrf()
    view = Browser(site, "view", **{"Accept-Language": "ja"})
    expected = {
        "デバイス &#39;none&#39; はありません": browser.get("/devices/none"),
        "そのようなページはありません": browser.get("/nothing"),
        "アドレスを読み取れません": browser.get("/devices?number=0"),
        "この方法では使えません": browser.ask("/devices", "DELETE"),
        "フォームが古くなっています": browser.post("/rollouts/1/pause"),
        "operator の権限が必要": view.post("/rollouts/1/pause", csrf=view.csrf()),
        "「実行中」のため": browser.post("/rollouts/1/start", csrf=csrf),
        "フォームではありません": browser.ask("/login", "POST", b"{}", Content_Type="application/json"),
        "送信内容が": browser.ask("/login", "POST", b"x" * (2 << 20), Accept="text/html,*/*"),
        "アドレスが長すぎる": browser.ask("/" + "x" * 3000, Accept="text/html"),
        "名前またはパスワードが違います": Browser(site, None, **browser.headers).post(
            "/login", name="op", password="x"
        ),
    }
    assert [answer.status for answer in expected.values()] == [404, 404, 400, 405, 403, 403, 400, 415, 413, 414, 401]
    for words, answer in expected.items():
        text = answer.body.decode()
        assert words in text, text[-400:]
        assert 'lang="ja"' in text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert expected["この方法では使えません"].headers["allow"] == "GET"


def test_what_breaks_in_the_server_is_a_page_for_people_and_json_for_programs(site, monkeypatch):
    browser = Browser(site, **{"Accept-Language": "ja"})
    for error, status, words in (
        (Busy(), 503, "混み合っています"),
        (RuntimeError("secret"), 500, "サーバーで問題が起き"),
    ):

        async def fail(job, error=error):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(site.server.server.store, "read", fail)
            shown = browser.get("/rollouts")
            told = ask(f"{site.url}/rest/v1/rollouts", headers=basic("op"))
        assert (shown.status, told.status) == (status, status)
        assert words in shown.body.decode()
        assert b"secret" not in shown.body + told.body
        assert told.json["errorCode"] == "sekisho." + ("busy" if status == 503 else "internal")
        if status == 503:
            assert shown.headers["retry-after"] == told.headers["retry-after"] == "5"


def test_who_asks_too_often_sees_a_page_and_a_program_json(tmp_path):
    with running(tmp_path, limits=Limits(address_reads=0.01, address_writes=0, device=0, burst=100)) as site:
        page = [ask(f"{site.url}/login", Accept="text/html", Accept_Language="ja") for _ in range(3)][-1]
        assert (page.status, int(page.headers["retry-after"]) > 0) == (429, True)
        assert "要求が多すぎます" in page.body.decode()
        assert ask(f"{site.url}/login").json["errorCode"] == "sekisho.too_many"
        assert ask(f"{site.url}/rest/v1/targets", Accept="text/html").json["errorCode"] == "sekisho.too_many"
        head = ask(f"{site.url}/login", "HEAD", Accept="text/html")
        assert (head.status, head.body) == (429, b"")


@pytest.mark.requirement("HLC07")
def test_only_an_admin_sees_and_presses_decommission(site):
    site.device("old-lamp").poll()
    operator, admin = Browser(site), Browser(site, "admin")
    assert "decommission" not in operator.get("/devices/old-lamp").body.decode()
    assert operator.post("/devices/old-lamp/decommission", csrf=operator.csrf(), why="x").status == 403
    assert admin.post("/devices/old-lamp/decommission", csrf=admin.csrf(), why=" ").status == 400
    assert admin.post("/devices/old-lamp/decommission", csrf=admin.csrf(), why=NASTY).status == 303
    page = admin.get("/devices/old-lamp").body.decode()
    assert "&lt;script&gt;document.title" in page
    assert 'action="/devices/old-lamp/decommission"' not in page
    assert "old-lamp" in admin.get("/devices?state=decommissioned").body.decode()


# -- in Chromium --------------------------------------------------------------------------------------------------


@pytest.fixture
def tab(chromium, site):
    context = chromium.new_context(viewport={"width": 1100, "height": 800}, locale="en", reduced_motion="reduce")
    page = context.new_page()
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on(
        "request", lambda request: None if request.url.startswith(site.url) else page.complaints.append(request.url)
    )
    yield page
    assert page.complaints == []
    context.close()


def log_in(tab, site, who="op"):
    tab.goto(f"{site.url}/login")
    tab.get_by_label("Name").fill(who)
    tab.get_by_label("Password").fill(PASSWORD)
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/devices")


def shoot(tab, name, whole=False):
    """A picture for the documents, when SEKISHO_SHOTS is set."""
    if os.environ.get("SEKISHO_SHOTS"):
        IMAGES.mkdir(exist_ok=True)
        tab.screenshot(path=IMAGES / f"{name}.png", full_page=whole)


def test_in_chromium_nothing_of_a_device_is_run(tab, site):
    log_in(tab, site)
    for path in PAGES:
        tab.goto(site.url + path)
        assert "owned" not in tab.title()
        assert tab.locator("img").count() == 0
    tab.goto(f"{site.url}/devices")
    shoot(tab, "devices")
    tab.goto(f"{site.url}/devices/lamp-00")
    shoot(tab, "device", whole=True)


def test_in_chromium_a_rollout_is_watched_and_stopped(tab, site):
    release = site.release()
    devices = [site.device(f"plug-{n}") for n in range(4)]
    body = {
        "name": "plugs",
        "distributionSetId": release,
        "targetFilterQuery": "controllerid==plug-*",
        "amountGroups": 1,
    }
    number = site.api.call("POST", "/rollouts", body)["id"]
    log_in(tab, site)
    tab.goto(f"{site.url}/rollouts/{number}")
    tab.get_by_role("button", name="Start").click()
    region = tab.get_by_role("status")
    region.get_by_text("0 / 4").first.wait_for()
    for count, device in enumerate(devices[:2], 1):
        assert device.feedback(device.order()["id"]) == 200
        region.get_by_text(f"{count} / 4 finished").wait_for(timeout=10_000)  # without loading the page again
    shoot(tab, "rollout")
    tab.get_by_text("Stop this rollout").click()
    tab.get_by_role("button", name="Really stop").click()
    tab.get_by_text("stopped by op").wait_for()
    assert site.api.call("GET", f"/rollouts/{number}")["status"] == "stopped"


def test_in_chromium_the_keyboard_is_enough(tab, site):
    log_in(tab, site)
    tab.goto(f"{site.url}/devices")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "content"
    names = []
    tab.goto(f"{site.url}/devices")
    for _ in range(12):
        tab.keyboard.press("Tab")
        names.append(tab.evaluate("document.activeElement.textContent.trim()"))
    assert names[1:5] == ["Devices", "Releases", "Rollouts", "Approvals"]
    tab.get_by_role("link", name="Rollouts").focus()
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/rollouts")


def test_in_chromium_everything_has_a_name(tab, site):
    log_in(tab, site)
    for path in PAGES:
        tab.goto(site.url + path)
        tree = tab.locator("body").aria_snapshot()
        assert "- main" in tree
        assert "heading" in tree
        unnamed = tab.evaluate(
            "[...document.querySelectorAll('input:not([type=hidden]),select')].filter(e => !e.labels.length).length"
        )
        assert unnamed == 0
        assert tab.evaluate("[...document.querySelectorAll('button,a')].filter(e => !e.textContent.trim()).length") == 0
        assert tab.evaluate("document.documentElement.lang") == "en"


def test_in_chromium_a_phone_needs_no_sideways_scrolling(chromium, site):
    context = chromium.new_context(viewport={"width": 360, "height": 740}, locale="ja", is_mobile=True, has_touch=True)
    tab = context.new_page()
    tab.goto(f"{site.url}/login")
    tab.get_by_label("名前").fill("op")
    tab.get_by_label("パスワード").fill(PASSWORD)
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/devices")
    for path in PAGES:
        tab.goto(site.url + path)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360, path
    tab.goto(f"{site.url}/rollouts/1")
    shoot(tab, "phone-ja")
    context.close()


def test_the_pictures_in_the_documents_are_small():
    pictures = sorted(IMAGES.glob("*.png"))
    assert {path.stem for path in pictures} >= {"devices", "device", "rollout", "phone-ja"}
    for path in pictures:
        data = path.read_bytes()
        assert len(data) < 150_000
        assert struct.unpack(">II", data[16:24])[0] <= 1200
