"""The engine's SUIT interpreter: what it accepts, and the reason of each refusal."""

from hashlib import sha256

from sekisho_boot import cose, suit
from writer import Pairs, Raw, Tag, dumps, faked, refusal, sign1

VENDOR, CLASS, DEVICE = b"V" * 16, b"C" * 16, b"D" * 16
DIGEST, DIGEST2 = b"\x01" * 32, b"\x02" * 32
KEY, KEY2, KEY3 = b"\x0a" * 32, b"\x0b" * 32, b"\x0c" * 32
NOW = 1800000000
SIZE = 1495344
URI = "https://example.com/fw.bin"


class Identity:
    vendor = VENDOR
    classes = (b"O" * 16, CLASS)
    device = DEVICE


class State:
    def __init__(self, counters=(5, 3), running=(5, 3)):
        self.counters = counters
        self.running = running


class Keys:
    revoked_keys = ()
    revoked_manifests = ()

    def __init__(self):
        self.grants = [(KEY, ("fw", "app"), None), (KEY2, ("app",), None), (KEY3, ("fw", "app"), (b"O" * 16,))]
        self.limits = {}

    def release_keys(self):
        return [grant[0] for grant in self.grants]

    def may(self, index, component, product):
        _, components, classes = self.grants[index]
        return component in components and (classes is None or product in classes)

    def limit(self, component):
        return self.limits.get(component, (0, (1 << 63) - 1))


def image(digest=DIGEST):
    return dumps([-16, digest])


def shared_fw(**change):
    values = {1: VENDOR, 2: CLASS, 3: image(), 14: SIZE}
    for key, value in change.items():
        key = int(key[1:])
        if value is None:
            del values[key]
        else:
            values[key] = value
    return [20, values, 1, 15, 2, 15]


def tie(operation=2, version=(3,)):
    return [20, {28: dumps([operation, list(version)])}, 28, 15]


VALIDATE = [3, 15]
INSTALL = [20, {21: URI}, 21, 2, 3, 15]


class Make:
    """A manifest with one thing changed at a time; the default is a firmware-only one with a tie to the app."""

    def __init__(self, components=(b"fw", b"app"), shared=None, install=None, validate=None, sequence=7):
        self.components = [[name] for name in components]
        self.shared = [12, 0] + shared_fw() + [12, 1] + tie() if shared is None else shared
        self.install = [12, 0] + INSTALL if install is None else install
        self.validate = [12, 0] + VALIDATE if validate is None else validate
        self.members = {}
        self.common = {}
        self.sequence = sequence
        self.text = None

    def manifest(self):
        common = {2: self.components, 4: dumps(self.shared)}
        common.update(self.common)
        members = {1: 1, 2: self.sequence, 3: dumps(common), 7: dumps(self.validate)}
        if self.install:
            members[20] = dumps(self.install)
        members.update(self.members)
        return dumps({key: value for key, value in members.items() if value is not None})

    def envelope(self, keys=(KEY,), blocks=None):
        return wrap(self.manifest(), keys, blocks, self.text)


def wrap(manifest, keys=(KEY,), blocks=None, text=None, digest=None, tag=107):
    payload = dumps([-16, sha256(dumps(manifest)).digest()]) if digest is None else digest
    blocks = [sign1(payload, key) for key in keys] if blocks is None else blocks
    members = {2: dumps([payload] + blocks), 3: manifest}
    if text is not None:
        members[23] = text
    return dumps(Tag(tag, members))


def check(envelope, keys=None, state=None, identity=Identity, now=NOW):
    return suit.check(envelope, keys or Keys(), identity, state or State(), now)


def why(envelope, **how):
    if isinstance(envelope, Make):
        envelope = envelope.envelope()
    return refusal(lambda: check(envelope, **how))


def simple(**change):
    """One component, no tie: for a device without an application."""
    return Make((b"fw",), shared_fw(**change), INSTALL, VALIDATE)


ALONE = State((5, 0), (5, 0))


def both(**change):
    shared = [12, 0] + shared_fw() + [12, 1] + shared_fw(p3=image(DIGEST2), p14=4096, **change)
    install = [12, 0] + INSTALL + [12, 1, 20, {21: "app.img"}, 21, 2, 3, 15]
    return Make(shared=shared, install=install, validate=[12, True, 3, 15])


# -- what is accepted ----------------------------------------


@faked
def test_accepts_a_firmware_update():
    made = simple()
    for envelope in (made.envelope(), memoryview(made.envelope()), bytearray(made.envelope())):
        plan = check(envelope, state=ALONE)
        assert plan.sequence == 7
        assert plan.digest == sha256(dumps(made.manifest())).digest()
        assert plan.key == cose.key_id(Keys().release_keys()[0])
        assert plan.use_before is None
        assert [tuple(target) for target in plan.targets] == [(suit.FW, DIGEST, SIZE, URI)]


@faked
def test_accepts_a_firmware_update_that_fits_the_application():
    plan = check(Make().envelope())
    assert [target.component for target in plan.targets] == [suit.FW]


@faked
def test_accepts_an_application_update_that_fits_the_firmware():
    shared = [12, 0] + shared_fw() + [12, 1] + tie(2, (5,))
    plan = check(Make((b"app", b"fw"), shared).envelope())
    assert [target.component for target in plan.targets] == [suit.APP]


@faked
def test_accepts_both_components_under_one_sequence_number():
    plan = check(both().envelope())
    assert [tuple(t) for t in plan.targets] == [(0, DIGEST, SIZE, URI), (1, DIGEST2, 4096, "app.img")]


@faked
def test_fetch_may_be_missing_or_stand_in_payload_fetch():
    made = Make()
    made.install = None
    assert check(made.envelope()).targets[0].uri is None
    made.members = {16: dumps([12, 0] + INSTALL)}
    assert check(made.envelope()).targets[0].uri == URI


@faked
def test_a_device_may_be_named():
    named = shared_fw(p24=DEVICE) + [24, 15]
    assert why(Make((b"fw",), named, INSTALL, VALIDATE), state=ALONE) is None
    other = shared_fw(p24=b"E" * 16) + [24, 15]
    assert why(Make((b"fw",), other, INSTALL, VALIDATE), state=ALONE) == "DEVICE"

    class Nameless(Identity):
        device = None

    assert why(Make((b"fw",), named, INSTALL, VALIDATE), state=ALONE, identity=Nameless) == "DEVICE"


@faked
def test_use_before_ends_a_manifest():
    made = Make((b"fw",), shared_fw(p4=NOW + 1) + [4, 15], INSTALL, VALIDATE)
    assert check(made.envelope(), state=ALONE).use_before == NOW + 1
    assert why(made, state=ALONE, now=NOW + 1) == "EXPIRED_MANIFEST"


@faked
def test_an_installed_envelope_is_judged_without_counters_ties_and_time():
    shared = [12, 0] + shared_fw(p4=1) + [4, 15, 12, 1] + tie(3, (99,))
    envelope = Make(shared=shared, sequence=1).envelope()
    keys = Keys()
    keys.limits = {"fw": (50, 60)}
    assert suit.check(envelope, keys, Identity, None, NOW).sequence == 1
    assert refusal(lambda: suit.check(envelope[:-1], keys, Identity, None, NOW)) == "CBOR"
    app_only = Make((b"app",), shared_fw(), INSTALL, VALIDATE).envelope()
    assert suit.check(app_only, keys, Identity, None, NOW).targets[0].component == suit.APP


@faked
def test_text_and_its_absence_are_both_fine():
    text = dumps({"en": {1: "A release"}})
    made = Make()
    made.members = {4: "https://example.com/fw.suit", 23: [-16, sha256(dumps(text)).digest()]}
    assert why(made) is None
    made.text = text
    assert why(made) is None
    made.text = text + b" "
    assert why(made) == "SEVERABLE"
    made.members = {}
    assert why(made) == "SEVERABLE"


# -- envelope and signatures ----------------------------------------


@faked
def test_refuses_wrong_envelopes():
    good = Make().envelope()
    manifest = Make().manifest()
    wrapper = dumps([image()])
    assert why(wrap(manifest, tag=108)) == "ENVELOPE"
    assert why(good[2:]) == "ENVELOPE"
    assert why(good + b"\0") == "CBOR"
    assert why(b"") == "CBOR"
    assert why(dumps(Tag(107, Pairs([(3, manifest), (2, wrapper)])))) == "ENVELOPE"
    assert why(dumps(Tag(107, {3: manifest}))) == "ENVELOPE"
    assert why(dumps(Tag(107, {2: wrapper}))) == "ENVELOPE"
    assert why(dumps(Tag(107, {}))) == "ENVELOPE"
    for count in (0, 1, 3, 4):  # the head says another number of members than there are
        assert why(good[:2] + bytes((0xA0 | count,)) + good[3:]) in ("ENVELOPE", "CBOR"), count
    assert why(dumps(Tag(107, []))) == "ENVELOPE"
    assert why(dumps(Tag(107, Pairs([(2, wrapper), (2, wrapper)])))) == "ENVELOPE"
    assert why(dumps(Tag(107, {2: wrapper, 3: [manifest]}))) == "ENVELOPE"
    for key in (1, 14, 15, 16, 18, 20, 24, -1):
        assert why(dumps(Tag(107, Pairs([(2, wrapper), (3, manifest), (key, b"")])))) == "ENVELOPE"
    assert why(dumps(Tag(107, Pairs([(2, wrapper), (3, manifest), ("#fw", b"")])))) == "ENVELOPE"
    assert why(dumps(Tag(107, Pairs([(2, wrapper), (3, manifest), (23, b""), (23, b"")])))) == "ENVELOPE"


@faked
def test_refuses_every_truncation():
    good = Make().envelope()
    for end in range(len(good)):
        assert why(good[:end]) == "CBOR"


@faked
def test_refuses_every_flipped_bit():
    good = bytearray(Make().envelope())
    for place in range(len(good)):
        good[place] ^= 1 << place % 8
        assert why(good) is not None
        good[place] ^= 1 << place % 8


@faked
def test_refuses_an_envelope_over_the_limit():
    assert suit.MAX_ENVELOPE == 3992
    assert why(bytes(3993)) == "LIMIT"
    assert why(bytes(3992)) == "ENVELOPE"


@faked
def test_accepts_an_envelope_of_exactly_the_limit_and_not_of_a_byte_more():
    made = Make()
    made.members[4] = "u" * 3000
    made.members[4] += "u" * (3992 - len(made.envelope()))
    assert len(made.envelope()) == 3992
    assert check(made.envelope()).sequence == 7
    made.members[4] += "u"
    assert len(made.envelope()) == 3993
    assert why(made) == "LIMIT"


@faked
def test_refuses_wrong_wrappers():
    manifest = Make().manifest()
    digest = sha256(dumps(manifest)).digest()
    good = dumps([-16, digest])

    def wrapped(content):
        return dumps(Tag(107, {2: content, 3: manifest}))

    assert why(wrapped(dumps([]))) == "ENVELOPE"
    assert why(wrapped(b"")) == "CBOR"
    assert why(wrapped(dumps([good]))) == "KEY_UNKNOWN"
    assert why(wrapped(dumps([good, sign1(good, KEY)]))) is None
    assert why(wrapped(dumps([good, sign1(good, KEY)]) + b"\0")) == "CBOR"
    assert why(wrapped(dumps([good, [1]]))) == "ENVELOPE"
    for wrong in ([-43, digest], [-16, digest[:31]], [-16, digest + b"\0"], [-16, digest, 1], [-16], [digest, -16]):
        payload = dumps(wrong)
        assert why(wrapped(dumps([payload, sign1(payload, KEY)]))) == "ENVELOPE"
    payload = good + b"\0"
    assert why(wrapped(dumps([payload, sign1(payload, KEY)]))) == "CBOR"


@faked
def test_refuses_a_manifest_that_was_changed_after_signing():
    manifest = Make().manifest()
    digest = dumps([-16, sha256(dumps(manifest)).digest()])
    assert why(wrap(Make(sequence=8).manifest(), digest=digest)) == "MANIFEST_DIGEST"
    headless = dumps([-16, sha256(manifest).digest()])
    assert why(wrap(manifest, digest=headless)) == "MANIFEST_DIGEST"


@faked
def test_nothing_of_the_manifest_is_read_before_its_signature():
    assert why(wrap(b"\xff", keys=(b"stranger" * 4,))) == "KEY_UNKNOWN"
    assert why(wrap(b"\xff")) == "CBOR"


@faked
def test_one_trusted_signature_among_several_is_enough():
    made = Make()
    payload = dumps([-16, sha256(dumps(made.manifest())).digest()])
    good = sign1(payload, KEY)
    foreign = [sign1(payload, KEY, alg=-9), dumps(Tag(17, [1, 2, 3])), sign1(payload, b"stranger" * 4)]
    forged = sign1(payload + b"\0", KEY)
    assert why(made.envelope(blocks=foreign + [good])) is None
    assert why(made.envelope(blocks=[good] + foreign)) is None
    assert why(made.envelope(blocks=[forged, good])) is None
    assert why(made.envelope(blocks=foreign + [forged, good])) == "LIMIT"
    assert why(made.envelope(blocks=[good, b"\x00"])) == "COSE"
    assert why(made.envelope(blocks=[good[1:]])) == "COSE"  # untagged
    # and without one, the most telling reason is given
    assert why(made.envelope(blocks=foreign)) == "KEY_UNKNOWN"
    assert why(made.envelope(blocks=foreign[:2])) == "ALGORITHM"
    assert why(made.envelope(blocks=foreign[:1])) == "ALGORITHM"
    assert why(made.envelope(blocks=[])) == "KEY_UNKNOWN"
    assert why(made.envelope(blocks=foreign + [forged])) == "SIGNATURE"
    assert why(made.envelope(blocks=[forged] + foreign)) == "SIGNATURE"


@faked
def test_refuses_revoked_keys_and_manifests():
    keys = Keys()
    keys.revoked_keys = (cose.key_id(KEY),)
    assert why(Make(), keys=keys) == "KEY_REVOKED"
    assert why(Make().envelope(keys=(KEY, KEY2)), keys=keys) == "KEY_RIGHTS"
    keys = Keys()
    keys.revoked_manifests = (sha256(dumps(Make().manifest())).digest(),)
    assert why(Make(), keys=keys) == "MANIFEST_REVOKED"


@faked
def test_a_key_signs_only_for_its_components_and_classes():
    app_only = Make((b"app", b"fw"), [12, 0] + shared_fw() + [12, 1] + tie())
    assert check(app_only.envelope(keys=(KEY2,))).key == cose.key_id(KEY2)
    assert why(Make().envelope(keys=(KEY2,))) == "KEY_RIGHTS"
    assert why(both().envelope(keys=(KEY2,))) == "KEY_RIGHTS"
    assert why(Make().envelope(keys=(KEY3,))) == "KEY_RIGHTS"
    assert why(both().envelope(keys=(KEY2, KEY3))) == "KEY_RIGHTS"  # no adding up of rights
    assert check(both().envelope(keys=(KEY3, KEY2, KEY))).key == cose.key_id(KEY)
    other_class = Make((b"fw",), shared_fw(p2=b"O" * 16), INSTALL, VALIDATE)
    assert check(other_class.envelope(keys=(KEY3,)), state=ALONE).key == cose.key_id(KEY3)


# -- manifest members ----------------------------------------


def why_members(**members):
    made = Make()
    made.members = {int(key[1:]): value for key, value in members.items()}
    return why(made)


@faked
def test_refuses_other_manifest_versions():
    assert why_members(m1=2) == "MANIFEST_VERSION"
    assert why_members(m1=0) == "MANIFEST_VERSION"
    assert why_members(m1=None) == "MANIFEST"
    assert why_members(m1="1") == "MANIFEST"
    assert why_members(m1=2, m99=1) == "MANIFEST_VERSION"


@faked
def test_refuses_missing_and_unknown_members():
    for name in ("m2", "m3", "m7"):
        assert why_members(**{name: None}) == "MANIFEST"
    for key in (0, 5, 6, 8, 9, 14, 15, 18, 19, 24, 25, 99):
        assert why_members(**{"m%d" % key: b"\x82\x03\x0f"}) == "MANIFEST", key
    assert why(wrap(dumps(Pairs([(1, 1), ("a", 1)])))) == "MANIFEST"
    assert why(wrap(dumps([1, 1]))) == "MANIFEST"


@faked
def test_refuses_wrong_member_types():
    assert why_members(m2=-1) == "MANIFEST"
    assert why_members(m2=b"1") == "MANIFEST"
    assert why_members(m3={2: [[b"fw"]]}) == "MANIFEST"
    assert why_members(m4=b"uri") == "MANIFEST"
    assert why_members(m4="\u00fc") == "MANIFEST"
    assert why_members(m7=1) == "MANIFEST"
    assert why_members(m23=b"text") == "MANIFEST"
    assert why_members(m23=[-43, b"1" * 32]) == "MANIFEST"
    assert why_members(m23=[-16, b"1" * 31]) == "MANIFEST"


@faked
def test_refuses_severed_members():
    for name in ("m7", "m16"):
        assert why_members(**{name: [-16, DIGEST]}) == "SEVERABLE"


@faked
def test_a_severed_install_sequence_is_the_agents_business():
    assert why_members(m20=[-16, DIGEST]) is None
    assert why_members(m20=[-16, DIGEST[1:]]) == "MANIFEST"
    assert why_members(m20=[-43, DIGEST]) == "MANIFEST"
    made = Make()
    made.members = {20: [-16, DIGEST]}
    assert suit.check(made.envelope(), Keys(), Identity, State(), NOW).targets[0].uri is None


@faked
def test_what_the_agent_fetches_is_a_component_that_the_engine_does_not_touch():
    def packed(*names, **change):
        made = Make(**change)
        made.components = [[name] if isinstance(name, bytes) else list(name) for name in names]
        made.members = {20: [-16, DIGEST]}
        return why(made)

    fw, app = (b"fw", b"packed"), (b"app", b"packed")
    assert packed(b"fw", b"app", fw) is None
    assert packed(b"fw", b"app", fw, app) is None
    assert packed(b"fw", fw, shared=[12, 0] + shared_fw(), validate=[12, 0] + VALIDATE) == "VERSION_TIE"
    assert packed(b"fw", b"app", fw, fw) == "COMPONENT"
    assert packed(fw, b"fw", b"app") == "COMPONENT"  # what it belongs to comes first
    assert packed(b"fw", app) == "COMPONENT"
    assert packed(fw) == "COMPONENT"
    for other in ((b"fw", b"other"), (b"packed", b"fw"), ()):
        assert packed(b"fw", b"app", other) == "COMPONENT"
    assert packed(b"fw", b"app", (b"fw", b"packed", b"")) == "LIMIT"
    for commands in ([12, 2] + VALIDATE, [12, 2] + tie(), [12, 2, 20, {14: 5}]):
        assert packed(b"fw", b"app", fw, validate=[12, 0] + VALIDATE + commands) == "COMPONENT"
    both = [12, True, 20, {1: VENDOR, 2: CLASS}, 1, 15, 2, 15, 12, 0, 20, {3: image(), 14: SIZE}, 12, 1] + tie()
    assert packed(b"fw", b"app", fw, shared=both) is None  # every component that is the engine's


@faked
def test_refuses_unsorted_and_trailing_bytes_everywhere():
    made = Make()
    manifest = made.manifest()
    assert why(wrap(manifest + b"\0")) == "CBOR"
    assert why(wrap(dumps(Pairs([(2, 7), (1, 1)])))) == "CBOR"
    common = dumps({2: made.components, 4: dumps(made.shared)})
    assert why_members(m3=common + b"\0") == "CBOR"
    assert why_members(m7=dumps(made.validate) + b"\0") == "CBOR"
    assert why_members(m20=dumps(made.install) + b"\0") == "CBOR"
    assert why_members(m3=dumps({2: made.components, 4: dumps(made.shared) + b"\0"})) == "CBOR"
    assert why(simple(p3=image() + b"\0"), state=ALONE) == "CBOR"
    assert why(simple(p28=dumps([2, [1]]) + b"\0"), state=ALONE) == "CBOR"


@faked
def test_refuses_sequence_numbers_over_63_bits():
    assert why(Make(sequence=(1 << 63) - 1)) is None
    assert why(Make(sequence=1 << 63)) == "LIMIT"
    assert why(Make(sequence=(1 << 64) - 1)) == "LIMIT"


# -- components ----------------------------------------


@faked
def test_refuses_wrong_components():
    for components in (
        (),
        (b"fw", b"fw"),
        (b"fw", b"app", b"fw"),
        (b"fw", b"cfg"),
        (b"fw", b"APP"),
        (b"fw\0", b"app"),
        (b"", b"app"),
    ):
        assert why(Make(components)) == "COMPONENT", components
    made = Make()
    for components in ([[b"fw"], []], [[b"fw"], [b"app", b"app"]], [[b"fw", b"0"]]):
        made.components = components
        assert why(made) == "COMPONENT"
    for components in ([b"fw"], b"fw", {}, [["fw"]]):
        made.components = components
        assert why(made) == "MANIFEST"


@faked
def test_refuses_wrong_common_sections():
    made = Make()
    for key, value in ((1, {0: {}}), (3, b""), (0, 0), (5, 1)):
        made.common = {key: value}
        assert why(made) == "MANIFEST"
    assert why_members(m3=dumps({2: made.components})) == "MANIFEST"
    assert why_members(m3=dumps({4: dumps(made.shared)})) == "COMPONENT"


@faked
def test_every_sequence_of_two_components_begins_with_an_index():
    assert why(Make(validate=VALIDATE)) == "COMPONENT"
    assert why(Make(install=INSTALL + [12, 0])) == "COMPONENT"
    assert why(Make(shared=shared_fw() + [12, 1] + tie())) == "COMPONENT"


@faked
def test_refuses_wrong_indices():
    for argument in (2, 255, (1 << 64) - 1):
        assert why(Make(validate=[12, argument] + VALIDATE)) == "COMPONENT"
    for argument in (-1, False, None, [0], [0, 0], [], "0", b"\0"):
        assert why(Make(validate=[12, argument] + VALIDATE)) == "COMMAND"
    assert why(Make((b"fw",), shared_fw(), [12, 1] + INSTALL, VALIDATE), state=ALONE) == "COMPONENT"


@faked
def test_a_component_without_a_part_is_refused():
    assert why(Make(shared=[12, 0] + shared_fw())) == "COMPONENT"
    assert why(Make(shared=[12, 0] + tie() + [12, 1] + tie(), install=[12, 0] + tie(), validate=[12, 0] + tie())) == (
        "COMPONENT"
    )
    with_vendor = [12, 0] + shared_fw() + [12, 1, 20, {1: VENDOR}, 1, 15]
    assert why(Make(shared=with_vendor)) == "COMPONENT"


@faked
def test_parameters_of_one_component_do_not_count_for_the_other():
    # the conditions of `app` are asked of `fw`
    shared = [12, 0] + shared_fw() + [12, 1, 20, {1: VENDOR, 2: CLASS, 3: image(DIGEST2), 14: 9}, 12, 0, 1, 15, 2, 15]
    assert why(Make(shared=shared, validate=[12, True, 3, 15])) == "PARAMETER"
    shared = [12, 0, 20, {1: VENDOR, 2: CLASS, 3: image(), 14: SIZE}, 12, 1, 1, 15, 2, 15]
    assert why(Make(shared=shared)) == "PARAMETER"
    shared = [12, 0, 20, {1: VENDOR, 2: CLASS}, 1, 15, 2, 15, 12, 1, 20, {3: image(), 14: SIZE}]
    assert why(Make(shared=shared, validate=[12, 1, 3, 15], install=[12, 1, 3, 15])) == "COMPONENT"


@faked
def test_true_means_every_component():
    shared = [12, True, 20, {1: VENDOR, 2: CLASS}, 1, 15, 2, 15]
    shared += [12, 0, 20, {3: image(), 14: SIZE}, 12, 1, 20, {3: image(DIGEST2), 14: 9}]
    assert why(Make(shared=shared, install=[12, 0] + INSTALL, validate=[12, True, 3, 15])) is None
    assert why(Make(shared=shared, install=[12, 0] + INSTALL, validate=[12, 0, 3, 15])) == "PARAMETER"


# -- commands ----------------------------------------


def why_install(commands):
    return why(Make(install=[12, 0] + commands))


@faked
def test_refuses_every_other_command():
    known = (1, 2, 3, 4, 12, 20, 21, 24, 28)
    for command in list(range(-2, 40)) + [99, 255, 256, -257, -(1 << 64), (1 << 64) - 1]:
        if command not in known:
            for argument in (15, b"\x82\x03\x0f", [b"\x82\x03\x0f", None], {1: b""}):
                assert why_install([command, argument]) == "COMMAND", command


@faked
def test_refuses_fetch_where_nothing_is_fetched():
    assert why(Make(shared=[12, 0] + shared_fw() + INSTALL + [12, 1] + tie())) == "COMMAND"
    assert why(Make(validate=[12, 0, 21, 2, 3, 15])) == "COMMAND"


@faked
def test_refuses_odd_and_empty_sequences():
    for sequence in ([], [3], [12, 0, 3], [3, 15, 3]):
        assert why(Make(validate=sequence)) == "COMMAND"
        assert why_members(m16=dumps(sequence)) == "COMMAND"
        assert why(Make(shared=sequence)) == "COMMAND"
    assert why_members(m7=b"") == "CBOR"
    assert why_members(m7=dumps({3: 15})) == "COMMAND"
    assert why_members(m7=dumps(["a", 15])) == "COMMAND"
    assert why_install([3, 15] * 63) is None
    assert why_install([3, 15] * 64) == "LIMIT"


@faked
def test_refuses_wrong_reporting_policies():
    assert why_install([3, 0]) is None
    for policy in (16, 255, -1, None, b"", "15", [15]):
        assert why_install([3, policy]) == "COMMAND"
        assert why_install([20, {21: URI}, 21, policy]) == "COMMAND"


@faked
def test_a_condition_is_judged_against_the_parameters_of_its_time():
    late = [1, 15, 20, {1: VENDOR, 2: CLASS, 3: image(), 14: SIZE}, 2, 15]
    assert why(Make((b"fw",), late, INSTALL, VALIDATE), state=ALONE) == "PARAMETER"
    late = [20, {1: VENDOR, 2: CLASS, 3: image()}, 1, 15, 2, 15, 3, 15, 20, {14: SIZE}]
    assert why(Make((b"fw",), late, INSTALL, VALIDATE), state=ALONE) == "PARAMETER"
    late = [21, 2, 20, {21: URI}, 3, 15]
    assert why(Make((b"fw",), shared_fw(), late, VALIDATE), state=ALONE) == "PARAMETER"


@faked
def test_an_image_must_be_matched_in_validate():
    assert why(Make(validate=[12, 0, 1, 15])) == "COMMAND"
    assert why(Make((b"fw",), shared_fw() + [3, 15], INSTALL, [1, 15]), state=ALONE) == "COMMAND"


# -- parameters ----------------------------------------


@faked
def test_refuses_images_for_others():
    assert why(simple(p1=b"X" * 16), state=ALONE) == "VENDOR"
    assert why(simple(p2=b"X" * 16), state=ALONE) == "CLASS"


@faked
def test_a_target_needs_vendor_class_digest_and_size():
    for name in ("p1", "p2", "p14"):
        assert why(simple(**{name: None}), state=ALONE) == "PARAMETER"
    # the parameter without its condition, and neither of them
    for wanted in ([1, 15], [2, 15]):
        shared = shared_fw()[:2] + wanted
        assert why(Make((b"fw",), shared, INSTALL, VALIDATE), state=ALONE) == "PARAMETER"
    for key, code in ((1, 2), (2, 1)):
        values = shared_fw()[1]
        del values[key]
        assert why(Make((b"fw",), [20, values, code, 15], INSTALL, VALIDATE), state=ALONE) == "PARAMETER"
    assert why(Make((b"fw",), shared_fw(p3=None), INSTALL, [1, 15]), state=ALONE) == "PARAMETER"


@faked
def test_a_parameter_that_nothing_asks_for_is_refused():
    for name, value in (("p4", NOW + 9), ("p24", DEVICE), ("p28", dumps([2, [1]])), ("p21", URI)):
        made = Make((b"fw",), shared_fw(**{name: value}), [3, 15], VALIDATE)
        assert why(made, state=ALONE) == "PARAMETER", name


@faked
def test_a_parameter_has_one_value():
    for key, value in ((1, b"X" * 16), (2, b"O" * 16), (3, image(DIGEST2)), (14, SIZE - 1)):
        assert why_install([20, {key: value}]) == "PARAMETER"
    assert why_install([20, {3: image()}]) is None
    assert why_install(INSTALL + [20, {21: "other"}]) == "PARAMETER"


@faked
def test_refuses_every_other_parameter():
    for key in list(range(32)) + [200, -257]:
        if key not in (1, 2, 3, 4, 14, 21, 24, 28):
            assert why_install([20, {key: 1}]) == "PARAMETER", key


@faked
def test_refuses_parameters_of_which_there_are_none():
    assert why_install([20, {}, 3, 15]) == "PARAMETER"
    assert why_install([20, {21: "u"}, 20, {}]) == "PARAMETER"


@faked
def test_refuses_wrong_parameter_types():
    wrong = (
        (1, "text"),
        (1, b"V" * 15),
        (1, b"V" * 17),
        (1, Tag(112, b"V" * 16)),
        (2, 1),
        (3, [-16, DIGEST]),
        (3, dumps([-43, DIGEST])),
        (3, dumps([-16, DIGEST[:31]])),
        (3, dumps([-16, DIGEST, 0])),
        (3, dumps({})),
        (4, -1),
        (14, -1),
        (14, b""),
        (21, b"uri"),
        (21, "\u00fc"),
        (21, "a\nb"),
        (24, b""),
        (28, [2, [1]]),
        (28, dumps([0, [1]])),
        (28, dumps([6, [1]])),
        (28, dumps([2, []])),
        (28, dumps([2, [1, 0]])),
        (28, dumps([2, [-1]])),
        (28, dumps([2, 1])),
        (28, dumps([2])),
    )
    for key, value in wrong:
        assert why_install([20, {key: value}]) == "PARAMETER", key
    for value in (dumps([0, [1]]), dumps([6, [1]]), dumps([2, [1, 0]]), dumps([2, [-1]])):
        made = Make(shared=[12, 0] + shared_fw() + [12, 1, 20, {28: value}, 28, 15])
        assert why(made) == "PARAMETER"
    assert why_install([20, 15]) == "PARAMETER"
    assert why_install([20, [21, URI]]) == "PARAMETER"
    assert why_install([20, {"a": 1}]) == "PARAMETER"
    assert why_install([20, {3: b""}]) == "CBOR"
    assert why_install([20, {21: Raw(b"\x61\xff")}]) == "PARAMETER"
    assert why_install([20, Pairs([(21, URI), (21, URI)])]) == "CBOR"
    assert why_install([20, Pairs([(21, URI), (14, SIZE)])]) == "CBOR"


@faked
def test_refuses_parameters_over_their_limits():
    assert why(simple(p14=1 << 24), state=ALONE) is None
    assert why(simple(p14=1), state=ALONE) is None
    assert why_install([20, {21: "u"}, 21, 2]) is None
    for size in (0, (1 << 24) + 1, 1 << 31, (1 << 64) - 1):
        assert why(simple(p14=size), state=ALONE) == "IMAGE_SIZE"
    assert why_install([20, {21: "u" * 255}, 21, 2]) is None
    assert why_install([20, {21: "u" * 256}]) == "LIMIT"
    assert why_install([20, {21: ""}]) == "LIMIT"
    assert why_install([20, {4: 1 << 63}]) == "LIMIT"
    assert why_install([20, {28: dumps([1, [1 << 63]])}]) == "LIMIT"


# -- counters, limits, ties ----------------------------------------


@faked
def test_a_lower_sequence_number_is_refused():
    assert why(Make(sequence=4)) == "SEQUENCE"
    assert why(Make(sequence=5)) is None
    assert why(Make(sequence=0), state=State((0, 0), (0, 3))) == "SEQUENCE"
    assert why(Make(sequence=1), state=State((0, 0), (0, 3))) is None
    high = State((5, 9), (5, 9))
    assert why(both(), state=high) == "SEQUENCE"  # one number for both, proven for both
    assert why(Make(sequence=1 << 62), state=State(((1 << 63) - 1, 3), (5, 3))) == "SEQUENCE"


@faked
def test_floor_and_ceiling_of_the_component_hold():
    for limits, reason in (((7, 7), None), ((8, 9), "FLOOR"), ((0, 6), "CEILING")):
        keys = Keys()
        keys.limits = {"fw": limits}
        assert why(Make(), keys=keys) == reason
        keys.limits = {"app": limits}
        assert why(Make(), keys=keys) is None
        assert why(both(), keys=keys) == reason


@faked
def test_every_comparison_of_a_tie():
    for running in (2, 3, 4):
        for operation, fits in enumerate((running > 3, running >= 3, running == 3, running <= 3, running < 3)):
            made = Make(shared=[12, 0] + shared_fw() + [12, 1] + tie(operation + 1))
            state = State((5, running), (5, running))
            assert why(made, state=state) == (None if fits else "VERSION_TIE")


@faked
def test_a_tie_may_be_a_range():
    def between(low, high):
        return Make(shared=[12, 0] + shared_fw() + [12, 1] + tie(2, (low,)) + tie(4, (high,)))

    assert why(between(2, 3)) is None
    assert why(between(3, 9)) is None
    assert why(between(4, 9)) == "VERSION_TIE"
    assert why(between(1, 2)) == "VERSION_TIE"
    unasked = [12, 0] + shared_fw() + [12, 1, 20, {28: dumps([3, [99]])}] + tie()
    assert why(Make(shared=unasked)) == "PARAMETER"
    assert why(Make(shared=[12, 0] + shared_fw() + [12, 1] + tie() + [20, {28: dumps([3, [99]])}])) == "PARAMETER"


@faked
def test_firmware_must_name_the_application_that_runs():
    assert why(simple(), state=ALONE) is None
    assert why(simple()) == "VERSION_TIE"


@faked
def test_an_application_must_name_its_firmware():
    app_only = Make((b"app",), shared_fw(), INSTALL, VALIDATE)
    assert why(app_only) == "VERSION_TIE"
    assert why(app_only, state=ALONE) == "VERSION_TIE"
    tied = Make((b"app", b"fw"), [12, 0] + shared_fw() + [12, 1] + tie(2, (6,)))
    assert why(tied) == "VERSION_TIE"
    assert why(tied, state=State((5, 3), (0, 0))) == "VERSION_TIE"


@faked
def test_a_tie_to_an_application_that_is_not_there_holds():
    assert why(Make(), state=ALONE) is None


@faked
def test_a_tie_has_nothing_that_a_target_has():
    for extra in ([20, {14: 5}], [20, {14: 5, 1: VENDOR}, 1, 15]):
        assert why(Make(shared=[12, 0] + shared_fw() + [12, 1] + tie() + extra)) == "PARAMETER"
    assert why(Make(install=[12, 0] + INSTALL + [12, 1, 20, {21: URI}, 21, 2])) == "PARAMETER"


@faked
def test_a_component_is_either_tied_or_replaced():
    shared = shared_fw() + tie(2, (1,))
    assert why(Make((b"fw",), shared, INSTALL, VALIDATE), state=ALONE) == "COMMAND"


REQUIREMENTS = {
    "test_nothing_of_the_manifest_is_read_before_its_signature": ("UPE11", "UPC01"),
    "test_refuses_every_flipped_bit": ("UPE11", "UPC01"),
    "test_refuses_images_for_others": ("UPE11",),
    "test_a_key_signs_only_for_its_components_and_classes": ("UPE11",),
    "test_refuses_revoked_keys_and_manifests": ("UPC05",),
    "test_a_lower_sequence_number_is_refused": ("UPC02",),
    "test_floor_and_ceiling_of_the_component_hold": ("UPC05",),
}
