"""The device's console, over plain sockets: who gets in, what forms do, what hostile requests come to."""

from __future__ import annotations

import errno
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.console import PASSWORD, SECRET, Browser, Device
from helpers.desk import firmware
from helpers.keys import ISSUED, YEAR, signer
from sekisho import console, console_words, orders, values
from sekisho_tools import cose, settings, suit
from sekisho_tools.serve import StaticServer
from test_duties import files, log

PAGES = ["/", "/settings", "/files", "/wifi", "/log", "/accounts", "/password"]
CONSOLE_HEAP = 16_000
"""Most bytes of heap that the console keeps after everything was looked at (64-bit objects, twice a chip's)."""
NASTY = "<script>alert(1)</script>\"'&"


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    with Device(tmp_path_factory.mktemp("console"), wifi=[["sekisho", "sekisho-lab"]]) as made:
        made.browser().set_up()
        yield made


@pytest.fixture
def admin(device: Device) -> Browser:
    found = device.browser()
    assert found.login().headers["location"] == "/"
    return found


# -- who gets in ---------------------------------------------------------------------------------------------


@pytest.mark.requirement("STS12", "SSS03")
@pytest.mark.parametrize("path", [*PAGES[1:], "/log.bin"])
def test_nothing_is_shown_without_a_log_in(device: Device, path: str) -> None:
    answer = device.browser().get(path)
    assert (answer.status, answer.headers["location"], answer.body) == (303, "/", b"")


@pytest.mark.requirement("SSS03")
def test_the_page_for_everybody_says_only_whether_the_device_is_well(device: Device) -> None:
    text = re.sub(r"<[^>]*>", " ", device.browser().get("/").text)
    assert "This device is as it should be." in text
    for secret in (device.world.mac.hex(), "192.168", "Release", "Key set", "sekisho-lab"):
        assert secret not in text


@pytest.mark.requirement("STS12", "STS15", "HLC04")
def test_a_device_without_a_secret_of_its_own_opens_no_console(tmp_path: Path) -> None:
    device = Device(tmp_path, secret=None)
    try:
        device.start("sekisho: NETWORK")
        assert f"sekisho: no console: {console.NO_SECRET}" in device.text
        with pytest.raises(ConnectionRefusedError):
            device.browser().get("/")
    finally:
        device.stop()


@pytest.mark.requirement("STS11", "STS12")
def test_the_console_is_closed_where_the_settings_do_not_open_it(tmp_path: Path) -> None:
    device = Device(tmp_path, interfaces=())
    try:
        device.start("sekisho: NETWORK")
        assert "console" not in device.text
        with pytest.raises(ConnectionRefusedError):
            device.browser().get("/")
    finally:
        device.stop()


@pytest.mark.requirement("HLC04", "STS15")
def test_the_secret_from_the_label_opens_nothing_but_the_choice_of_a_password(tmp_path: Path) -> None:
    with Device(tmp_path, wifi=[]) as device:
        browser = device.browser()
        assert browser.login(SECRET).headers["location"] == "/password"
        for path in PAGES[:-1]:
            assert browser.get(path).headers["location"] == "/password"
        csrf = browser.csrf()
        for new, again in (("short", "short"), (SECRET, SECRET), (PASSWORD, PASSWORD + "x")):
            assert browser.post("/password", csrf=csrf, new=new, again=again).status == 400
        assert browser.post("/settings", csrf=csrf, poll="60").headers["location"] == "/password"
        answer = browser.post("/password", csrf=csrf, new=PASSWORD, again=PASSWORD)
        assert (answer.status, answer.headers["location"]) == (303, "/wifi")
        assert browser.get("/").status == 200
        assert device.browser().login(SECRET).status == 401
        device.stop()
        device.start()
        time.sleep(1.2)  # the failure just now
        assert device.browser().login(PASSWORD).headers["location"] == "/"
    kept = files(device.world)
    assert all(SECRET.encode() not in content for name, content in kept.items() if not name.startswith("console"))
    assert all(PASSWORD.encode() not in content for content in kept.values())
    assert {"LOGIN", "LOGIN_FAILED", "PASSWORD"} <= set(log(device.world))


@pytest.mark.requirement("STS13")
def test_guessing_ends_in_a_lock_out_that_pulling_the_plug_does_not_lift(tmp_path: Path) -> None:
    with Device(tmp_path, lockout_tries=3, lockout_minutes=1) as device:
        device.browser().set_up()
        for pause in (1.1, 2.1, 0):
            assert device.browser().login("a wrong one").status == 401
            time.sleep(pause)
        assert device.browser().login(PASSWORD).status == 429
        device.stop()
        device.start()
        answer = device.browser().login(PASSWORD)
        assert answer.status == 429
        wait = re.search(r"Seconds to wait: (\d+)", answer.text)
        assert wait
        assert 55 <= int(wait[1]) <= 60
    assert "LOCKED_OUT" in log(device.world)


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(device: Device) -> None:
    answer = device.browser().login()
    assert answer.cookies[0].endswith("; HttpOnly; SameSite=Strict; Path=/")


def test_logging_out_ends_the_session_on_the_device(admin: Browser) -> None:
    kept = dict(admin.cookies)
    admin.post("/logout", csrf=admin.csrf())
    admin.cookies = kept
    assert admin.get("/settings").status == 303


def test_forms_need_their_token_and_our_origin(device: Device, admin: Browser) -> None:
    csrf = admin.csrf()
    other = device.browser()
    other.login()
    for values_, headers in (
        ({}, {}),
        ({"csrf": "guess"}, {}),
        ({"csrf": other.csrf()}, {}),
        ({"csrf": csrf}, {"Origin": "http://evil.example"}),
        ({"csrf": csrf}, {"Origin": "null"}),
        ({"csrf": csrf}, {"Sec-Fetch-Site": "cross-site"}),
    ):
        admin.headers = headers
        for path in ("/settings", "/restore", "/wifi", "/accounts", "/password", "/look", "/update", "/logout"):
            assert admin.post(path, {**values_, "poll": "77", "ssid": "evil", "do": "away"}).status == 403, path
        assert admin.upload(b"\xd2", csrf=values_.get("csrf", "")).status == 403
    admin.headers = {}
    assert 'value="77"' not in admin.get("/settings").text


def test_a_name_that_somebody_pointed_at_the_device_is_not_answered(device: Device) -> None:
    assert device.browser(Host="evil.example").get("/").status == 421
    assert device.browser(Host="mpy-esp32.local").get("/").status == 200


@pytest.mark.parametrize("path", PAGES)
def test_pages_keep_a_strict_policy_and_break_none_of_it(admin: Browser, path: str) -> None:
    answer = admin.get(path)
    assert answer.status == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=|javascript:", answer.text)
    assert not re.search(r'(src|href|action)="(https?:)?//', answer.text)


# -- roles ---------------------------------------------------------------------------------------------------


@pytest.mark.requirement("STS05", "STS14")
def test_a_user_sees_and_changes_only_what_users_may(device: Device, admin: Browser) -> None:
    new = "a user's password"
    assert admin.post("/accounts", csrf=admin.csrf(), new=new, again=new).status == 303
    user = device.browser()
    assert user.login(new, "user").headers["location"] == "/"
    csrf = user.csrf()
    for path in ("/log", "/log.bin", "/accounts", "/wifi"):
        assert user.get(path).status == 403
    for path in ("/restore", "/wifi", "/accounts"):
        assert user.post(path, csrf=csrf, do="away", ssid="x").status == 403
    text = user.get("/settings").text
    assert 'name="utc_offset"' in text
    assert 'name="server"' not in text
    user.post("/settings", csrf=csrf, utc_offset="540", server="http://evil.example", poll="31")
    text = admin.get("/settings").text
    assert 'value="540"' in text
    assert "evil.example" not in text
    assert 'value="31"' not in text
    admin.post("/accounts", csrf=admin.csrf(), do="away")
    assert user.get("/settings").status == 303
    assert device.browser().login(new, "user").status == 401


# -- settings ------------------------------------------------------------------------------------------------


@pytest.mark.requirement("STS04", "STS05", "UPE05", "UPE06", "UPE07", "UPE08")
def test_the_settings_form_has_every_setting_and_changes_what_was_changed(admin: Browser) -> None:
    text = admin.get("/settings").text
    for line in values.SCHEMA:
        assert f'for="{line[0]}"' in text or f'aria-labelledby="{line[0]}.l"' in text, line[0]
    csrf = admin.csrf()
    sent = [
        *(("csrf", csrf), ("poll", "600"), ("update_enabled", "no"), ("update_start", "administrator")),
        *(("update_window", "sat,sun 02:00-04:00"), ("notify.", "1"), ("notify", "failed"), ("notify", "available")),
        ("mirrors", "http://a.example\r\nhttp://b.example"),
    ]
    assert admin.post("/settings", sent).status == 303
    text = admin.get("/settings").text
    assert "Saved." in text
    assert 'value="600"' in text
    assert 'value="sat,sun 02:00-04:00"' in text
    assert re.search(r'<option value="no" selected>[^<]*</option></select><small id="update_enabled.n">next poll', text)
    assert '<option value="administrator" selected>' in text
    assert 'value="failed" checked' in text
    assert 'value="installed">' in text
    assert "http://a.example\nhttp://b.example</textarea>" in text
    assert "Nothing was changed." in (admin.post("/settings", sent), admin.get("/settings"))[1].text
    state = admin.get("/").text
    assert "sat,sun 02:00-04:00" in state
    admin.post("/settings", csrf=csrf, update_enabled="yes", update_start="automatic", update_window="")


@pytest.mark.requirement("STS04")
def test_one_value_that_cannot_be_changes_nothing_and_what_was_typed_stays(admin: Browser) -> None:
    answer = admin.post("/settings", csrf=admin.csrf(), poll="5", utc_offset="60", update_window=NASTY)
    assert answer.status == 400
    assert "This cannot be: Seconds between two looks, When updates may start" in answer.text
    assert "<script>" not in answer.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;" in answer.text
    assert 'value="60"' not in admin.get("/settings").text


def test_secrets_are_never_shown_and_an_empty_field_keeps_them(admin: Browser) -> None:
    csrf = admin.csrf()
    admin.post("/settings", csrf=csrf, token="very-secret-token")
    admin.post("/settings", [("csrf", csrf), ("token", ""), ("wifi.", "1"), ("wifi.0", "sekisho"), ("wifi.0.key", "")])
    text = admin.get("/settings").text
    assert "very-secret-token" not in text
    assert "sekisho-lab" not in text
    assert 'value="sekisho"' in text


@pytest.mark.requirement("STS06")
def test_an_administrator_restores_the_secure_defaults(admin: Browser) -> None:
    csrf = admin.csrf()
    admin.post("/settings", csrf=csrf, poll="777", lockout_tries="20")
    admin.post("/restore", csrf=csrf)
    text = admin.get("/settings").text
    assert 'value="3600"' in text
    assert 'value="777"' not in text
    assert 'value="5" id="lockout_tries"' in text


# -- hostile requests ----------------------------------------------------------------------------------------

HEAD = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
HOSTILE = {
    "nothing but a line": b"\r\n\r\n",
    "no words": b"GET\r\n\r\n",
    "bytes": bytes(range(128, 256)) + b"\r\n\r\n",
    "a line without an end": b"GET /" + b"a" * 5000,
    "a head without an end": HEAD + b"X: " + b"y" * 900 + b"\r\n" + b"X: y\r\n" * 400,
    "many headers": HEAD + b"".join(b"X%d: y\r\n" % n for n in range(100)) + b"\r\n",
    "a header without a colon": HEAD + b"nonsense\r\n\r\n",
    "a folded header": HEAD + b"A: b\r\n c: d\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "a negative length": HEAD + b"Content-Length: -5\r\n\r\n",
    "a length of words": HEAD + b"Content-Length: 0x10\r\n\r\n",
    "a huge length": HEAD + b"Content-Length: 99999999999\r\n\r\n",
    "chunks": b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    "a path of percent signs": b"GET /%zz?%=%&&==%f HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a path of dots": b"GET /../../data/console HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "another method": b"DELETE / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "no host": b"GET / HTTP/1.0\r\n\r\n",
    "a cookie of nonsense": HEAD + b"Cookie: s=\xff\xfe; ;=;;s\r\n\r\n",
    "a large body": b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500000\r\n\r\n" + b"a" * 20000,
    "a form that is none": b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\n\r\n\xff\xff\xff\xff",
    "a form of percent signs": (
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Content-Length: 12\r\n\r\nname=%zz&%&="
    ),
    "an upload without a log-in": (
        b"POST /files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        b"Content-Length: 5000000\r\n\r\n--x\r\n"
    ),
}


@pytest.mark.requirement("STS12")
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_requests_are_refused_and_the_console_goes_on(device: Device, what: str) -> None:
    with socket.create_connection(("127.0.0.1", device.port), timeout=40) as link:
        found = b""
        try:
            link.sendall(HOSTILE[what])
            link.shutdown(socket.SHUT_WR)
            while piece := link.recv(4096):
                found += piece
        except OSError as error:  # the console may hang up before everything is said, but it must not hang
            if not isinstance(error, ConnectionError) and error.errno != errno.ENOTCONN:
                raise
    assert found == b"" or re.match(rb"HTTP/1.0 (400|403|404|405|411|413|421|303|401) ", found), found[:100]
    assert b"Traceback" not in found
    assert device.browser().get("/").status == 200


def test_parts_of_a_form_are_bounded(admin: Browser) -> None:
    csrf = admin.csrf()
    mark = "x" * 60
    head = f'--{mark}\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n'
    for body in (
        head + "a" * 50_000 + f"\r\n--{mark}--\r\n",
        f"--{mark}\r\n" + "X: y\r\n" * 5_000,
        "no boundary at all " * 100,
        head + csrf + f"\r\n--{mark}--\r\n",
        head
        + csrf
        + f'\r\n--{mark}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n\r\n--{mark}--',
    ):
        kind = f"multipart/form-data; boundary={mark}"
        assert admin.ask("POST", "/files", body.encode(), Content_Type=kind).status in (303, 400, 403), body[:100]
    assert admin.ask("POST", "/files", b"abc", Content_Type="multipart/form-data; boundary=" + "y" * 500).status == 303
    assert admin.get("/files").status == 200


def test_who_drips_is_cut_off_and_others_get_through_meanwhile(device: Device) -> None:
    slow = [
        socket.create_connection(("127.0.0.1", device.port), timeout=60) for _ in range(console.MAX_CONNECTIONS - 1)
    ]
    for link in slow:
        link.sendall(b"GET / HT")
    assert device.browser().get("/").status == 200
    start = time.monotonic()
    for link in slow:
        while True:
            try:
                link.sendall(b"x")
                link.settimeout(0.5)
                if not link.recv(100):
                    break
            except TimeoutError:
                assert time.monotonic() - start < 4 * console.PATIENCE
            except OSError:
                break
        link.close()
    assert time.monotonic() - start > console.PATIENCE


def test_more_connections_than_are_answered_are_closed_at_once(device: Device) -> None:
    idle = [socket.create_connection(("127.0.0.1", device.port), timeout=5) for _ in range(console.MAX_CONNECTIONS + 3)]
    time.sleep(0.5)
    closed = 0
    for link in idle:
        link.settimeout(0.2)
        try:
            closed += link.recv(1) == b""
        except TimeoutError:
            pass
        except ConnectionResetError:
            closed += 1
        link.close()
    assert closed == 3
    time.sleep(0.5)
    assert device.browser().get("/").status == 200


# -- words ---------------------------------------------------------------------------------------------------


def test_every_word_and_every_setting_is_there_in_both_languages() -> None:
    folder = Path(console_words.__file__).parent
    known = {english for english, _ in console_words.WORDS}
    used: set[str] = set()
    for name in ("console_pages", "console_web", "console_form", "console_files"):
        text = (folder / f"{name}.py").read_text()
        for pattern in (r'said\("([^"]+)"', r'_(?:row|button)\("([^"]+)"', r'_secret\("\w+", "([^"]+)"'):
            used |= set(re.findall(pattern, text))
        used |= set(re.findall(r'return "([A-Z][^"]+\.)"', text)) | set(re.findall(r'note = "([^"]+)"', text))
    assert used
    assert sorted(used - known) == []
    assert [line[0] for line in console_words.LABELS] == [line[0] for line in values.SCHEMA]
    for line in (*console_words.WORDS, *console_words.LABELS):
        assert all(line), line


def test_the_console_speaks_the_browsers_language_or_the_one_that_was_chosen(device: Device) -> None:
    browser = device.browser(Accept_Language="ja,en;q=0.5")
    assert 'lang="ja"' in browser.get("/").text
    assert "この機器は正常です。" in browser.get("/").text
    browser.get("/language?to=en")
    assert "This device is as it should be." in browser.get("/").text


# -- updates, orders and files -------------------------------------------------------------------------------


NEW = firmware("new", 100_000)
TELLS = """
import sekisho
async def main():
    print("device", sekisho.engine().port.device.hex())
"""
KNOWS_THE_TIME = "import sekisho.clock\nsekisho.clock._told = True\nasync def main():\n    pass\n"


class Operator:
    """Signs orders to one device."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.counter = 0

    def order(self, action: str, argument: Any = None) -> bytes:
        self.counter += 1
        found = re.search(r"device ([0-9a-f]{32})", self.device.text)
        assert found
        members = {1: orders.ACTIONS[action][0], 2: bytes.fromhex(found[1]), 4: ISSUED + YEAR, 6: self.counter}
        if argument is not None:
            members[5] = argument
        return cose.sign1(cose.encode(members), signer("operator"), attached=True)


def offered(tmp_path: Path, server: StaticServer, text: str = "", **settings: object) -> Device:
    """A device with a release at its server."""
    device = Device(tmp_path, server=server.url, modules={"application": TELLS}, **settings)
    device.product.root = Path(server.root)
    words = {"en": suit.Text(manifest="Pump driver", update=text), "ja": suit.Text(update="ポンプを修正しました。")}
    device.envelope = device.product.release(2, NEW, text=words)
    device.product.publish(device.envelope, NEW)
    return device


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StaticServer]:
    root = tmp_path / "site"
    root.mkdir()
    with StaticServer(root) as made:
        yield made


def release_of(text: str) -> str:
    found = re.search(r'name="release" value="([0-9a-f]{64})"', text)
    assert found, text
    return found[1]


@pytest.mark.requirement("UPE04", "UPE06")
def test_an_administrator_reads_what_is_offered_and_installs_it(tmp_path: Path, server: StaticServer) -> None:
    with offered(tmp_path, server, f"Fixes the pump. {NASTY}", update_start="administrator") as device:
        browser = device.browser().set_up()
        new = "a user's password"
        browser.post("/accounts", csrf=browser.csrf(), new=new, again=new)
        device.wait_for("sekisho: APPROVAL")
        text = browser.get("/").text
        assert "Release 2 is available" in text
        assert "Pump driver\nFixes the pump. &lt;script&gt;" in text
        assert "<script>" not in text
        assert "ポンプを修正しました。" in browser.get("/", Accept_Language="ja").text
        user = device.browser()
        user.login(new, "user")
        assert "Only an administrator may decide." in user.get("/").text
        user.post("/update", csrf=user.csrf(), release=release_of(text), do="now")
        assert "Only an administrator may decide." in user.get("/").text
        browser.post("/update", csrf=browser.csrf(), release="00" * 32, do="now")
        assert "This release is not offered any more." in browser.get("/").text
        browser.post("/update", csrf=browser.csrf(), release=release_of(text), do="now")
        assert "The device installs it now and restarts." in browser.get("/").text
        device.wait_for("sekisho: confirmed", 60)
        device.text = ""
        again = device.browser()
        assert again.login().status == 303
        state = again.get("/").text
        assert "Release 2: confirmed" in state
        assert "is available" not in state
    assert {"DECIDED", "STAGED", "INSTALLED"} <= set(log(device.world))


@pytest.mark.requirement("UPE06")
def test_a_user_refuses_or_puts_off_what_users_may_start(tmp_path: Path, server: StaticServer) -> None:
    with offered(tmp_path, server, update_start="user", poll=3600) as device:
        browser = device.browser().set_up()
        device.wait_for("sekisho: APPROVAL")
        release = release_of(browser.get("/").text)
        browser.post("/update", csrf=browser.csrf(), release=release, do="later", days="3")
        assert "only the time that the device is on counts" in browser.get("/").text
        device.wait_for("sekisho: WINDOW")
        text = browser.get("/").text
        assert "Decided: later (72 h left)" in text
        device.stop()
        device.start("sekisho: WINDOW")  # it outlives the power, and loses an hour by it
        browser = device.browser()
        browser.login()
        assert "Decided: later (71 h left)" in browser.get("/").text
        browser.post("/update", csrf=browser.csrf(), release=release, do="refuse")
        device.wait_for("sekisho: DECLINED")
        assert "Decided: no" in browser.get("/").text
        assert "staged" not in device.text


@pytest.mark.requirement("UPE08")
def test_an_update_is_put_off_where_the_time_is_known(tmp_path: Path, server: StaticServer) -> None:
    device = offered(tmp_path, server, update_start="user")
    device.modules = {"application": KNOWS_THE_TIME}
    device.personalise()
    with device:
        browser = device.browser().set_up()
        device.wait_for("sekisho: APPROVAL")
        release = release_of(browser.get("/").text)
        browser.post("/update", csrf=browser.csrf(), release=release, do="later", days="7")
        device.wait_for("sekisho: WINDOW")
        assert re.search(r"Decided: later \(until 20\d\d-\d\d-\d\d \d\d:\d\d\)", browser.get("/").text)


@pytest.mark.requirement("UPD11", "UPE04")
def test_orders_outrank_the_console(tmp_path: Path, server: StaticServer) -> None:
    with offered(tmp_path, server, update_start="administrator") as device:
        browser, operator = device.browser().set_up(), Operator(device)
        device.wait_for("sekisho: APPROVAL")
        digest = bytes.fromhex(release_of(browser.get("/").text))
        assert browser.upload(operator.order("refuse", digest)).status == 303
        assert "The order was obeyed." in browser.get("/files").text
        browser.post("/update", csrf=browser.csrf(), release=digest.hex(), do="now")
        text = browser.get("/").text
        assert "An operator has decided on this update." in text
        assert "Install now" not in text
        browser.upload(operator.order("settings", {"held": ["poll"], "poll": 1200}))
        assert "Only orders may change this." in browser.get("/settings").text
        browser.post("/settings", csrf=browser.csrf(), poll="60")
        browser.post("/restore", csrf=browser.csrf())
        assert 'value="1200" id="poll"' in browser.get("/settings").text
        assert "staged" not in device.text


@pytest.mark.requirement("STS05", "STS11")
def test_orders_that_are_not_the_operators_are_refused_by_name(tmp_path: Path) -> None:
    with Device(tmp_path, modules={"application": TELLS}) as device:
        browser, operator = device.browser().set_up(), Operator(device)
        good = operator.order("settings", {"poll": 900})
        forged = bytes([*good[:-1], good[-1] ^ 1])
        for bad, why in ((forged, "SIGNATURE"), (good[:40], "Refused:"), (b"\xd2" * 3000, "LIMIT")):
            browser.upload(bad)
            assert why in browser.get("/files").text
        browser.upload(b"")
        assert "the file is empty or broke off" in browser.get("/files").text
        browser.upload(b"just some text")
        assert "Refused: NOTHING" in browser.get("/files").text
        browser.upload(good)
        assert 'value="900" id="poll"' in browser.get("/settings").text
        browser.upload(operator.order("settings", {"interfaces": []}))
        device.stop()
        device.start("sekisho: NETWORK")
        assert "console on port" not in device.text  # closed by order, for good


@pytest.mark.requirement("UPE11", "HLC04")
def test_a_release_comes_in_without_any_network(tmp_path: Path) -> None:
    with Device(tmp_path, wifi=[]) as device:
        envelope = device.product.release(2, NEW)
        browser = device.browser().set_up()
        browser.upload(envelope)
        text = browser.get("/files").text
        assert "Still to be brought:" in text
        assert f"fw: {len(NEW)} bytes" in text
        browser.upload(NEW[:50_000])  # it breaks off
        assert "the file is empty or broke off" in browser.get("/files").text
        browser.upload(NEW)
        assert "Everything has come." in browser.get("/files").text
        device.wait_for("release 2, on trial", 60)
        device.wait_for("sekisho: confirmed", 60)


def test_a_payload_that_is_not_the_releases_is_dropped(tmp_path: Path) -> None:
    with Device(tmp_path, wifi=[]) as device:
        browser = device.browser().set_up()
        browser.upload(device.product.release(2, NEW))
        browser.upload(NEW[:70_000] + bytes(len(NEW) - 70_000))
        time.sleep(1.5)
        assert "Refused: IMAGE_DIGEST" in browser.get("/files").text
        browser.upload(device.product.release(2, NEW)[:-3] + b"abc")
        assert "Refused:" in browser.get("/files").text
        assert "staged" not in device.text


@pytest.mark.requirement("STS08", "HLC06", "HLC07")
@pytest.mark.parametrize("action", ["wipe", "transfer", "decommission"])
def test_an_order_that_ends_a_device_may_be_carried_to_it_by_hand(tmp_path: Path, action: str) -> None:
    with Device(tmp_path, modules={"application": TELLS}) as device:
        browser, operator = device.browser().set_up(), Operator(device)
        secret = device.world.flash_path.read_bytes()
        assert b"ABCD-EFGH" in secret
        order = operator.order(action)
        device.text = ""
        browser.upload(order)
        device.wait_for("sekisho: wiped", 60)
        device.wait_for("sekisho: decommissioned" if action == "decommission" else "fw slot 0", 60)
        time.sleep(1)
        with pytest.raises(ConnectionRefusedError):
            browser.get("/")
    assert b"ABCD-EFGH" not in device.world.flash_path.read_bytes()


# -- backup of the settings ----------------------------------------------------------------------------------


@pytest.mark.requirement("STS10")
def test_an_administrator_takes_a_backup_and_puts_it_back(tmp_path: Path) -> None:
    words = "a long passphrase"
    with Device(tmp_path, wifi=[["sekisho", "sekisho-lab"]], modules={"application": TELLS}) as device:
        browser, operator = device.browser().set_up(), Operator(device)
        browser.post("/settings", csrf=browser.csrf(), poll="900", utc_offset="540")
        taken = browser.post("/backup", csrf=browser.csrf(), passphrase=words, again=words)
        assert (taken.status, taken.headers["content-type"]) == (200, "application/octet-stream")
        assert taken.headers["content-disposition"] == 'attachment; filename="settings.backup"'
        assert b"sekisho-lab" not in taken.body
        opened = settings.open_backup(taken.body, words)
        assert (opened["poll"], opened["wifi"]) == (900, [["sekisho", "sekisho-lab"]])
        browser.post("/settings", csrf=browser.csrf(), poll="1800", utc_offset="0")
        for key, content, why in (
            ("another passphrase", taken.body, "wrong passphrase, or the file is damaged"),
            (words, taken.body[:-1] + b"x", "wrong passphrase, or the file is damaged"),
            (words, b"", "wrong passphrase, or the file is damaged"),
            (words, bytes(9000), "the file is empty or broke off"),
        ):
            assert browser.upload(content, path="/putback", passphrase=key).status == 303
            assert why in browser.get("/settings").text
        browser.upload(operator.order("settings", {"held": ["utc_offset"]}))
        assert browser.upload(taken.body, path="/putback", passphrase=words).status == 303
        text = browser.get("/settings").text
        assert "Saved." in text
        assert 'value="900" id="poll"' in text
        assert 'value="0" id="utc_offset"' in text  # the operator holds it
    assert log(device.world).count("BACKUP") == 5  # taken, three that did not open, put back


@pytest.mark.requirement("STS10", "STS04")
def test_backups_are_the_administrators_and_need_the_token_of_the_form(device: Device, admin: Browser) -> None:
    new = "a user's password"
    admin.post("/accounts", csrf=admin.csrf(), new=new, again=new)
    user = device.browser()
    user.login(new, "user")
    words = "a long passphrase"
    assert user.post("/backup", csrf=user.csrf(), passphrase=words, again=words).status == 403
    assert user.upload(b"x", path="/putback", passphrase=words).status == 403
    assert "/backup" not in user.get("/settings").text
    assert admin.post("/backup", csrf=user.csrf(), passphrase=words, again=words).status == 403
    assert admin.upload(b"x", csrf=user.csrf(), path="/putback", passphrase=words).status == 403
    assert admin.post("/backup", csrf=admin.csrf(), passphrase=words, again=words + "x").status == 303
    assert "the two are not the same" in admin.get("/settings").text
    assert admin.post("/backup", csrf=admin.csrf(), passphrase="short", again="short").status == 303
    assert "at least 12 characters" in admin.get("/settings").text
    assert device.browser().upload(b"x" * 7000, csrf="0" * 32, path="/putback", passphrase=words).status == 413
    assert admin.get("/backup").headers["location"] == "/settings"


# -- set-up --------------------------------------------------------------------------------------------------


@pytest.mark.requirement("HLC04", "HLC05")
def test_the_first_set_up_goes_through_the_access_point(tmp_path: Path, server: StaticServer) -> None:
    product_network = {"wifi": [], "server": server.url}
    with Device(tmp_path, interfaces=("console", "access-point"), **product_network) as device:
        device.wait_for("sekisho: access point sekisho-")
        browser = device.browser().set_up()
        text = browser.get("/wifi").text
        assert 'value="sekisho"' in text
        browser.post("/wifi", csrf=browser.csrf(), ssid="sekisho", key="wrong-password")
        assert "is being tried" in browser.get("/settings").text
        browser.post("/wifi", csrf=browser.csrf(), ssid="sekisho", key="sekisho-lab")
        device.wait_for("HTTP 404", 60)  # the server was reached
        end = time.monotonic() + 30
        while "sekisho, 192.168.4.2" not in browser.get("/").text:
            assert time.monotonic() < end


ACCESS_POINT = """
import asyncio, network
kept = network.WLAN.config
def config(self, *what, **how):
    if how:
        print("access point:", sorted(how.items()))
        {refuses}
    return {says}kept(self, *what, **how)
network.WLAN.config = config
async def main():
    while True:
        await asyncio.sleep(0.5)
        print("on air:", network.WLAN(network.AP_IF).active())
"""


@pytest.mark.requirement("STS12", "HLC04")
def test_the_access_point_is_wpa2_under_the_secret_of_this_devices_label(tmp_path: Path) -> None:
    watches = ACCESS_POINT.format(refuses="pass", says="")
    with Device(tmp_path, interfaces=("console", "access-point"), modules={"application": watches}, wifi=[]) as device:
        device.wait_for("sekisho: access point sekisho-")
        assert f"('key', '{SECRET}')" in device.text
        assert "('security', 3)" in device.text  # WPA2
        device.wait_for("on air: True")


@pytest.mark.requirement("STS12")
@pytest.mark.parametrize(
    ("refuses", "says"), [("raise OSError('no')", ""), ("pass", "0 if what == ('security',) else ")]
)
def test_an_access_point_that_would_be_open_is_switched_off_again(tmp_path: Path, refuses: str, says: str) -> None:
    """The driver refuses the key, or says afterwards that the network is an open one."""
    watches = ACCESS_POINT.format(refuses=refuses, says=says)
    with Device(tmp_path, interfaces=("console", "access-point"), modules={"application": watches}, wifi=[]) as device:
        device.wait_for("access point: [")
        device.text = ""
        device.wait_for("on air: False")
        assert "on air: True" not in device.text
        assert "sekisho: access point" not in device.text


def test_no_access_point_opens_where_the_product_does_not_want_one(tmp_path: Path) -> None:
    with Device(tmp_path, wifi=[]) as device:
        time.sleep(2.5)
        assert "access point" not in device.text


# -- memory --------------------------------------------------------------------------------------------------

MEMORY = """
import asyncio, gc
async def main():
    from sekisho import console
    gc.collect()
    print("before", gc.mem_alloc(), gc.mem_free())
    least = gc.mem_free()
    while True:
        await asyncio.sleep(0.05)
        least = min(least, gc.mem_free())
        gc.collect()
        print("after", gc.mem_alloc(), least)
"""


def test_the_console_keeps_to_its_memory(tmp_path: Path) -> None:
    """Every page, an upload and hostile requests in a heap of 100 KB of a 64-bit MicroPython, the agent running."""
    with Device(tmp_path, modules={"application": MEMORY}, wifi=[]) as device:
        device.wait_for("after")
        found = re.search(r"before (\d+) (\d+)", device.text)
        assert found
        before = int(found[1])
        browser = device.browser().set_up()
        for path in PAGES:
            assert browser.get(path).status == 200
        browser.upload(bytes(30_000))
        device.text = ""
        device.wait_for("after")
        time.sleep(0.2)
        last = re.findall(r"after (\d+) (\d+)", device.text)[-1]
        print("console takes", int(last[0]) - before, "bytes")
        assert int(last[0]) - before < CONSOLE_HEAP
