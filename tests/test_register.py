"""Devices become known to the update server through hawkBit's management API."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import keys
from helpers.cli import Runner
from management_api import PASSWORD, USER, Api, management_api
from sekisho_tools import issued, issuing, register
from sekisho_tools.errors import ToolError

RECORD = issued.IssuingRecord(
    id="1492af14-2569-4e48-bf42-9b2d51f2ab45",
    physical="24:0a:c4:00:00:01",
    product="Lamp",
    vendor="v",
    product_class="c",
    environment="development",
    public_key=None,
    keyset="00",
    keyset_version=1,
    batch="b",
    number=7,
    issued="2026-01-01",
)
TOKEN = "0" * 64


@pytest.fixture
def api() -> Iterator[Api]:
    with management_api() as found:
        yield found


def server(api: Api, password: str = PASSWORD) -> register.Server:
    return register.Server(api.url, USER, password)


@pytest.mark.requirement("STS02")
def test_a_device_is_registered_with_both_ids_and_its_token(api: Api) -> None:
    assert register.register(server(api), [(RECORD, TOKEN)]) == 1
    target = api.targets[RECORD.id]
    assert target["securityToken"] == TOKEN
    assert "24:0a:c4:00:00:01" in target["name"]


def test_a_run_that_broke_off_can_be_repeated(api: Api) -> None:
    devices = [(replace(RECORD, id=f"1492af14-2569-4e48-bf42-{n:012x}", number=n), TOKEN) for n in range(150)]
    assert register.register(server(api), devices[:20]) == 20
    assert register.register(server(api), devices) == 130
    assert len(api.targets) == 150
    assert sum(line.startswith("POST") for line in api.requests) == 3


def test_an_id_that_the_server_knows_as_another_device_is_refused(api: Api) -> None:
    register.register(server(api), [(RECORD, TOKEN)])
    with pytest.raises(ToolError) as caught:
        register.register(server(api), [(replace(RECORD, physical="24:0a:c4:00:00:02"), TOKEN)])
    assert caught.value.code == "TARGET_EXISTS"


@pytest.mark.parametrize(
    ("broken", "code"),
    [((500, b"oops"), "SERVER"), ((200, b"[]"), "SERVER"), ((200, b"\xff"), "SERVER"), ((403, b""), "FORBIDDEN")],
)
def test_a_server_that_answers_nonsense_is_named(api: Api, broken: tuple[int, bytes], code: str) -> None:
    api.broken = broken
    with pytest.raises(ToolError) as caught:
        register.register(server(api), [(RECORD, TOKEN)])
    assert caught.value.code == code


def test_wrong_password_dead_server_and_open_http_are_named(api: Api) -> None:
    for wrong, code in (
        (server(api, "guess"), "FORBIDDEN"),
        (register.Server("http://127.0.0.1:9", USER, PASSWORD), "NETWORK"),
        (register.Server("http://updates.example.com", USER, PASSWORD), "SERVER"),
        (register.Server("file:///etc/passwd", USER, PASSWORD), "SERVER"),
    ):
        with pytest.raises(ToolError) as caught:
            register.register(wrong, [(RECORD, TOKEN)])
        assert caught.value.code == code
        assert PASSWORD not in caught.value.sentence


def test_the_command_registers_the_folders_of_a_batch(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuing, "SCRYPT_N", 1 << 10)
    document = keys.make_keyset().document
    issuing.create(tmp_path / "b", 2, document, "example.com", "lamp", b"p" * 12)
    run = Runner(capsys, monkeypatch)
    assert run(f"issue take {tmp_path}/b -n 2 --out {tmp_path}/d", "p" * 12).code == 0
    folders = " ".join(map(str, (tmp_path / "d").iterdir()))
    reader, writer = os.pipe()
    os.write(writer, PASSWORD.encode())
    os.close(writer)
    done = run(f"factory register {folders} --server {api.url} --user {USER} --password-fd {reader}")
    assert done.out == "2 registered, 0 known already.\n", done.err
    assert set(api.targets) == {folder.name for folder in (tmp_path / "d").iterdir()}
    for name, value in (("SERVER", api.url), ("USER", USER), ("PASSWORD", PASSWORD)):
        monkeypatch.setenv(f"SEKISHO_{name}", value)
    done = run(f"factory register {folders}")
    assert done.out == "0 registered, 2 known already.\n", "again, as every other command finds its server"
