"""The static server that devices fetch from, over real connections."""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sekisho_tools import serve
from sekisho_tools.errors import ToolError

BODY = bytes(range(256)) * 1000
ETAG = f'"{hashlib.sha256(BODY).hexdigest()}"'


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    root = tmp_path_factory.mktemp("world") / "site"
    (root / "payload").mkdir(parents=True)
    (root / "payload" / "abc").write_bytes(BODY)
    (root / "empty").write_bytes(b"")
    (root / ".secret").write_bytes(b"hidden")
    (root.parent / "outside").write_bytes(b"outside")
    (root / "link").symlink_to(root.parent / "outside")
    with serve.StaticServer(root) as server:
        yield root, server.port


def get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def test_serves_a_file_with_its_length_and_an_etag_of_its_content(site):
    status, headers, body = get(site[1], "/payload/abc")
    assert (status, body, headers["etag"], headers["content-length"]) == (200, BODY, ETAG, str(len(BODY)))
    assert "transfer-encoding" not in headers
    assert "content-encoding" not in headers


def test_head_has_no_body(site):
    status, headers, body = get(site[1], "/payload/abc", "HEAD")
    assert (status, body, headers["content-length"]) == (200, b"", str(len(BODY)))


def test_other_methods_are_refused(site):
    assert get(site[1], "/payload/abc", "POST")[0] == 405
    assert get(site[1], "/payload/abc", "DELETE")[0] == 405


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=100-199", 100, 200),
        ("bytes=255999-", 255999, 256000),
        ("bytes=-10", 255990, 256000),
        ("bytes=4096-99999999", 4096, 256000),
        ("bytes=-99999999", 0, 256000),
        ("bytes=0-", 0, 256000),
    ],
)
def test_serves_the_range_that_is_asked_for(site, asked, start, stop):
    status, headers, body = get(site[1], "/payload/abc", Range=asked)
    assert (status, body) == (206, BODY[start:stop])
    assert headers["content-range"] == f"bytes {start}-{stop - 1}/{len(BODY)}"
    assert headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("asked", ["bytes=256000-", "bytes=999999999-", "bytes=-0"])
def test_says_416_and_the_size_where_nothing_of_the_range_exists(site, asked):
    status, headers, _ = get(site[1], "/payload/abc", Range=asked)
    assert (status, headers["content-range"]) == (416, f"bytes */{len(BODY)}")


@pytest.mark.parametrize(
    "asked", ["bytes=5-2", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "bytes=" + "9" * 40]
)
def test_ignores_a_range_it_does_not_understand(site, asked):
    status, _, body = get(site[1], "/payload/abc", Range=asked)
    assert (status, body) == (200, BODY)


def test_if_range_with_another_etag_gives_the_whole_file(site):
    assert get(site[1], "/payload/abc", Range="bytes=5-", If_Range=ETAG)[0] == 206
    assert get(site[1], "/payload/abc", Range="bytes=5-", If_Range='"other"')[0] == 200
    assert get(site[1], "/payload/abc", Range="bytes=5-", If_Range="W/" + ETAG)[0] == 200


def test_an_unchanged_file_is_not_sent_again(site):
    status, headers, body = get(site[1], "/payload/abc", If_None_Match=ETAG)
    assert (status, body, headers["etag"]) == (304, b"", ETAG)


def test_a_replaced_file_has_another_etag_even_with_the_same_time_and_size(site):
    root, port = site
    path = root / "replaced"
    path.write_bytes(b"first")
    old = get(port, "/replaced")[1]["etag"]
    state = path.stat()
    fresh = root / ".fresh"
    fresh.write_bytes(b"other")
    os.utime(fresh, ns=(state.st_atime_ns, state.st_mtime_ns))
    fresh.replace(path)
    status, headers, body = get(port, "/replaced")
    assert (status, body) == (200, b"other")
    assert headers["etag"] != old


@pytest.mark.parametrize(
    "path",
    [
        "/outside",
        "/../outside",
        "/%2e%2e/outside",
        "/payload/../../outside",
        "/payload/%2e%2e/%2e%2e/outside",
        "/payload/./abc",
        "/..%2foutside",
        "/..%5coutside",
        "/link",
        "/.secret",
        "/payload",
        "/payload/",
        "/payload/abc/",
        "/",
        "//etc/passwd",
        "/nul%00",
        "/" + "x" * 5000,
    ],
)
def test_nothing_outside_the_directory_is_found(site, path):
    assert get(site[1], path)[0] == 404


def test_an_empty_file_is_served(site):
    assert get(site[1], "/empty")[::2] == (200, b"")


def test_a_port_in_use_is_one_clear_sentence(site):
    with pytest.raises(ToolError) as caught:
        serve.StaticServer(site[0], port=site[1])
    assert caught.value.code == "PORT_IN_USE"
    assert str(site[1]) in caught.value.sentence


def test_a_missing_directory_is_one_clear_sentence(tmp_path):
    with pytest.raises(ToolError) as caught:
        serve.StaticServer(tmp_path / "none")
    assert caught.value.code == "FILE"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_stops_gracefully(site, number):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    command = [sys.executable, "-m", "sekisho_tools", "serve", str(site[0]), "--port", str(port)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                assert get(port, "/payload/abc")[0] == 200
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert f"http://127.0.0.1:{port}/" in out
    assert "Traceback" not in err
    assert process.returncode in (0, 130, -number)


def test_a_stop_does_not_wait_for_ever_for_a_device_that_reads_nothing(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(32 << 20))
    server = serve.StaticServer(tmp_path)
    with server, socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        assert slow.recv(100).startswith(b"HTTP/1.1 200")
        server.__exit__(None, None, None)
        assert server._thread is not None
        assert not server._thread.is_alive()
