"""The command itself: where errors go, exit codes, and that nothing is half-written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sekisho_tools import cli, files
from sekisho_tools.errors import ToolError


def sekisho(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "sekisho_tools", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": "tools:host_sim"},
        cwd=Path(__file__).parents[1],
        check=False,
    )


def test_version_is_printed() -> None:
    done = sekisho("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("sekisho ")


def test_help_names_every_mounted_group() -> None:
    done = sekisho("--help")
    assert done.returncode == 0
    assert "Secure software update" in done.stdout
    for name in (*cli.GROUPS, *cli.COMMANDS):
        assert f" {name} " in done.stdout


def test_an_error_is_one_line_on_stderr_with_its_code_and_exit_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ToolError("IMAGE_TOO_LARGE", "The image [bold]has[/bold] " + "x" * 200 + " bytes.")

    monkeypatch.setattr(cli, "get_command", lambda _: type("C", (), {"main": staticmethod(fail)}))
    assert cli.run([]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error[IMAGE_TOO_LARGE]: The image [bold]has[/bold] " + "x" * 200 + " bytes.\n"


def test_a_wrong_option_is_a_usage_error() -> None:
    done = sekisho("--no-such-option")
    assert done.returncode == 2
    assert "no-such-option" in done.stderr


def test_interrupt_ends_without_a_traceback() -> None:
    # A runner in the background may have handed down an ignored SIGINT; a terminal does not.
    code = "import signal, os; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "import sekisho_tools.cli as c; c.get_command = lambda _: type('C', (), {'main': "
    code += (
        "staticmethod(lambda *a, **k: os.kill(os.getpid(), signal.SIGINT) or __import__('time').sleep(5))}); c.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(Path(__file__).parents[1] / d) for d in ("tools", "host_sim")),
        },
        check=False,
    )
    assert done.returncode == -signal.SIGINT
    assert done.stderr == ""


def test_reading_a_missing_file_says_which(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as caught:
        files.read_file(tmp_path / "none.bin", "firmware")
    assert caught.value.code == "FILE"
    assert "firmware" in caught.value.sentence
    assert "none.bin" in caught.value.sentence


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(11))
    assert len(files.read_file(tmp_path / "big", limit=11)) == 11
    with pytest.raises(ToolError) as caught:
        files.read_file(tmp_path / "big", limit=10)
    assert caught.value.code == "FILE_TOO_LARGE"


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = files.write_atomic(tmp_path / "x", "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ToolError, match="no space left"):
        files.write_atomic(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_secrets_are_written_for_their_owner_only(tmp_path: Path) -> None:
    secret = files.write_atomic(tmp_path / "deep" / "key", b"s", mode=0o600)
    assert secret.stat().st_mode & 0o777 == 0o600
