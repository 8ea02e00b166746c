"""The desk reads the whole manifest, refuses what the documents do not allow, and runs it as they say."""

import hashlib

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sekisho_tools import strict_cbor, suit, suit_run, suit_show
from sekisho_tools.errors import ToolError

VENDOR, CLASS = b"v" * 16, b"c" * 16
DATA = b"an image"
DIGEST = suit.dumps(suit.sha256_digest(DATA))


def d(value):
    return cbor2.dumps(value, canonical=True)


def wrap(manifest, **members):
    """An unsigned envelope around *manifest* (a map); members by number (`m20`) or as payloads."""
    encoded = d(manifest)
    extra = {int(key[1:]) if key[1:].isdigit() else key: value for key, value in members.items()}
    wrapper = d([d(suit.sha256_digest(d(encoded)))])
    return d(cbor2.CBORTag(107, {2: wrapper, 3: encoded, **extra}))


def manifest(install=None, components=((b"a",),), shared=None, **members):
    common = {2: [list(component) for component in components]}
    if shared is not None:
        common[4] = d(shared)
    result = {1: 1, 2: 5, 3: d(common)}
    if install is not None:
        result[20] = d(install)
    result.update({int(key[1:]): value for key, value in members.items()})
    return result


def why(envelope, **how):
    with pytest.raises(ToolError) as error:
        suit.decode(envelope, **how)
    return error.value.code


def why_run(envelope, device):
    with pytest.raises(ToolError) as error:
        suit_run.update(suit.decode(envelope), device)
    return error.value.code


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"m1": 2}, "MANIFEST_VERSION"),
        ({"m1": True}, "MANIFEST"),
        ({"m2": -1}, "MANIFEST"),
        ({"m2": b""}, "MANIFEST"),
        ({"m3": 1}, "MANIFEST"),
        ({"m3": d({2: []})}, "COMPONENT"),
        ({"m3": d({2: [[]]})}, "COMPONENT"),
        ({"m3": d({2: [[b"a"], [b"a"]]})}, "COMPONENT"),
        ({"m3": d({2: [["a"]]})}, "MANIFEST"),
        ({"m3": d({2: {}})}, "MANIFEST"),
        ({"m3": d({2: [[b"a"]], 1: {0: {True: []}}})}, "MANIFEST"),
        ({"m3": d({2: [[b"a"]], 4: None})}, "MANIFEST"),
        ({"m3": d({2: [[b"a"]], 5: 0})}, "MANIFEST"),
        ({"m3": d({2: [[b"a"]], 1: {0: {2: 1}}})}, "MANIFEST"),
        ({"m3": b"\x00\x00"}, "CBOR"),
        ({"m4": 1}, "MANIFEST"),
        ({"m4": None}, "MANIFEST"),
        ({"m5": None}, "MANIFEST"),
        ({"m6": None}, "MANIFEST"),
        ({"m5": []}, "COMPONENT"),
        ({"m6": d([-1, 2])}, "PARAMETER"),
        ({"m10": 0}, "MANIFEST"),
        ({"m19": d([1, 15])}, "MANIFEST"),
        ({"m7": [-43, b"x" * 32]}, "MANIFEST"),
        ({"m20": [-43, b"x" * 32]}, "MANIFEST"),
        ({"m20": [-16, b"x" * 31]}, "MANIFEST"),
        ({"m23": d({"en": {9: "x"}})}, "MANIFEST"),
        ({"m23": d({"en": {1: 2}})}, "MANIFEST"),
        ({"m23": d({1: {}})}, "MANIFEST"),
        ({"m23": d({"en": {(b"b",): {1: "x"}}})}, "COMPONENT"),
    ],
)
def test_refuses_wrong_members(members, reason):
    assert why(wrap(manifest(**members))) == reason


@pytest.mark.parametrize(
    ("commands", "reason"),
    [
        ([], "COMMAND"),
        ([3], "COMMAND"),
        (["3", 15], "COMMAND"),
        ([True, 15], "COMMAND"),
        ([0, 15], "COMMAND"),
        ([9, 15], "COMMAND"),
        ([-1, 15], "COMMAND"),
        ([3, 16], "COMMAND"),
        ([3, None], "COMMAND"),
        ([12, 1], "COMPONENT"),
        ([12, []], "COMMAND"),
        ([12, [0, 0]], "COMMAND"),
        ([12, False], "COMMAND"),
        ([15, [d([3, 15])]], "COMMAND"),
        ([15, [None, d([3, 15])]], "COMMAND"),
        ([15, d([3, 15])], "COMMAND"),
        ([20, {}], "PARAMETER"),
        ([20, {6: 1}], "PARAMETER"),
        ([20, {True: b"v" * 16}], "PARAMETER"),
        ([20, {1: b"v" * 15}], "PARAMETER"),
        ([20, {3: [-16, b"x" * 32]}], "PARAMETER"),
        ([20, {3: d([-16, b"x" * 32, 0])}], "PARAMETER"),
        ([20, {5: -1}], "PARAMETER"),
        ([20, {13: 1}], "PARAMETER"),
        ([20, {19: d([b"", {}, None, []])}], "PARAMETER"),
        ([20, {21: b"uri"}], "PARAMETER"),
        ([20, {28: d([6, [1]])}], "PARAMETER"),
        ([20, {28: d([True, [1]])}], "PARAMETER"),
        ([20, {28: d([1, [-1]])}], "PARAMETER"),
        ([20, {28: d([1, [1, -4]])}], "PARAMETER"),
        ([20, {28: d([1, [1, 2, 3, 4]])}], "PARAMETER"),
        ([20, {29: d({0: 1})}], "PARAMETER"),
        ([20, {29: d({})}], "PARAMETER"),
        ([20, {30: d({9: 1})}], "PARAMETER"),
        ([20, {30: d({True: 1})}], "PARAMETER"),
        ([20, {29: d({True: 1})}], "PARAMETER"),
        ([20, {-257: None}], "PARAMETER"),
        ([-257, [1]], "COMMAND"),
        ([32, 15], "COMMAND"),
        ([34, {0: {6: 1}}], "PARAMETER"),
        ([35, {0: []}], "PARAMETER"),
        ([35, {}], "COMMAND"),
        ([3, 15] * 513, "LIMIT"),
    ],
)
def test_refuses_wrong_commands(commands, reason):
    assert why(wrap(manifest(commands))) == reason


@pytest.mark.parametrize("code", [11, 18, 21, 22, 23, 29, 31, 33, 19, 34, -257])
def test_the_shared_sequence_has_no_side_effects(code):
    argument = {1: VENDOR} if code == 19 else {0: {1: VENDOR}} if code == 34 else 15
    assert why(wrap(manifest(shared=[code, argument]))) == "COMMAND"


def test_nesting_is_limited():
    commands = d([3, 15])
    for _ in range(4):
        commands = d([32, commands])
    assert suit.decode(wrap(manifest(m20=commands)))
    assert why(wrap(manifest(m20=d([32, commands])))) == "LIMIT"
    deep = d(1)
    for _ in range(30):
        deep = b"\x81" + deep
    with pytest.raises(ToolError) as error:
        strict_cbor.loads(deep)
    assert error.value.code == "LIMIT"


def test_severable_members_are_checked_against_their_digest():
    install = d([3, 15])
    severed = manifest(m20=suit.sha256_digest(d(install)))
    assert suit.decode(wrap(severed)).manifest.severed == (20,)
    assert suit.decode(wrap(severed, m20=install)).manifest.sequences[20][0].name == "image-match"
    assert why(wrap(severed, m20=d([3, 14]))) == "SEVERABLE"
    assert why(wrap(manifest([3, 15]), m20=install)) == "SEVERABLE"
    assert why(wrap(manifest(), m20=install)) == "SEVERABLE"


def test_unknown_envelope_members_are_refused():
    for member in ("m1", "m4", "m7", "m24"):
        assert why(wrap(manifest(), **{member: b""})) == "ENVELOPE"
    assert why(d(cbor2.CBORTag(107, {2: b"", 3: "no bytes"}))) == "ENVELOPE"
    assert why(d({2: b"", 3: b""})) == "ENVELOPE"


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_with_a_reason(data):
    for guess in (data, b"\xd8\x6b" + data, b"\xd8\x6b\xa2\x02" + data):
        with pytest.raises(ToolError):
            suit.decode(guess)


# -- showing ----------------------------------------------------------------------------------------------------------


def test_everything_has_a_name_when_shown():
    install = [
        *[
            20,
            {
                1: VENDOR,
                4: 9,
                12: True,
                21: "u",
                23: b"x",
                28: d([2, [1, 2, -1, 3]]),
                29: d({1: 5, 4: [b"i", [[1, [2]]]]}),
            },
        ],
        *[
            20,
            {30: d({1: 3, 4: {"a": 1}, 8: "me"}), -257: "own"},
            18,
            2,
            22,
            2,
            23,
            2,
            31,
            2,
            14,
            0,
            33,
            0,
            26,
            0,
            27,
            0,
        ],
        *[15, [d([5, 5]), d([6, 5]), None], 32, d([24, 15]), 34, {0: {14: 8}}, 35, {0: [14]}, -258, None, 12, True],
    ]
    text = d({"en": {1: "All of it", (b"a",): {6: "1.0"}}})
    shown = suit.decode(wrap(manifest(install, m4="https://x", m6=d([1, 0]), m14=b"coswid", m23=text, m25={1: 2})))
    lines = suit_show.render(shown)
    for word in (
        "version: >= 1.2.-1.3",
        "other-device-version",
        "swap (31)",
        "alternative 3: do nothing",
        "custom -258",
    ):
        assert word in lines
    for word in (
        "default-permissions: 3",
        "component-version: 1.0",
        "mud:",
        "set-version: 1.0",
        "coswid: 636f73776964",
    ):
        assert word in lines
    assert suit_show.describe(shown)["install"][0]["parameters"]["vendor-identifier"].count("-") == 4


def test_what_is_shown_cannot_paint_on_the_terminal():
    text = d({"en": {1: "\x1b[31mred\u202e\n"}})
    assert "\x1b" not in suit_show.render(suit.decode(wrap(manifest(m23=text))))
    assert "\u202e" not in suit_show.render(suit.decode(wrap(manifest(m23=text))))


# -- running ----------------------------------------------------------------------------------------------------------


def run(install, device=None, **how):
    device = device or suit_run.Device((VENDOR,), (CLASS,))
    payloads = how.pop("payloads", {})
    suit_run.update(suit.decode(wrap(manifest(install, **how), **payloads)), device)
    return device


A, B = (b"a",), (b"b",)


def test_write_copy_and_swap_move_bytes():
    device = run([20, {18: DATA}, 18, 0])
    assert device.storage == {A: DATA}
    device.storage[B] = b"other"
    run([12, 0, 20, {22: 1}, 31, 0], device, components=(A, B))
    assert device.storage == {A: b"other", B: DATA}
    run([12, 0, 20, {22: 1, 3: DIGEST}, 22, 0, 3, 15], device, components=(A, B))
    assert device.storage == {A: DATA, B: DATA}


def test_try_each_takes_the_first_alternative_that_holds():
    device = suit_run.Device(slots={A: 1})
    alternatives = [d([20, {5: slot}, 5, 5, 20, {18: bytes([slot])}]) for slot in (0, 1)]
    run([15, alternatives, 18, 0], device)
    assert device.storage == {A: b"\1"}
    device.slots[A] = 7
    assert why_run(wrap(manifest([15, alternatives])), device) == "CONDITION"
    run([15, [*alternatives, None]], device)


def test_a_directive_that_fails_ends_everything():
    alternatives = [d([20, {21: "#none"}, 21, 0]), d([20, {18: DATA}, 18, 0])]
    assert why_run(wrap(manifest([15, alternatives])), suit_run.Device()) == "NETWORK"


def test_soft_failure_ends_a_run_sequence_and_no_more():
    hard, soft = d([14, 0]), d([20, {13: True}, 14, 0, 20, {18: b"never"}, 18, 0])
    assert why_run(wrap(manifest([32, hard])), suit_run.Device()) == "CONDITION"
    assert run([32, soft, 20, {18: DATA}, 18, 0]).storage == {A: DATA}
    assert why_run(wrap(manifest([20, {13: True}])), suit_run.Device()) == "PARAMETER"
    assert why_run(wrap(manifest([15, [d([20, {13: False}, 14, 0]), d([3, 0])]])), suit_run.Device()) == "CONDITION"


def test_a_list_and_true_run_for_each_component():
    for index in (True, [0, 1], [1, 0]):
        assert run([12, index, 20, {18: DATA}, 18, 0], components=(A, B)).storage == {A: DATA, B: DATA}


def test_parameters_belong_to_one_component():
    assert why_run(wrap(manifest([12, 0, 20, {18: DATA}, 12, 1, 18, 0], components=(A, B))), suit_run.Device()) == (
        "PARAMETER"
    )
    device = run([12, 0, 20, {18: DATA}, 12, 1, 35, {0: [18]}, 18, 0], components=(A, B))
    assert device.storage == {B: DATA}
    device = run([34, {0: {18: b"0"}, 1: {18: b"1"}}, 12, True, 18, 0], components=(A, B))
    assert device.storage == {A: b"0", B: b"1"}


@pytest.mark.parametrize(
    ("parameters", "condition", "reason"),
    [
        ({1: b"x" * 16}, 1, "VENDOR"),
        ({2: b"x" * 16}, 2, "CLASS"),
        ({24: b"x" * 16}, 24, "DEVICE"),
        ({3: DIGEST}, 3, "IMAGE_DIGEST"),
        ({3: DIGEST, 14: 9}, 3, "IMAGE_SIZE"),
        ({4: 100}, 4, "EXPIRED_MANIFEST"),
        ({5: 1}, 5, "CONDITION"),
        ({18: b"x"}, 6, "CONDITION"),
        ({26: 11}, 26, "CONDITION"),
        ({27: 1}, 27, "CONDITION"),
        ({28: d([3, [1, 1]])}, 28, "VERSION_TIE"),
        ({}, 8, "CONDITION"),
        ({}, 3, "PARAMETER"),
        ({}, 1, "PARAMETER"),
    ],
)
def test_every_condition_can_fail(parameters, condition, reason):
    device = suit_run.Device(now=100, battery=10, authorized=lambda priority: False, versions={A: (1, 0)})
    commands = ([20, parameters] if parameters else []) + [condition, 15]
    assert why_run(wrap(manifest(commands)), device) == reason


def test_every_condition_can_hold():
    device = suit_run.Device((VENDOR,), (CLASS,), (b"d" * 16,), storage={A: DATA}, slots={A: 2}, versions={A: (1, 0)})
    values = {1: VENDOR, 2: CLASS, 3: DIGEST, 4: 1, 5: 2, 14: 8, 18: DATA, 24: b"d" * 16, 26: 1, 27: 0, 28: d([2, [1]])}
    commands = [20, values]
    for condition in (1, 2, 3, 4, 5, 6, 24, 26, 27, 28):
        commands += [condition, 15]
    run([*commands, 20, {3: suit.dumps(suit.sha256_digest(b"else"))}, 25, 15], device)


def test_invocation_validates_before_it_invokes():
    envelope = suit.decode(wrap(manifest(m7=d([20, {3: DIGEST}, 3, 15]), m9=d([20, {23: b"go"}, 23, 2]))))
    device = suit_run.Device(storage={A: DATA})
    suit_run.invoke(envelope, device)
    assert device.invoked == [(A, b"go")]
    device = suit_run.Device(storage={A: b"bad"})
    with pytest.raises(ToolError):
        suit_run.invoke(envelope, device)
    assert device.invoked == []


def test_a_lower_sequence_number_is_not_run():
    assert why_run(wrap(manifest([3, 15])), suit_run.Device(sequence_number=6)) == "SEQUENCE"


@pytest.mark.parametrize(
    ("actual", "operation", "wanted", "holds"),
    [
        ((1, 5), 3, (1,), True),
        ((1, 9), 5, (1, 10), True),
        ((1, 10), 5, (1, 10), False),
        ((2, 0, -1, 1), 5, (2, 0, 0), True),
        ((1,), 3, (1, 0), True),
        ((1, 2, 3), 1, (1, 2), False),
        ((1, 2, 3), 2, (1, 2), True),
        ((0, 9), 1, (1,), False),
        ((2,), 4, (1,), False),
    ],
)
def test_versions_compare_element_by_element(actual, operation, wanted, holds):
    assert suit_run.compare(operation, actual, wanted) is holds


def test_payloads_in_the_envelope_come_before_the_network():
    device = suit_run.Device(fetch=lambda uri: b"from the network")
    run([20, {21: "local"}, 21, 0], device, payloads={"local": DATA})
    assert device.storage == {A: DATA}
    run([20, {21: "https://x"}, 21, 0], device)
    assert device.storage == {A: b"from the network"}
    assert hashlib.sha256(DATA).digest() in DIGEST
