"""The device's HTTP client over TLS: the one pinned CA, the name in the certificate, its dates. On MicroPython."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import bad_server
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from helpers import micropython

PAYLOAD = bytes(range(256)) * 40
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


class Authority:
    """A certificate authority and the certificates it makes."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self.name, self.key, NOW - DAY, NOW + DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.certificate = builder.sign(self.key, hashes.SHA256())

    def _builder(self, subject, key, begin, end) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
        return builder.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(end)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def server(self, folder: Path, host: str = "localhost", begin=NOW - DAY, end=NOW + DAY) -> ssl.SSLContext:
        """A context with a fresh certificate for *host*."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        names = x509.SubjectAlternativeName([x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("127.0.0.9"))])
        certificate = self._builder(subject, key, begin, end).add_extension(names, critical=False)
        chain, private = folder / f"{host}.pem", folder / f"{host}.key"
        made = certificate.sign(self.key, hashes.SHA256())
        chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.PKCS8
        private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, private)
        return context


class SecureServer(bad_server.BadServer):
    """A bad server behind TLS."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(PAYLOAD)
        self.context = context
        self.then: ssl.SSLContext | None = None  # of the second and further connections, where it is another
        self.url = f"https://localhost:{self.port}"

    def _accept(self) -> None:
        while not self.stop.is_set():
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._wrap, args=(sock,), daemon=True).start()

    def _wrap(self, sock) -> None:
        try:
            context, self.context = self.context, self.then or self.context
            secure = context.wrap_socket(sock, server_side=True)
        except OSError:
            sock.close()
            return
        self._serve(secure)


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    return Authority("Sekisho test CA")


def fetch(url: str, ca: bytes) -> str:
    """What a device makes of *url*; the whole body is read in pieces."""
    return micropython.run(
        "from device import http_cases; import asyncio; http_cases.be_patient('')\n"
        f"print(asyncio.run(http_cases.outcome({url!r}, ca={ca!r})))",
        heap="140k",
    ).strip()


@pytest.mark.requirement("STS07", "UPD03")
def test_a_server_with_a_certificate_of_the_pinned_ca_is_used(authority: Authority, tmp_path: Path) -> None:
    with SecureServer(authority.server(tmp_path)) as server:
        assert fetch(server.url + "/good", authority.der).startswith("200 0+10240/10240 ")


@pytest.mark.requirement("STS07", "UPD03")
def test_the_certificate_of_another_ca_is_refused(authority: Authority, tmp_path: Path) -> None:
    with SecureServer(Authority("Mallory").server(tmp_path)) as server:
        assert fetch(server.url + "/good", authority.der).startswith("SERVER 0 the server's certificate is refused")
        assert server.requests == []


@pytest.mark.requirement("STS07", "UPD03")
def test_a_certificate_for_another_name_is_refused(authority: Authority, tmp_path: Path) -> None:
    with SecureServer(authority.server(tmp_path, "elsewhere.example")) as server:
        assert fetch(server.url + "/good", authority.der).startswith("SERVER 0 the server's certificate is refused")
        assert server.requests == []


@pytest.mark.parametrize(("begin", "end"), [(NOW - 2 * DAY, NOW - DAY), (NOW + DAY, NOW + 2 * DAY)])
def test_a_certificate_outside_its_dates_is_refused(authority: Authority, tmp_path: Path, begin, end) -> None:
    with SecureServer(authority.server(tmp_path, begin=begin, end=end)) as server:
        assert fetch(server.url + "/good", authority.der).startswith("SERVER 0 the server's certificate is refused")


def early(url: str, ca: bytes, moves: str) -> list[str]:
    """What `fetch` says where the clock may be moved (*moves*, a Python expression), after what it was moved to."""
    return micropython.run(
        "from device import http_cases; import asyncio; from sekisho import http; http_cases.be_patient('')\n"
        f"def early(born):\n    print(born)\n    return {moves}\n"
        "http.early = early\n"
        f"print(asyncio.run(http_cases.outcome({url!r}, ca={ca!r})))",
        heap="160k",
    ).split("\n")


def test_a_clock_before_a_certificate_of_the_pinned_ca_is_moved_on_to_it(authority: Authority, tmp_path: Path) -> None:
    young = authority.server(tmp_path, begin=NOW + DAY, end=NOW + 2 * DAY)
    begin = str(int((NOW + DAY).timestamp()))
    with SecureServer(young) as server:
        assert early(server.url + "/good", authority.der, "False")[1].startswith("SERVER 0 the server's certificate is")
        still = early(server.url + "/good", authority.der, "True")  # the machine's clock stays, so it fails again
        assert still[:2] == [begin, "0"]
        assert still[2].startswith("SERVER 0 the server's certificate is refused")
        assert server.requests == []
        server.then = authority.server(tmp_path)
        moved = early(server.url + "/good", authority.der, "True")  # ... and here time has passed
        assert moved[0] == begin
        assert moved[1].startswith("200 0+10240/10240 ")


def test_the_clock_stays_where_a_stranger_shows_a_certificate_of_the_future(
    authority: Authority, tmp_path: Path
) -> None:
    with SecureServer(Authority("Mallory").server(tmp_path, begin=NOW + DAY, end=NOW + 2 * DAY)) as server:
        said = early(server.url + "/good", authority.der, "born > 0")
        assert said[:2] == [str(int((NOW + DAY).timestamp())), "0"]
        assert said[2].startswith("SERVER 0 the server's certificate is refused")


@pytest.mark.requirement("STS07")
def test_tls_before_1_2_is_refused(authority: Authority, tmp_path: Path) -> None:
    context = authority.server(tmp_path)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with SecureServer(context) as server:
        assert fetch(server.url + "/good", authority.der).split()[0] == "NETWORK"
        assert server.requests == []
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the server does speak it
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = ssl.TLSVersion.TLSv1
        with socket.create_connection(("127.0.0.1", server.port)) as raw, old.wrap_socket(raw) as sock:
            assert sock.version() == "TLSv1.1"


def test_a_server_that_speaks_no_tls_is_an_error_not_a_hang(authority: Authority) -> None:
    with bad_server.BadServer(PAYLOAD) as server:
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        assert fetch(url + "/good", authority.der).split()[0] in ("NETWORK", "SERVER")


SYSLOG = """
import asyncio, gc
from struct import pack
from sekisho import syslog
from sekisho_boot.reasons import Refused, name
entries = [pack("<IIBBBBI16s32s", number, 1767265200, 18, 0, 1, 0, 0, b"", b"") for number in (1, 2, 3)]
try:
    print("sent", asyncio.run(syslog.send({url!r}, entries, "lamp", {ca!r})))
except Refused as refused:
    print("refused", name(refused.code))
"""


@pytest.mark.requirement("SSS05", "SSS03", "STS07")
@pytest.mark.parametrize("name", ["ours", "Mallory"])
def test_the_event_log_goes_over_tls_to_the_log_server_of_the_pinned_ca_only(
    authority: Authority, tmp_path: Path, name: str
) -> None:
    context = (authority if name == "ours" else Authority(name)).server(tmp_path)
    listener = socket.create_server(("127.0.0.1", 0))
    heard: list[bytes] = []

    def listen() -> None:
        sock, _ = listener.accept()
        try:
            with context.wrap_socket(sock, server_side=True) as secure:
                while data := secure.recv(4096):
                    heard.append(data)
        except OSError:
            sock.close()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    url = f"tls://localhost:{listener.getsockname()[1]}"
    said = micropython.run(SYSLOG.format(url=url, ca=authority.der), heap="200k").strip()
    thread.join(10)
    listener.close()
    text = b"".join(heard).decode()
    if name == "ours":
        assert said == "sent 3"
        assert [text.count(f'sequenceId="{number}"') for number in (1, 2, 3)] == [1, 1, 1]
        length, _, rest = text.partition(" ")
        assert rest[int(length) :][:1].isdigit(), "octet counting: the next length follows at once"
    else:
        assert said in ("refused SERVER", "refused NETWORK")
        assert not text
    assert micropython.run(SYSLOG.format(url=url, ca=None), heap="200k").strip() == "refused SERVER"
