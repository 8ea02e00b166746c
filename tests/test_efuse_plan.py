"""The eFuse plan: right on espefuse's virtual chips, complete, in the right order, and never run by us."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.cli import Runner
from sekisho_sim.efuse import Efuse
from sekisho_tools import efuse_plan
from sekisho_tools.efuse_plan import CHIPS, Wishes
from sekisho_tools.errors import ToolError


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "secure-boot.pem"
    words = ("generate-signing-key", "--version", "2", "--scheme", "rsa3072", str(path))
    subprocess.run([sys.executable, "-m", "espsecure", *words], check=True, capture_output=True)
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(capsys, monkeypatch)


def everything(key: Path, **more: object) -> Wishes:
    return Wishes(secure_boot=str(key), flash_key="flash-key.bin", secure_version=3, **more)  # type: ignore[arg-type]


@pytest.mark.requirement("STS16", "UPE15")
@pytest.mark.parametrize("chip", CHIPS)
def test_every_command_of_the_full_plan_works_on_a_virtual_chip(chip: str, key: Path) -> None:
    wishes = everything(key, download=efuse_plan.OFF)
    fuses = efuse_plan.rehearse(chip, efuse_plan.plan(chip, wishes), wishes)
    if chip == "esp32":
        wanted = {"ABS_DONE_1": 1, "FLASH_CRYPT_CNT": 127, "FLASH_CRYPT_CONFIG": 15, "JTAG_DISABLE": 1}
        wanted |= {"UART_DOWNLOAD_DIS": 1, "DISABLE_DL_DECRYPT": 1, "RD_DIS": 1}
    else:
        wanted = {"SECURE_BOOT_EN": 1, "SPI_BOOT_CRYPT_CNT": 7, "DIS_PAD_JTAG": 1, "DIS_USB_JTAG": 1}
        wanted |= {"DIS_DOWNLOAD_MODE": 1, "KEY_PURPOSE_0": 9, "KEY_PURPOSE_1": 4, "DIS_DIRECT_BOOT": 1, "RD_DIS": 2}
    assert {name: fuses[name] for name in wanted} == wanted
    assert fuses["SECURE_VERSION"] == 0b111
    assert fuses["WR_DIS"] & 1, "RD_DIS is write-protected, so the digest stays readable"


@pytest.mark.parametrize("chip", CHIPS)
def test_the_key_is_hidden_before_secure_boot_forbids_hiding(chip: str, key: Path) -> None:
    words = [step.words for step in efuse_plan.plan(chip, everything(key))]
    burn = next(n for n, step in enumerate(words) if step[0] == "burn-key" and "flash" in " ".join(step))
    digest = next(n for n, step in enumerate(words) if "secure" in " ".join(step).lower())
    protect = words.index(("write-protect-efuse", "RD_DIS"))
    assert burn < digest < protect
    last = words[-1]
    assert {"UART_DOWNLOAD_DIS", "ENABLE_SECURITY_DOWNLOAD"} & set(last), "the cable is needed until the end"


def test_only_what_is_wished_for_is_burnt() -> None:
    for chip in CHIPS:
        assert efuse_plan.plan(chip, Wishes(jtag_off=False, download=efuse_plan.KEEP)) == []
        only = efuse_plan.plan(chip, Wishes(secure_version=2, jtag_off=False, download=efuse_plan.KEEP))
        assert [step.words for step in only] == [("burn-efuse", "SECURE_VERSION", "0x3")]


def test_a_plan_that_would_fail_is_not_given_out(tmp_path: Path) -> None:
    (tmp_path / "k.pem").write_text("no key")
    wishes = Wishes(secure_boot=str(tmp_path / "k.pem"))
    with pytest.raises(ToolError) as caught:
        efuse_plan.rehearse("esp32c3", efuse_plan.plan("esp32c3", wishes), wishes)
    assert caught.value.code == "EFUSE_PLAN"
    (tmp_path / "short.bin").write_bytes(b"short")
    wishes = Wishes(flash_key=str(tmp_path / "short.bin"))
    with pytest.raises(ToolError) as caught:
        efuse_plan.rehearse("esp32c3", efuse_plan.plan("esp32c3", wishes), wishes)
    assert caught.value.code == "KEY_FILE"
    lying = efuse_plan.Step("x", ("burn-efuse", "DIS_PAD_JTAG", "1"), sets={"DIS_USB_JTAG": 1})
    with pytest.raises(ToolError) as caught:
        efuse_plan.rehearse("esp32c3", [lying], Wishes())
    assert caught.value.code == "EFUSE_PLAN"


@pytest.mark.parametrize(("chip", "version"), [("esp32", 33), ("esp32s3", 17), ("esp32c6", -1)])
def test_a_secure_version_that_the_chip_cannot_count_is_refused(chip: str, version: int) -> None:
    with pytest.raises(ToolError) as caught:
        efuse_plan.plan(chip, Wishes(secure_version=version))
    assert caught.value.code == "SECURE_VERSION"
    with pytest.raises(ToolError):
        efuse_plan.plan("esp8266", Wishes())


def summary(chip: str, path: Path, *burn: str) -> str:
    """What espefuse says of a virtual chip after *burn*."""
    words = [sys.executable, "-m", "espefuse", "--chip", chip, "--virt", "--path-efuse-file", str(path)]
    if burn:
        subprocess.run([*words, "--do-not-confirm", "burn-efuse", *burn], check=True, capture_output=True)
    return subprocess.run([*words, "summary", "--format", "json"], check=True, capture_output=True, text=True).stdout


def test_what_the_chip_at_hand_has_already_is_left_out(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(summary("esp32s3", tmp_path / "e.bin", "DIS_PAD_JTAG", "1", "DIS_USB_JTAG", "1"))
    done = run(f"factory efuse-plan --chip esp32s3 --summary {tmp_path}/s.json --download off --out {tmp_path}/plan.sh")
    assert done.code == 0, done.err
    text = (tmp_path / "plan.sh").read_text()
    assert "DIS_DOWNLOAD_MODE" in text
    assert "JTAG" not in text.split("set -eu")[1]


def test_an_esp32_of_an_old_revision_gets_no_secure_boot(run: Runner, key: Path, tmp_path: Path) -> None:
    """The simulator keeps its eFuses as espefuse does, so its device serves as the chip at hand."""
    (tmp_path / "efuse.bin").write_bytes(Efuse().encode())
    (tmp_path / "s.json").write_text(summary("esp32", tmp_path / "efuse.bin"))
    line = f"factory efuse-plan --chip esp32 --secure-boot-key {key} --summary {tmp_path}/s.json"
    assert run(line).error == "CHIP_REVISION"


@pytest.mark.parametrize("text", ["", "{}", "[]", "{" * 10_000, '{"WR_DIS": 1}', '{"a": {"raw_value": "0x1"}}'])
def test_what_is_no_summary_is_refused(text: str) -> None:
    with pytest.raises(ToolError) as caught:
        efuse_plan.read_summary(text)
    assert caught.value.code == "EFUSES"


def test_the_script_asks_says_what_is_lost_and_runs_in_a_shell(run: Runner, key: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.sh"
    line = f"factory efuse-plan --chip esp32s3 --secure-boot-key {key} --jtag keep --out {out}"
    assert run(line).code == 0
    text = out.read_text()
    assert "--do-not-confirm" not in text
    burns = re.findall(r"^(.*)\nespefuse", text, re.MULTILINE)
    assert burns
    assert all(before.startswith("# Cannot be undone: ") for before in burns)
    assert subprocess.run(["/bin/sh", "-n", out], check=False).returncode == 0
    stopped = subprocess.run(["/bin/sh", out], capture_output=True, text=True, check=False, env={"PATH": "/nowhere"})
    assert stopped.returncode != 0
    assert "PORT" in stopped.stderr


@pytest.mark.requirement("STS16")
def test_the_whole_script_runs_on_a_virtual_chip(run: Runner, key: Path, tmp_path: Path) -> None:
    """The script itself, with an espefuse in its PATH that adds nothing but the virtual chip and the confirmation."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("espefuse", "espsecure", "esptool"):
        fake = f'#!/bin/sh\nexec {sys.executable} -m {name} "$@"\n'
        if name == "espefuse":
            fake = (
                '#!/bin/sh\nshift 2; test "$1" = --port || exit 9; shift 2\n'
                f"echo BURN | {sys.executable} -m espefuse --chip esp32c3 --virt"
                f' --path-efuse-file {tmp_path}/e.bin "$@"\n'
            )
        (tools / name).write_text(fake)
        (tools / name).chmod(0o755)
    line = (
        f"factory efuse-plan --chip esp32c3 --secure-boot-key {key} --flash-key {tmp_path}/f.bin --out {tmp_path}/p.sh"
    )
    assert run(line).code == 0
    done = subprocess.run(
        ["/bin/sh", tmp_path / "p.sh"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{tools}:/usr/bin:/bin", "PORT": "virtual"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    fuses, _ = efuse_plan.read_summary(summary("esp32c3", tmp_path / "e.bin"))
    assert (fuses["SECURE_BOOT_EN"], fuses["SPI_BOOT_CRYPT_CNT"], fuses["ENABLE_SECURITY_DOWNLOAD"]) == (1, 7, 1)
    assert (tmp_path / "f.bin").stat().st_size == efuse_plan.FLASH_KEY_SIZE


def test_the_board_on_a_port_is_only_read(run: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = summary("esp32c3", tmp_path / "e.bin")
    seen: list[tuple[str, ...]] = []
    really: Callable[..., subprocess.CompletedProcess[str]] = efuse_plan._run

    def spy(tool: str, *words: str) -> subprocess.CompletedProcess[str]:
        if "--virt" in words:
            return really(tool, *words)
        seen.append((tool, *words))
        return subprocess.CompletedProcess([], 0, text, "")

    monkeypatch.setattr(efuse_plan, "_run", spy)
    assert run("factory efuse-plan --chip esp32c3 --port /dev/ttyUSB7").code == 0
    assert seen == [("espefuse", "--chip", "esp32c3", "--port", "/dev/ttyUSB7", "summary", "--format", "json")]
    assert json.loads(text[text.index("{") :])["WR_DIS"]["value"] == 0
