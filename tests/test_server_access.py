"""Who may do what with the embedded server, how much of it, and what a hostile client gets."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from helpers.element import P256
from helpers.needs import lacking
from sekisho_tools.errors import ToolError
from sekisho_tools.hawkbit import Api
from sekisho_tools.server import operators
from sekisho_tools.server.devices import signed_text
from sekisho_tools.server.options import Limits, Login
from server_fixtures import FREE, PASSWORD, Site, ask, basic, running


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("server"), login=Login(attempts=10**6)) as found:
        yield found


# -- operators ----------------------------------------------------------------------------------------------------

PATHS = [
    ("GET", "/targets"),
    ("POST", "/targets"),
    ("GET", "/actions"),
    ("GET", "/softwaremodules"),
    ("POST", "/softwaremodules/1/artifacts"),
    ("GET", "/distributionsets"),
    ("GET", "/rollouts"),
    ("POST", "/rollouts/1/start"),
    ("GET", "/system/configs"),
    ("GET", "/sekisho/enrolments"),
    ("GET", "/nothing/here"),
]


@pytest.mark.requirement("UPD03", "STS14", "STS15")
@pytest.mark.parametrize(("method", "path"), PATHS)
def test_nothing_is_managed_without_logging_in(site, method, path):
    for headers in ({}, basic("admin", "wrong password!"), basic("nobody"), {"Authorization": "Basic !!!"}):
        answer = ask(f"{site.url}/rest/v1{path}", method, {} if method == "POST" else None, headers)
        assert (answer.status, answer.body) == (401, b"")
        assert answer.headers["www-authenticate"].startswith("Basic ")


@pytest.mark.requirement("UPD03")
def test_roles_may_what_they_are_for(site):
    def status(who: str, method: str, path: str, body: object = None) -> int:
        return ask(f"{site.url}/rest/v1{path}", method, body, basic(who)).status

    assert status("view", "GET", "/targets") == 200
    assert status("view", "POST", "/targets", [{"controllerId": "made-by-viewer"}]) == 403
    assert status("view", "POST", "/rollouts/1/start") == 403
    assert status("op", "POST", "/targets", [{"controllerId": "made-by-operator"}]) == 201
    assert status("op", "DELETE", "/targets/made-by-operator") == 403
    assert status("op", "PUT", "/system/configs/pollingTime", {"value": "00:01:00"}) == 403
    assert status("admin", "DELETE", "/targets/made-by-operator") == 200
    assert status("view", "GET", "/targets/made-by-viewer") == 404


def test_there_is_no_account_until_the_command_line_makes_one(tmp_path):
    from sekisho_tools.server.run import EmbeddedServer

    with EmbeddedServer(tmp_path) as server:
        for name, password in (("admin", "admin"), ("admin", ""), ("", ""), ("root", "root")):
            assert ask(f"{server.url}/rest/v1/targets", headers=basic(name, password)).status == 401


@pytest.mark.requirement("STS13")
def test_wrong_passwords_lock_the_account_for_longer_and_longer(tmp_path):
    with running(tmp_path, login=Login(attempts=3, seconds=10, longest=60)) as site:
        url = f"{site.url}/rest/v1/targets"
        assert [ask(url, headers=basic("op", "wrong")).status for _ in range(3)] == [401] * 3
        locked = ask(url, headers=basic("op"))
        assert (locked.status, locked.headers["retry-after"]) == (429, "11")
        assert ask(url, headers=basic("view")).status == 200  # others are not locked out with it
        site.clock.pass_seconds(10.1)
        assert ask(url, headers=basic("op", "wrong again")).status == 401
        assert ask(url, headers=basic("op")).headers["retry-after"] == "21"
        site.clock.pass_seconds(21)
        assert ask(url, headers=basic("op")).status == 200
        assert [ask(url, headers=basic("op", "wrong")).status for _ in range(2)] == [401] * 2
        assert ask(url, headers=basic("op")).status == 200


@pytest.mark.requirement("STS13")
def test_a_lock_survives_a_restart(tmp_path):
    with running(tmp_path, login=Login(attempts=1, seconds=1000)) as site:
        ask(f"{site.url}/rest/v1/targets", headers=basic("op", "wrong"))
    from sekisho_tools.server.run import EmbeddedServer

    with EmbeddedServer(tmp_path, clock=site.clock) as server:
        assert ask(f"{server.url}/rest/v1/targets", headers=basic("op")).status == 429


def test_a_changed_password_ends_what_the_old_one_opened(site):
    operators.create(site.server.store, "leaver", PASSWORD, "viewer")
    url = f"{site.url}/rest/v1/targets"
    assert ask(url, headers=basic("leaver")).status == 200
    operators.change(site.server.store, "leaver", password="another horse battery")
    assert ask(url, headers=basic("leaver")).status == 401
    operators.remove(site.server.store, "leaver")
    assert ask(url, headers=basic("leaver", "another horse battery")).status == 401


def test_what_operators_do_is_written_down(site):
    from sekisho_tools.server.tables import audit
    from sqlalchemy import select

    Api(site.url, "op", PASSWORD).call("POST", "/targets", [{"controllerId": "written-down"}])
    row = site.server.store.look(lambda conn: conn.execute(select(audit).order_by(audit.c.id.desc())).first())
    assert (row.who, row.what, row.detail) == ("op", "targets created", {"controllerIds": ["written-down"]})


def test_secrets_are_not_shown_again_and_not_kept_in_clear(site, tmp_path):
    device = site.device("secretive")
    token = device.headers["Authorization"].split()[1]
    site.api.call("PUT", "/system/configs/authentication.gatewaytoken.key", {"value": "s3cret-gateway-token"})
    assert "securityToken" not in device.state()
    assert site.api.call("GET", "/system/configs/authentication.gatewaytoken.key")["value"] == ""
    files = [path.read_bytes() for path in site.server.store.path.iterdir() if path.is_file()]
    assert not any(token.encode() in content for content in files)


# -- devices ------------------------------------------------------------------------------------------------------


def sign_in(key: Ed25519PrivateKey, home: str) -> tuple[str, dict[str, str]]:
    """Ask for a challenge; returns it and the header of a poll that answers it."""
    answer = ask(home)
    assert answer.status == 401
    challenge = answer.headers["www-authenticate"].split('"')[1]
    return challenge, signed(key, home, "", challenge, 1, "GET", b"")


def signed(key: Ed25519PrivateKey, home: str, path: str, challenge: str, number: int, method: str, body: bytes) -> dict:
    full = "/" + (home + path).split("/", 3)[3]
    signature = base64.urlsafe_b64encode(key.sign(signed_text(method, full, body, challenge, number))).rstrip(b"=")
    return {"Authorization": f'DeviceKey c="{challenge}", n="{number}", s="{signature.decode()}"'}


@pytest.mark.requirement("UPD08", "STS15")
@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_a_device_signs_its_requests_instead_of_sending_a_secret(site, kind):
    key = Ed25519PrivateKey.generate() if kind == "ed25519" else P256()
    public = (key.public_key().public_bytes_raw() if kind == "ed25519" else key.public()).hex()
    made = site.api.call("POST", "/targets", [{"controllerId": f"signer-{kind}", "publicKey": public}])
    assert "securityToken" not in made[0]
    home = f"{site.url}/DEFAULT/controller/v1/signer-{kind}"
    challenge, headers = sign_in(key, home)
    assert ask(home, headers=headers).status == 200
    assert ask(home, headers=headers).status == 401  # a replay
    data = json.dumps({"data": {"a": "b"}}).encode()
    more = signed(key, home, "/configData", challenge, 2, "PUT", data) | {"Content-Type": "application/json"}
    assert ask(f"{home}/configData", "PUT", data.replace(b"b", b"c"), more).status == 401  # another body
    assert ask(f"{home}/confirmationBase", headers=more).status == 401  # another path
    assert ask(f"{home}/configData", "PUT", data, more).status == 200
    other = Ed25519PrivateKey.generate() if kind == "ed25519" else P256()
    assert ask(home, headers=signed(other, home, "", challenge, 3, "GET", b"")).status == 401
    assert ask(home, headers=signed(key, home, "", "A" * 43, 3, "GET", b"")).status == 401
    assert ask(home, headers=signed(key, home, "", challenge, 3, "GET", b"")).status == 200
    site.clock.pass_seconds(601)
    assert ask(home, headers=signed(key, home, "", challenge, 4, "GET", b"")).status == 401


def test_asking_for_a_challenge_is_no_guess(tmp_path):
    """Devices behind one address that sign their requests begin each look at the server with a 401."""
    with running(tmp_path, limits=Limits(failures=0.1, burst=20)) as site:
        key = Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes_raw().hex()
        site.api.call("POST", "/targets", [{"controllerId": "signer", "publicKey": public}])
        home = f"{site.url}/DEFAULT/controller/v1/signer"
        assert [ask(home, headers=sign_in(key, home)[1]).status for _ in range(30)] == [200] * 30
        guess = {"Authorization": "TargetToken guess"}
        assert [ask(home, headers=guess).status for _ in range(30)][-1] == 429


@pytest.mark.requirement("UPD08")
def test_a_one_time_token_enrols_one_device_once(site):
    token = site.api.call("POST", "/sekisho/enrolments", {"note": "box 7"})["token"]
    home = f"{site.url}/DEFAULT/controller/v1"
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: ask(f"{home}/new-{n}/enrol", "POST", {"token": token}), range(8)))
    assert sorted(answer.status for answer in answers) == [201] + [401] * 7
    made = next(answer.json for answer in answers if answer.status == 201)
    headers = {"Authorization": f"TargetToken {made['securityToken']}"}
    assert ask(f"{home}/{made['controllerId']}", headers=headers).status == 200
    listed = site.api.call("GET", "/sekisho/enrolments")["content"][0]
    assert (listed["usedBy"], "token" in listed) == (made["controllerId"], False)


def test_a_token_for_any_device_cannot_take_over_a_known_one(site):
    device = site.device("known")
    anyone = site.api.call("POST", "/sekisho/enrolments", {})["token"]
    assert device.ask("/enrol", "POST", {"token": anyone}).status == 401
    assert device.ask("").status == 200
    meant = site.api.call("POST", "/sekisho/enrolments", {"controllerId": "known", "seconds": 60})["token"]
    site.clock.pass_seconds(61)
    assert device.ask("/enrol", "POST", {"token": meant}).status == 401  # too late
    meant = site.api.call("POST", "/sekisho/enrolments", {"controllerId": "known"})["token"]
    key = Ed25519PrivateKey.generate()
    body = {"token": meant, "publicKey": key.public_key().public_bytes_raw().hex()}
    assert device.ask("/enrol", "POST", body).status == 201
    assert device.ask("").status == 401  # its old token has gone
    assert ask(device.home, headers=sign_in(key, device.home)[1]).status == 200


@pytest.mark.parametrize("text", ["00" * 32, "01" + "00" * 31, "ec" + "ff" * 30 + "7f", "00" * 31 + "80"])
def test_keys_that_belong_to_nobody_are_refused(site, text):
    token = site.api.call("POST", "/sekisho/enrolments", {})["token"]
    url = f"{site.url}/DEFAULT/controller/v1/weak/enrol"
    assert ask(url, "POST", {"token": token, "publicKey": text}).status == 400


def test_modes_of_authentication_can_be_switched_off(site):
    device = site.device()
    site.api.call("PUT", "/system/configs/authentication.targettoken.enabled", {"value": False})
    assert device.ask("").status == 401
    site.api.call("DELETE", "/system/configs/authentication.targettoken.enabled")
    assert device.ask("").status == 200


def test_a_deleted_device_is_out_at_once(site):
    device = site.device()
    device.poll()
    site.api.call("DELETE", f"/targets/{device.name}")
    assert device.ask("").status == 401


@pytest.mark.requirement("UPD09")
def test_reports_are_kept_with_a_verdict_and_once(site):
    device = site.device()
    for body in (b"\xd2\x84", b"not cbor", bytes(5000)):
        answer = device.ask("/reports", "POST", body, Content_Type="application/cose")
        assert (answer.status, answer.json["verdict"]) == (201, "invalid")
    again = device.ask("/reports", "POST", b"not cbor", Content_Type="application/cose").json
    listed = site.api.call("GET", f"/targets/{device.name}/reports")
    assert (len(listed), again["id"] in [one["id"] for one in listed]) == (3, True)
    assert device.ask("/reports", "POST", b"").status == 400
    assert device.ask("/reports", "POST", bytes(40_000)).status == 413


# -- limits -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("UPD06")
def test_a_device_that_asks_too_much_is_told_to_wait(tmp_path):
    with running(tmp_path, limits=Limits(address_reads=0, address_writes=0, device=0.1, burst=50, failures=0)) as site:
        loud, quiet = site.device(), site.device()
        statuses = [loud.ask("").status for _ in range(8)]
        assert statuses == [200] * 5 + [429] * 3
        assert int(loud.ask("").headers["retry-after"]) >= 1
        assert quiet.ask("").status == 200


@pytest.mark.requirement("UPD06")
def test_an_address_that_asks_too_much_is_told_to_wait(tmp_path):
    with running(tmp_path, limits=Limits(address_reads=0.1, address_writes=0, device=0, burst=50)) as site:
        statuses = [ask(f"{site.url}/anything").status for _ in range(8)]
        assert statuses.count(429) == 3
        assert ask(f"{site.url}/healthz").status == 200


@pytest.mark.requirement("UPD06", "STS13")
def test_an_address_that_guesses_tokens_is_slowed_down(tmp_path):
    limits = Limits(address_reads=0, address_writes=0, device=0, failures=0.05)
    with running(tmp_path, limits=limits) as site:
        device = site.device()
        wrong = {"Authorization": "TargetToken guess-guess-guess-guess"}
        statuses = [ask(device.home, headers=wrong).status for _ in range(8)]
        assert statuses == [401] * 5 + [429] * 3


def raw(site: Site, data: bytes, wait: float = 5) -> bytes:
    with socket.create_connection(("127.0.0.1", site.server.port), timeout=wait) as connection:
        connection.sendall(data)
        received = b""
        try:
            while piece := connection.recv(65536):
                received += piece
        except (TimeoutError, ConnectionResetError):
            pass
    return received


@pytest.mark.requirement("UPD06")
@pytest.mark.parametrize("path", ["DEFAULT/controller/v1/{}/configData", "rest/v1/targets"])
def test_bodies_are_bounded_before_they_are_read(site, path):
    device = site.device()
    who = device.headers if "controller" in path else basic("admin")
    head = (
        f"{'PUT' if 'controller' in path else 'POST'} /{path.format(device.name)} HTTP/1.1\r\nHost: x\r\n"
        f"Content-Type: application/json\r\nAuthorization: {who['Authorization']}\r\nContent-Length: 999999999\r\n\r\n"
    )
    assert raw(site, head.encode()).startswith(b"HTTP/1.1 413")


def test_a_chunked_body_is_bounded_too(site):
    device = site.device()
    head = (
        f"PUT /DEFAULT/controller/v1/{device.name}/configData HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        f"Content-Type: application/json\r\nAuthorization: {device.headers['Authorization']}\r\n\r\n"
    )
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    assert raw(site, head.encode() + chunk * 5 + b"0\r\n\r\n").startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 60_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\nConnection: close\r\n\r\n",
        b"POST /rest/v1/targets HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    ],
)
def test_odd_requests_are_refused_and_the_server_goes_on(site, data):
    answer = raw(site, data, 3)
    assert answer == b"" or answer.split()[1].startswith(b"4")
    assert ask(f"{site.url}/healthz").status == 200


NASTY = [
    "'; DROP TABLE target; --",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "%00",
    "{{7*7}}",
    "\N{SNOWMAN}\N{RIGHT-TO-LEFT OVERRIDE}",
    "a" * 256,
    "$(reboot)",
    '"quoted"',
]


@pytest.mark.parametrize("text", NASTY)
def test_any_text_in_any_field_stays_text(site, text):
    from urllib.parse import quote

    words = text[:100]
    site.api.call("POST", "/softwaremodules", [{"name": words, "version": "1", "type": "os", "description": words}])
    found = site.api.call("GET", "/softwaremodules", q=f"name=='{words.replace(chr(39), chr(92) + chr(39))}'")
    assert [one["name"] for one in found["content"]] == [words]
    if "/" in text:
        with pytest.raises(ToolError):
            site.api.call("POST", "/targets", [{"controllerId": text}])
        return
    made = site.api.call("POST", "/targets", [{"controllerId": text, "name": words, "description": words}])[0]
    headers = {"Authorization": f"TargetToken {made['securityToken']}"}
    home = f"{site.url}/DEFAULT/controller/v1/{quote(text, safe='')}"
    body = {"data": {"name": text[:128]}}
    polled = ask(home, headers=headers)
    assert polled.status == 200
    href = polled.json["_links"]["configData"]["href"]
    assert ask(href, "PUT", body, headers).status == (200 if text.isascii() else 400)
    assert site.api.call("GET", f"/targets/{quote(text, safe='')}")["controllerId"] == text


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/%2e%2e/etc/passwd", "/static/../app.py", "/static/%2e%2e/app.py", "//etc/passwd"]
)
def test_paths_lead_nowhere_outside(site, path):
    assert ask(site.url + path).status in (303, 400, 404)


def test_two_registrations_at_once_make_one_device(site):
    def register(_: int) -> int:
        return ask(f"{site.url}/rest/v1/targets", "POST", [{"controllerId": "twin"}], basic("admin")).status

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(register, range(8))) == [201] + [409] * 7


def test_a_clock_that_jumps_hurts_nobody(site):
    device = site.device()
    number = site.assign(device, site.release())
    before = site.clock.now
    for jump in (-10 * 365 * 86400, 20 * 365 * 86400):
        site.clock.pass_seconds(jump)
        assert device.poll()["_links"]["deploymentBase"]
        assert device.feedback(number, "proceeding", "none") == 200
        site.work()
    site.clock.now = before
    assert device.feedback(number) == 200


# -- running ------------------------------------------------------------------------------------------------------


def test_health_and_metrics(site):
    site.device().poll()
    assert ask(f"{site.url}/healthz").json == {"status": "up"}
    text = ask(f"{site.url}/metrics").body.decode()
    assert 'sekisho_requests_total{area="poll",status="200"}' in text
    assert "sekisho_actions_open" in text


def test_figures_are_for_this_machine_and_for_operators_alone(tmp_path):
    """Behind a proxy every request comes from it, so nobody is known by an address."""
    with running(tmp_path, proxies=("127.0.0.1",)) as site:
        assert ask(f"{site.url}/metrics").status == 401
        assert ask(f"{site.url}/metrics", headers=basic("view", "wrong")).status == 401
        assert ask(f"{site.url}/metrics", headers=basic("view")).status == 200
        assert ask(f"{site.url}/healthz").status == 200


def test_a_server_that_cannot_write_any_more_says_so_to_who_watches_it(site, monkeypatch):
    monkeypatch.setattr(site.server.server.store, "alive", lambda: False)
    answer = ask(f"{site.url}/healthz")
    assert (answer.status, answer.json) == (503, {"status": "down"})


def test_answers_carry_headers_that_protect_browsers(site):
    headers = ask(f"{site.url}/healthz").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers


def certificate(folder: Path) -> tuple[Path, Path]:
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return cert, key


@pytest.mark.requirement("STS07", "UPD03")
def test_tls_from_files_with_nothing_older_than_1_2(tmp_path):
    from sekisho_tools.server.run import EmbeddedServer

    cert, key = certificate(tmp_path)
    with EmbeddedServer(tmp_path / "data", tls_cert=cert, tls_key=key) as server:
        operators.create(server.store, "admin", PASSWORD, "admin")
        assert server.url.startswith("https://")
        api = Api(server.url, "admin", PASSWORD, cert)
        assert api.call("GET", "/targets")["total"] == 0
        with pytest.raises(ToolError) as caught:
            Api(server.url, "admin", PASSWORD).call("GET", "/targets")
        assert caught.value.code == "TLS"
        request = Request(f"{server.url}/healthz")
        answer = urlopen(request, context=ssl.create_default_context(cafile=cert))
        assert answer.headers["strict-transport-security"]
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection(("127.0.0.1", server.port)) as plain, pytest.raises((ssl.SSLError, OSError)):
            old.wrap_socket(plain)


@pytest.mark.parametrize("change", ["missing", "half", "nonsense"])
def test_unusable_certificates_are_one_clear_sentence(tmp_path, change):
    from sekisho_tools.server.run import EmbeddedServer

    cert, key = certificate(tmp_path)
    if change == "nonsense":
        cert.write_text("no certificate")
    with pytest.raises(ToolError) as caught:
        EmbeddedServer(
            tmp_path / "data",
            tls_cert=tmp_path / "none.pem" if change == "missing" else cert,
            tls_key=None if change == "half" else key,
        )
    assert caught.value.code == "TLS"


MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/lib64/libsofthsm2.so")
SOFT_HSM = next((path for path in MODULES if Path(path).exists()), "")
PIN = "24681357"


def libp11() -> bool:
    done = subprocess.run(["openssl", "engine", "pkcs11"], capture_output=True, text=True, check=False)
    return "pkcs11 engine" in done.stdout


@pytest.fixture
def token(tmp_path, monkeypatch):
    """A certificate whose key is in a token of SoftHSM2 and nowhere else; the key's URI."""
    if not (SOFT_HSM and shutil.which("softhsm2-util") and libp11()):
        lacking("SoftHSM2 and libp11's OpenSSL engine (apt-get install softhsm2 libengine-pkcs11-openssl)")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path / 'tokens'}\nlog.level = ERROR\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm2.conf"))
    cert, key = certificate(tmp_path)
    pkcs8 = subprocess.run(["openssl", "pkcs8", "-topk8", "-nocrypt", "-in", key], check=True, capture_output=True)
    key.write_bytes(pkcs8.stdout)
    tool = ["softhsm2-util", "--token", "fleet", "--pin", PIN]
    for more in (
        ["--init-token", "--free", "--label", "fleet", "--so-pin", "12345678"],
        ["--import", str(key), "--label", "tls key", "--id", "01"],
    ):
        subprocess.run([*tool, *more], check=True, capture_output=True)
    key.unlink()
    (tmp_path / "pin").write_text(PIN + "\n")
    return cert, f"pkcs11:token=fleet;object=tls%20key?module-path={SOFT_HSM}"


def serve(folder: Path, *options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sekisho_tools", "serve", "--data", str(folder / "data"), "--port", "0"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    line = [*command, *(str(one) for one in options)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.requirement("UPD07", "UPD03")
def test_tls_with_a_key_that_never_leaves_its_token(tmp_path, token):
    cert, uri = token
    process = serve(tmp_path, "--tls-cert", cert, "--tls-key", uri, "--tls-pin-file", tmp_path / "pin")
    try:
        assert process.stdout
        url = process.stdout.readline().split(" at ")[1].split("/ ")[0]
        trusting = ssl.create_default_context(cafile=cert)
        for _ in range(20):
            with urlopen(f"{url}/healthz", context=trusting, timeout=20) as answer:
                assert json.load(answer) == {"status": "up"}
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            urlopen(f"{url}/healthz", context=ssl.create_default_context(), timeout=20)
    finally:
        process.terminate()
        out, err = process.communicate(timeout=30)
    assert "Traceback" not in err
    assert PIN not in out + err


@pytest.mark.parametrize("change", ["pin", "object", "token", "module", "certificate", "no pin"])
def test_a_token_that_cannot_be_used_is_one_clear_sentence(tmp_path, token, change):
    cert, uri = token
    if change == "certificate":
        cert, _ = certificate(tmp_path)
    if change == "pin":
        (tmp_path / "pin").write_text("11111111")
    old, new = {
        "object": ("tls%20key", "other"),
        "token": ("=fleet", "=none"),
        "module": (SOFT_HSM, "/none.so"),
    }.get(change, ("", ""))
    options = ["--tls-cert", cert, "--tls-key", uri.replace(old, new) if old else uri]
    options += [] if change == "no pin" else ["--tls-pin-file", tmp_path / "pin"]
    out, err = serve(tmp_path, *options).communicate(timeout=60)
    lines = err.strip().splitlines()
    assert lines[-1].startswith("error[TLS]: "), err
    assert out == ""
    assert "Traceback" not in err


# -- crashes ------------------------------------------------------------------------------------------------------


def start(data: Path, port: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sekisho_tools", "serve", "--data", str(data), "--port", str(port)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    for _ in range(600):
        try:
            if ask(f"http://127.0.0.1:{port}/healthz").status == 200:
                return process
        except OSError:
            time.sleep(0.05)
    process.kill()
    raise AssertionError(process.communicate())


@pytest.fixture
def fleet(tmp_path):
    """200 devices with an update each, the port to serve them at, and their tokens."""
    data = tmp_path / "data"
    (tmp_path / "password").write_text(PASSWORD)
    with running(data, limits=FREE) as site:
        release = site.release()
        names = [f"d{n}" for n in range(200)]
        made = site.api.call("POST", "/targets", [{"controllerId": name} for name in names])
        tokens = {one["controllerId"]: one["securityToken"] for one in made}
        done = site.api.call("POST", f"/distributionsets/{release}/assignedTargets", [{"id": name} for name in names])
        actions = dict(zip(names, (one["id"] for one in done["assignedActions"]), strict=True))
        port = site.server.port
    (data / "server.toml").write_text("[limits]\naddress_reads=0\naddress_writes=0\ndevice=0\nfailures=0\n")
    return data, port, tokens, actions


@pytest.mark.requirement("UPD09")
def test_kill_9_in_the_middle_of_200_updates_loses_nothing_acknowledged(fleet):
    data, port, tokens, actions = fleet
    process = start(data, port)
    acknowledged: list[str] = []

    def report(name: str) -> None:
        url = f"http://127.0.0.1:{port}/DEFAULT/controller/v1/{name}/deploymentBase/{actions[name]}/feedback"
        finished = "success" if int(name[1:]) % 2 else "failure"
        body = {"status": {"execution": "closed", "result": {"finished": finished}}}
        try:
            if ask(url, "POST", body, {"Authorization": f"TargetToken {tokens[name]}"}).status == 200:
                acknowledged.append(name)
                if len(acknowledged) == 80:
                    process.send_signal(signal.SIGKILL)
        except OSError:
            pass

    try:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(report, tokens))
        process.wait(20)
        assert 80 <= len(acknowledged) < 200
        process = start(data, port)
        api = Api(f"http://127.0.0.1:{port}", "admin", PASSWORD)
        states = {action["_links"]["target"]["name"]: action["status"] for action in api.everything("/actions")}
        assert len(states) == 200
        for name in acknowledged:
            assert states[name] == ("finished" if int(name[1:]) % 2 else "error")
        for name in tokens:  # those that were not answered repeat themselves; nothing is counted twice
            report(name)
        states = [action["status"] for action in api.everything("/actions")]
        assert (states.count("finished"), states.count("error")) == (100, 100)
    finally:
        process.kill()
        process.communicate()


def test_a_stop_finishes_what_was_accepted(fleet):
    data, port, tokens, actions = fleet
    process = start(data, port)
    statuses: list[int] = []

    def report(name: str) -> None:
        url = f"http://127.0.0.1:{port}/DEFAULT/controller/v1/{name}/deploymentBase/{actions[name]}/feedback"
        body = {"status": {"execution": "closed", "result": {"finished": "success"}}}
        try:
            statuses.append(ask(url, "POST", body, {"Authorization": f"TargetToken {tokens[name]}"}).status)
        except OSError:
            return
        if len(statuses) == 50:
            process.terminate()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(report, tokens))
    out, err = process.communicate(timeout=30)
    assert process.returncode in (0, -signal.SIGTERM)
    assert "Traceback" not in err
    lines = [json.loads(line) for line in err.splitlines()]
    assert any(line["event"] == "request" and line["status"] == 200 for line in lines)
    assert not any(token in err + out for token in tokens.values())
    process = start(data, port)
    try:
        api = Api(f"http://127.0.0.1:{port}", "admin", PASSWORD)
        finished = sum(action["status"] == "finished" for action in api.everything("/actions"))
        assert finished >= statuses.count(200) >= 50
    finally:
        process.kill()
        process.communicate()
