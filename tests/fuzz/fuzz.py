"""Coverage-guided fuzzing of one parser: ``fuzz.py TARGET --seconds N`` (atheris).

Targets are those of targets.py, which run on the device too, and three of the desk: ``desk`` (decode, show and run any
SUIT envelope), ``table`` (partition tables) and ``firmware`` (files a user gives). What the engine accepts, the desk
must accept and understand the same way. An input that breaks a target is kept in ``regressions/TARGET``, where
tests/test_fuzz_regressions.py replays it from then on.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CORPUS = ROOT / "build" / "fuzz"
sys.path[:0] = [str(HERE), str(ROOT / "tools"), str(ROOT / "host_sim")]

DESK_TARGETS = ("desk", "table", "firmware")
MAX_LENGTH = {"boot": 6000, "ledger": 8193, "image": 5000, "otadata": 8192, "firmware": 70000}


def check(name: str, data: bytes) -> None:
    """Runs one input through one target; raises when it breaks a promise."""
    from sekisho_tools.errors import ToolError

    if name == "desk":
        _desk(data)
    elif name == "table":
        from sekisho_tools import layout

        with suppress(ToolError):
            assert layout.decode(data, 1 << 22).encode()
    elif name == "firmware":
        from sekisho_tools import imagefile

        with suppress(ToolError):
            imagefile.parse(data)
    else:
        _device(name, data)


def _device(name: str, data: bytes) -> None:
    import targets

    code = targets.run(name, data)
    if code == 0 and name in ("suit", "manifest", "sequence"):
        _agree(name, data)
    if name == "cbor":
        _agree_on_cbor(data, code == 0)


def _agree(name: str, data: bytes) -> None:
    """The desk reads what the engine accepts, and finds the same images in it."""
    import targets
    from sekisho_tools import strict_cbor, suit

    manifest = data if name == "manifest" else targets.manifest_around(data)
    envelope = data if name == "suit" else targets.envelope_around(manifest)
    plan = targets.suit(envelope)
    members = dict(strict_cbor.loads(envelope).value)
    # Of a block that it skips the engine reads no more than that it is foreign; the desk reads all of them.
    members[2] = suit.dumps(list(strict_cbor.loads(members[2])[:1]))
    decoded = suit.decode(suit.dumps(suit.cbor2.CBORTag(suit.TAG_ENVELOPE, members)))
    assert decoded.digest.value == plan.digest
    assert decoded.manifest.sequence_number == plan.sequence
    sequences = [decoded.manifest.shared, *decoded.manifest.sequences.values()]
    digests = {
        command.argument[3].value
        for commands in sequences
        for command in commands
        if command.code == 20 and 3 in command.argument
    }
    assert digests == {target.digest for target in plan.targets}
    assert len(plan.targets) <= len(decoded.manifest.components)


def _agree_on_cbor(data: bytes, engine: bool) -> None:
    """Both readers take the same bytes, but for the engine's limits and for text that is not UTF-8."""
    from sekisho_tools import strict_cbor
    from sekisho_tools.errors import ToolError

    why = ""
    try:
        strict_cbor.loads(data)
    except ToolError as error:
        why = error.sentence
    if why:
        assert not engine or "UTF-8" in why or "truth values" in why, why
    elif not engine:
        import targets
        from sekisho_boot.reasons import LIMIT

        assert targets.run("cbor", data) == LIMIT


def _desk(data: bytes) -> None:
    from sekisho_tools import suit, suit_run, suit_show
    from sekisho_tools.errors import ToolError

    for tagged in (True, False):
        with suppress(ToolError):
            envelope = suit.decode(data, tagged=tagged)
            suit_show.render(envelope)
            suit_run.update(envelope, suit_run.Device(fetch=lambda uri: uri.encode()))


def main() -> None:
    """Fuzz one target for a time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()

    import atheris

    with atheris.instrument_imports(include=["sekisho", "sekisho_boot", "sekisho_tools", "targets"]):
        import sekisho_tools.device_code
        import targets

        assert sekisho_tools.device_code.BOOT
        from sekisho import envelope, orders, payload
        from sekisho_boot import cbor, cose, image, keyset, ledger, otadata, records, suit
        from sekisho_tools import imagefile, layout, strict_cbor, suit_run, suit_show

        assert all((envelope, orders, payload))
        assert all((cbor, cose, image, keyset, ledger, otadata, records, suit))
        assert all((imagefile, layout, strict_cbor, suit_run, suit_show))
    if options.target not in (*targets.TARGETS, *DESK_TARGETS):
        parser.error(f"no target {options.target}; there are {', '.join((*targets.TARGETS, *DESK_TARGETS))}")
    import seeds

    corpus, kept = CORPUS / options.target, HERE / "regressions" / options.target
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds.seeds(options.target)):
        (corpus / f"seed-{number}").write_bytes(seed)
    kept.mkdir(parents=True, exist_ok=True)
    arguments = [
        sys.argv[0],
        str(corpus),
        f"-max_total_time={options.seconds}",
        f"-max_len={MAX_LENGTH.get(options.target, 4200)}",
        f"-artifact_prefix={kept}/",
        "-timeout=10",
        "-verbosity=0",
        "-print_final_stats=1",
    ]
    atheris.Setup(arguments, lambda data: check(options.target, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
