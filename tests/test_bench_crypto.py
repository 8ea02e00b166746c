"""The crypto benchmark runs, and its textbook agrees with what it is compared with."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def bench(repo: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_crypto", repo / "bench" / "bench_crypto.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_figure_has_a_textbook_beside_it(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    figures = bench.on_unix(32, rounds=1)
    assert figures.keys() == {"verify_unknown_key", "verify_recent_key", "sign", "sha512_block"}
    assert all(figure.ours > 0 and figure.textbook > 0 and figure.ratio > 0 for figure in figures.values())
    bench.show("title", "microseconds", figures)
    assert "verify_unknown_key" in capsys.readouterr().out


def test_on_an_esp32_a_verification_stays_within_its_goal_and_a_signature_within_half_of_it(repo: Path) -> None:
    """Instructions, not times: machine code counted, the rest by a model (bench/esp32.py)."""
    program = "import json; from bench import esp32; print(json.dumps(esp32.figures()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=repo, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    verify, sign = found["verify, unknown key"], found["sign"]
    assert verify["together"] < 15.5
    assert verify["points (counted)"] + verify["SHA-512 (counted)"] < 13
    assert sign["together"] < verify["together"] / 2
