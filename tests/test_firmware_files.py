"""The files that go onto a chip belong together: boards, partition tables, manifests, start-up scripts."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from sekisho_tools import device_code, layout, libraries
from sekisho_tools.imagefile import CHIPS
from sekisho_tools.measure import compile_module

FIRMWARE = device_code.FIRMWARE
BOARDS = sorted(path for path in (FIRMWARE / "boards").iterdir() if path.is_dir())
NEEDED = ["board.json", "manifest.py", "mpconfigboard.cmake", "mpconfigboard.h", "sdkconfig.board"]
SCRIPTS = ("_boot.py", "boot.py", "main.py")


def board_text(board: Path, name: str) -> str:
    return (board / name).read_text()


def cmake_list(board: Path, name: str) -> list[str]:
    found = re.search(rf"set\({name}\s+(.*?)\)", board_text(board, "mpconfigboard.cmake"), re.DOTALL)
    assert found, f"{board.name} sets no {name}"
    return found[1].split()


def frozen(manifest: Path, board: Path) -> dict[str, Path]:
    """What a manifest freezes, module path -> file; the way MicroPython's tools/manifestfile.py goes about it."""
    modules: dict[str, Path] = {}
    variables = {"$(MPY_DIR)": "/micropython", "$(PORT_DIR)": "/micropython/ports/esp32", "$(BOARD_DIR)": str(board)}

    def resolve(directory: Path, path: str) -> Path:
        for name, value in variables.items():
            path = path.replace(name, value)
        return directory / path

    def execute(file: Path) -> None:
        def include(path: str) -> None:
            target = resolve(file.parent, path)
            if not target.is_relative_to("/micropython"):
                execute(target.resolve())
            else:
                modules["include " + path] = target

        def package(name: str, base_path: str = ".", opt: int | None = None) -> None:
            base = resolve(file.parent, base_path).resolve()
            for source in sorted((base / name).rglob("*.py")):
                modules[str(source.relative_to(base))] = source

        def module(name: str, base_path: str = ".", opt: int | None = None) -> None:
            modules[name] = resolve(file.parent, base_path) / name

        exec(file.read_text(), {"include": include, "package": package, "module": module})

    execute(manifest)
    return modules


def test_there_is_a_board_for_every_supported_chip():
    assert [board.name for board in BOARDS] == ["SEKISHO_C3", "SEKISHO_C6", "SEKISHO_ESP32", "SEKISHO_S3"]
    assert {cmake_list(board, "IDF_TARGET")[0] for board in BOARDS} == {"esp32", "esp32s3", "esp32c3", "esp32c6"}


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_board_has_every_file_that_micropython_asks_for(board: Path):
    assert sorted(path.name for path in board.iterdir()) == NEEDED


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_board_names_a_partition_table_that_fits_its_flash(board: Path):
    csv = FIRMWARE / "partitions" / cmake_list(board, "SEKISHO_PARTITIONS")[0]
    table = layout.load(csv)
    size = re.search(r"CONFIG_ESPTOOLPY_FLASHSIZE_(\d+)MB=y", board_text(board, "sdkconfig.board"))
    assert size, "no flash size"
    assert csv.name == f"{size[1]}MiB.csv"
    assert max(part.offset + part.size for part in table.partitions) <= int(size[1]) << 20


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_settings_come_in_the_order_base_ours_board_partitions(board: Path):
    names = cmake_list(board, "SDKCONFIG_DEFAULTS")
    assert names[0] == "boards/sdkconfig.base"
    assert names[-3:] == [
        "${SEKISHO_SDKCONFIG}",
        "${CMAKE_CURRENT_LIST_DIR}/sdkconfig.board",
        "${SEKISHO_PARTITIONS_SDKCONFIG}",
    ]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_board_json_agrees_with_the_chip(board: Path):
    about = json.loads(board_text(board, "board.json"))
    assert [about["mcu"]] == cmake_list(board, "IDF_TARGET")
    assert int(about["deploy_options"]["flash_offset"], 0) == CHIPS[about["mcu"]].bootloader_offset


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
@pytest.mark.rule("start")
def test_a_production_board_has_no_prompt_and_no_file_system_of_its_own(board: Path):
    assert '#include "../sekisho.h"' in board_text(board, "mpconfigboard.h")
    profile = (FIRMWARE / "boards" / "sekisho.h").read_text()
    for name in ("HW_ENABLE_UART_REPL", "HW_USB_CDC", "HW_ESP_USB_SERIAL_JTAG", "HW_ENABLE_USBDEV", "VFS_ROM"):
        assert re.search(rf"^#define MICROPY_{name}\s+\(0\)$", profile, re.MULTILINE), name


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_the_manifest_freezes_engine_agent_and_scripts_and_every_file_exists(board: Path, monkeypatch, tmp_path: Path):
    (tmp_path / "sekisho_config.py").write_text("")
    monkeypatch.setenv("SEKISHO_CONFIG", str(tmp_path))
    monkeypatch.setenv("SEKISHO_LIBRARIES", str(tmp_path))
    libraries.write(tmp_path)
    modules = frozen(board / "manifest.py", board)
    assert modules.pop("include $(MPY_DIR)/extmod/asyncio")
    packages = {
        str(source.relative_to(base)) for base in (device_code.BOOT, device_code.LIB) for source in base.rglob("*.py")
    }
    assert set(modules) == packages | set(SCRIPTS) | {"sekisho_config.py", "microdot.py"}
    assert all(path.is_file() for path in modules.values())


def test_the_configuration_is_looked_for_in_the_board_directory_by_default(monkeypatch):
    monkeypatch.delenv("SEKISHO_CONFIG", raising=False)
    assert frozen(BOARDS[0] / "manifest.py", BOARDS[0])["sekisho_config.py"] == BOARDS[0] / "sekisho_config.py"


@pytest.mark.parametrize("script", SCRIPTS)
def test_start_up_scripts_compile_for_the_chip(script: str, tmp_path: Path):
    assert compile_module(FIRMWARE / script, tmp_path / "out.mpy").startswith(b"M\x06")


@pytest.mark.invariant(5)
@pytest.mark.rule("start")
def test_the_first_statement_of_boot_shuts_files_out():
    """A file named hashlib.py on sys.path would replace the built-in module for the engine."""
    first, second, *_ = ast.parse((FIRMWARE / "_boot.py").read_text()).body
    assert ast.unparse(first) == "import sys"
    assert ast.unparse(second) == "sys.path[:] = ['.frozen']"


@pytest.mark.rule("start")
def test_nothing_of_the_engine_can_stop_the_start():
    for script in ("_boot.py", "boot.py"):
        tree = ast.parse((FIRMWARE / script).read_text())
        caught = {
            id(node)
            for attempt in ast.walk(tree)
            if isinstance(attempt, ast.Try) and ast.unparse(attempt.handlers[0].type or attempt) == "Exception"
            for statement in attempt.body
            for node in ast.walk(statement)
        }
        ours = [
            node
            for node in ast.walk(tree)
            if (isinstance(node, ast.ImportFrom) and str(node.module).startswith("sekisho"))
            or (isinstance(node, ast.Call) and ast.unparse(node.func) in ("boot", "mount", "Port", "sekisho.started"))
        ]
        assert len(ours) >= 6
        assert all(id(node) in caught for node in ours), script


def test_stock_boot_imports_modules_that_exist():
    names = re.search(r"for name in \((.*?)\)", (FIRMWARE / "boot.py").read_text())
    assert names
    for name in ast.literal_eval(f"({names[1]})"):
        assert (device_code.BOOT / "sekisho_boot" / f"{name}.py").is_file(), name


def test_all_layouts_have_the_same_partitions_in_the_same_order():
    tables = [layout.load(FIRMWARE / "partitions" / f"{size}MiB.csv") for size in (4, 8, 16)]
    rows = [[(part.label, part.type, part.subtype) for part in table.partitions] for table in tables]
    assert rows[0] == rows[1] == rows[2]


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed: board files are only read, not run")
@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_cmake_reads_the_board_files(board: Path, tmp_path: Path):
    """Only the settings are gone through, as MicroPython's CMakeLists.txt does; nothing is compiled."""
    script = tmp_path / "check.cmake"
    script.write_text(
        f"set(CMAKE_BINARY_DIR {tmp_path})\nset(MICROPY_BOARD_DIR {board})\n"
        f"include({board}/mpconfigboard.cmake)\n"
        "foreach(file ${SDKCONFIG_DEFAULTS})\n"
        "  if(NOT file MATCHES ^boards/)\n    file(READ ${file} text)\n    message(STATUS ${text})\n  endif()\n"
        "endforeach()\nmessage(STATUS ${MICROPY_FROZEN_MANIFEST})\n"
    )
    done = subprocess.run(["cmake", "-P", script], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    csv = FIRMWARE / "partitions" / cmake_list(board, "SEKISHO_PARTITIONS")[0]
    assert f'CONFIG_PARTITION_TABLE_CUSTOM_FILENAME="{csv}"' in done.stdout
    assert str(board / "manifest.py") in done.stdout


@pytest.mark.requirement("STS11")
@pytest.mark.parametrize("path", [FIRMWARE / "main.py", *sorted((FIRMWARE.parent / "docs/examples").glob("[ps]*.py"))],
                         ids=lambda path: path.name)  # fmt: skip
def test_ctrl_c_is_closed_before_anything_else_of_main_runs(path: Path):
    """MicroPython opens it with each of its start-up files; `sekisho` decides when it has read the device's mode."""
    first, *rest = [node for node in ast.parse(path.read_text()).body if not _harmless(node)]
    assert ast.unparse(first) == "micropython.kbd_intr(-1)"
    assert any("sekisho" in ast.unparse(node) for node in rest)


def _harmless(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import) and {name.name for name in node.names} <= {"micropython", "time"}


@pytest.mark.requirement("UPE17", "UPE15")
@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_update_engine_and_report_engine_lie_in_the_one_image_that_secure_boot_protects(board: Path):
    """Frozen into the firmware: what the bootloader verifies, and what reports measure, holds both of them."""
    modules = frozen(board / "manifest.py", board)
    for name in ("sekisho_boot/engine.py", "sekisho/report.py", "sekisho/eventlog.py", "sekisho/secure.py"):
        assert name in modules, name
    assert {path.name for path in (device_code.LIB / "sekisho").glob("*.py")} <= {Path(name).name for name in modules}
