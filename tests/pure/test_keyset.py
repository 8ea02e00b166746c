"""Key sets: what a device takes, and the reason of each refusal. Signatures are the stand-in of writer.py."""

from sekisho_boot import cose, keyset
from writer import Pairs, Raw, Tag, dumps, fake_sign, faked, refusal

R1, R2, R3, R4 = [bytes([i] * 32) for i in (1, 2, 3, 4)]
S1, S2, O1 = [bytes([i] * 32) for i in (11, 12, 21)]
STRANGER = bytes([99] * 32)
CLASS_A, CLASS_B = b"a" * 16, b"b" * 16
LAST = (1 << 63) - 1


def members(**changes):
    """The members of a key set by their numbers; ``m5=...`` replaces one, ``m5=None`` leaves it out."""
    made = {
        1: 7,
        2: 1000,
        3: 2000,
        4: 1,
        5: [1, [R1]],
        6: [{1: S1, 2: ["fw", "app"]}],
        7: [{1: O1, 2: [1, 3], 3: [CLASS_A]}],
        8: [],
        9: [],
        10: {"fw": [3, 900], "app": [0, LAST]},
        11: 0,
    }
    for name, value in changes.items():
        made[int(name[1:])] = value
    return {key: value for key, value in made.items() if value is not None}


def document(content, signers=(R1,)):
    payload = content if isinstance(content, bytes) else dumps(content)
    protected = dumps({1: -19})
    entries = []
    for key in signers:
        made = fake_sign(key, dumps(["Signature", b"", protected, b"", payload]))
        entries.append([protected, {4: cose.key_id(key)}, made])
    return dumps(Tag(98, [b"", Raw(b"\xa0"), payload, entries]))


def make(signers=(R1,), **changes):
    return document(members(**changes), signers)


def why_parse(**changes):
    return refusal(keyset.parse, make(**changes))


def why_accept(old, new):
    return refusal(keyset.accept, keyset.parse(old), new)


def test_reads_every_member():
    settings = {"b": [1], "aa": None}
    data = make(m9=[b"d" * 32], m8=[b"k" * 8], m12={1: [-19], 3: [-65534]}, m13=settings)
    found = keyset.parse(memoryview(data))
    assert (found.version, found.issued_at, found.expires, found.environment) == (7, 1000, 2000, 1)
    assert (found.threshold, list(found.roots)) == (1, [R1])
    assert found.release == [(S1, ("fw", "app"), None)]
    assert found.operators == [(O1, (1, 3), (CLASS_A,))]
    assert list(found.revoked_keys) == [b"k" * 8]
    assert list(found.revoked_manifests) == [b"d" * 32]
    assert found.limits == {"fw": (3, 900), "app": (0, LAST)}
    assert found.hw_floor == 0
    assert bytes(found.settings) == dumps(settings)
    assert found.document == data
    assert bytes(found.payload) in data
    assert len(found.digest) == 32
    assert keyset.parse(make()).settings is None


def test_expires_at_its_last_second():
    found = keyset.parse(make())
    assert not found.expired(1999)
    assert found.expired(2000)
    assert found.expired(LAST)


def test_rights_hold_per_component_and_class():
    found = keyset.parse(make(m6=[{1: S1, 2: ["fw"], 3: [CLASS_A]}, {1: S2, 2: ["app"]}]))
    assert found.release_keys() == [S1, S2]
    assert found.may(0, "fw", CLASS_A)
    assert found.may(0, "fw", memoryview(CLASS_A))
    assert not found.may(0, "fw", CLASS_B)
    assert not found.may(0, "app", CLASS_A)
    assert found.may(1, "app", CLASS_B)
    assert not found.may(1, "fw", CLASS_B)


def test_limits_hold_per_component_and_default_to_none():
    found = keyset.parse(make(m10={"fw": [3, 900]}))
    assert found.limit("fw") == (3, 900)
    assert found.limit("app") == (0, LAST)


def test_knows_revoked_keys():
    found = keyset.parse(make(m8=[cose.key_id(S2)]))
    assert found.revoked_keys == (cose.key_id(S2),)


def test_the_policy_says_which_algorithms_are_allowed():
    found = keyset.parse(make(m12={2: [-16, -44], 3: [-65532]}))
    assert found.allows(keyset.SIGNATURES, -19)
    assert found.allows(keyset.DIGESTS, -44)
    assert not found.allows(keyset.DIGESTS, -43)
    assert found.allows(keyset.CONTENT, -65532)
    assert not found.allows(keyset.CONTENT, -65534)
    assert keyset.parse(make()).allows(keyset.CONTENT, -65534)


def test_refuses_a_policy_that_this_engine_cannot_follow():
    assert why_parse(m12={1: [-9]}) == "ALGORITHM"
    assert why_parse(m12={1: []}) == "ALGORITHM"
    assert why_parse(m12={2: [-44]}) == "ALGORITHM"
    assert why_parse(m12={1: [-9, -19], 2: [-16], 3: []}) is None


def test_refuses_missing_and_unknown_members():
    for number in range(1, 12):
        assert why_parse(**{"m%d" % number: None}) == "KEYSET", number
    assert why_parse(m0=0) == "KEYSET"
    assert why_parse(m14=0) == "KEYSET"
    assert why_parse(m12={}, m13={}, m14={}) == "LIMIT"
    assert why_parse(m12={4: [1]}) == "KEYSET"
    assert why_parse(m12={0: [1]}) == "KEYSET"


def test_refuses_unsorted_and_doubled_members():
    good = sorted(members().items())
    assert refusal(keyset.parse, document(dumps(Pairs(good)))) is None
    assert refusal(keyset.parse, document(dumps(Pairs([good[1], good[0]] + good[2:])))) == "KEYSET"
    assert refusal(keyset.parse, document(dumps(Pairs(good[:1] + good)))) == "KEYSET"
    for extra in ([(13, {}), (12, {})], [(12, {}), (12, {})], [(13, {}), (13, {})]):
        assert refusal(keyset.parse, document(dumps(Pairs(good + extra)))) == "KEYSET"
    app, fw = ("app", [0, 1]), ("fw", [0, 1])
    assert why_parse(m10=Pairs([fw, app])) is None  # shorter text first
    assert why_parse(m10=Pairs([app, fw])) == "KEYSET"
    assert why_parse(m10=Pairs([fw, fw])) == "KEYSET"
    assert why_parse(m12=Pairs([(2, [-16]), (1, [-19])])) == "CBOR"
    assert why_parse(m6=[Pairs([(2, ["fw"]), (1, S1)])]) == "CBOR"


def test_refuses_members_of_a_wrong_type():
    for number in range(1, 13):
        for wrong in ("text", b"bytes", -1, None, [None], {"a": 1}, [[]], True):
            if (number, wrong) != (12, None):
                changed = members()
                changed[number] = wrong
                assert refusal(keyset.parse, document(changed)) in ("CBOR", "KEYSET"), (number, wrong)
    for wrong in (0, [], "text", b""):
        assert why_parse(m13=wrong) == "KEYSET"


def test_refuses_wrong_sizes():
    for size in (0, 31, 33):
        assert why_parse(m5=[1, [b"r" * size]]) == "KEYSET"
        assert why_parse(m6=[{1: b"r" * size, 2: ["fw"]}]) == "KEYSET"
        assert why_parse(m7=[{1: b"r" * size, 2: [1]}]) == "KEYSET"
        assert why_parse(m9=[b"r" * size]) == "KEYSET"
    for size in (7, 9):
        assert why_parse(m8=[b"k" * size]) == "KEYSET"
    for size in (15, 17):
        assert why_parse(m6=[{1: S1, 2: ["fw"], 3: [b"c" * size]}]) == "KEYSET"
    for name in ("", "x" * 17):
        assert why_parse(m6=[{1: S1, 2: [name]}]) == "KEYSET"
        assert why_parse(m10={name: [0, 1]}) == "KEYSET"


def test_names_have_1_to_16_characters():
    for name in ("x", "x" * 16):
        assert keyset.parse(make(m6=[{1: S1, 2: [name]}], m10={name: [0, 1]})).limit(name) == (0, 1)


def test_what_a_head_announces_is_what_counts():
    """Documents that a parser which reads on regardless of counts and labels would take."""
    good = dumps(members())
    grant = b"\x82bfwcapp\x07"
    for was, now in (
        (b"\x05\x82\x01\x81X ", b"\x05\x81\x01\x81X "),  # [threshold], [keys] behind it
        (b"bfw\x82\x03", b"bfw\x81\x03"),  # [floor], ceiling behind it
        (b"\x06\x81\xa2", b"\x06\x81\xa3"),  # with the next line: an unknown label whose value is member 7's key
    ):
        changed = good.replace(was, now)
        if now[-1] == 0xA3:
            changed = changed.replace(grant, grant[:-1] + b"\x04\x07")
        assert changed != good
        assert refusal(keyset.parse, document(changed)) == "KEYSET"


def test_refuses_incomplete_grants():
    assert why_parse(m6=[{1: S1}]) == "KEYSET"
    assert why_parse(m6=[{2: ["fw"]}]) == "KEYSET"
    assert why_parse(m6=[{1: S1, 2: []}]) == "KEYSET"
    assert why_parse(m6=[{1: S1, 2: ["fw"], 4: 0}]) == "KEYSET"
    assert why_parse(m7=[{1: S1, 2: ["fw"]}]) == "KEYSET"
    assert why_parse(m6=[{1: S1, 2: [1]}]) == "KEYSET"


def test_refuses_contradictions():
    assert why_parse(m1=0) == "KEYSET"
    assert why_parse(m2=2000) == "KEYSET"
    assert why_parse(m4=0) == "KEYSET"
    assert why_parse(m4=3) == "KEYSET"
    assert why_parse(m5=[0, [R1]]) == "KEYSET"
    assert why_parse(m5=[2, [R1]]) == "KEYSET"
    assert why_parse(m5=[1, []]) == "KEYSET"
    assert why_parse(m5=[1, [R1], 0]) == "LIMIT"
    assert why_parse(m10={"fw": [5, 4]}) == "KEYSET"
    assert why_parse(m10={"fw": [5, 5]}) is None
    assert why_parse(m10={"fw": [5]}) == "KEYSET"


def test_numbers_end_at_2_to_the_63():
    assert why_parse(m1=LAST, m3=LAST, m10={"fw": [LAST, LAST]}, m11=LAST) is None
    for number in (1, 2, 3, 4, 11):
        assert why_parse(**{"m%d" % number: LAST + 1}) == "KEYSET"
    assert why_parse(m10={"fw": [0, LAST + 1]}) == "KEYSET"


def test_counts_are_limited():
    def keys(count, first):
        return [bytes([first, i] * 16) for i in range(count)]

    assert why_parse(m5=[1, keys(8, 200)]) is None
    assert why_parse(m5=[1, keys(9, 200)]) == "LIMIT"
    assert why_parse(m6=[{1: key, 2: ["fw"]} for key in keys(16, 201)]) is None
    assert why_parse(m6=[{1: key, 2: ["fw"]} for key in keys(17, 201)]) == "LIMIT"
    assert why_parse(m7=[{1: key, 2: [1]} for key in keys(17, 202)]) == "LIMIT"
    assert why_parse(m7=[{1: S2, 2: list(range(9))}]) == "LIMIT"
    assert why_parse(m6=[{1: S1, 2: ["fw"], 3: [CLASS_A] * 17}]) == "LIMIT"
    assert why_parse(m8=[bytes([i] * 8) for i in range(64)], m9=[bytes(32)] * 64) is None
    assert why_parse(m8=[bytes([i] * 8) for i in range(65)]) == "LIMIT"
    assert why_parse(m9=[bytes(32)] * 65) == "LIMIT"
    assert why_parse(m10={"c%d" % i: [0, 1] for i in range(9)}) == "LIMIT"


def test_the_counts_inside_members_are_limited():
    assert why_parse(m6=[{1: S1, 2: ["fw"], 3: [CLASS_A], 4: 0}]) == "LIMIT"
    assert why_parse(m10={"fw": [3, 900, 0]}) == "LIMIT"
    assert why_parse(m12={1: [-19], 2: [-16], 3: [-65532], 4: [0]}) == "LIMIT"


def test_nothing_follows_the_members():
    assert refusal(keyset.parse, document(dumps(members()))) is None
    assert refusal(keyset.parse, document(dumps(members()) + b"\0")) == "CBOR"


def test_the_document_fits_two_sectors():
    size = len(make(m13={1: b"x" * 6000}))
    fits = make(m13={1: b"x" * (6000 + 8160 - size)})
    assert len(fits) == keyset.MAX_KEYSET == 2 * 4096 - 32
    assert refusal(keyset.parse, fits) is None
    assert refusal(keyset.parse, fits + b"\0") == "LIMIT"


def test_a_key_has_one_role_and_appears_once():
    twice = "KEYSET_KEY_REUSE"
    assert why_parse(m5=[1, [R1, R1]]) == twice
    assert why_parse(m6=[{1: S1, 2: ["fw"]}, {1: S1, 2: ["app"]}]) == twice
    assert why_parse(m6=[{1: R1, 2: ["fw"]}]) == twice
    assert why_parse(m7=[{1: S1, 2: [1]}]) == twice
    for key in (R1, S1, O1):
        assert why_parse(m8=[cose.key_id(key)]) == twice


@faked
def test_genesis_is_signed_by_its_own_roots():
    roots = [2, [R1, R2, R3]]
    assert keyset.genesis(make((R1, R3), m5=roots)).version == 7
    for signers in ((), (R1,), (R1, R1), (R1, STRANGER), (S1, O1), (R1, S1)):
        assert refusal(keyset.genesis, make(signers, m5=roots)) == "KEYSET_THRESHOLD"


@faked
def test_the_next_version_replaces_the_old_one():
    old = keyset.genesis(make())
    new = keyset.accept(old, make(m1=8, m3=3000))
    assert (new.version, new.expires) == (8, 3000)


@faked
def test_the_same_content_changes_nothing_whoever_signed_it():
    old = keyset.genesis(make())
    assert keyset.accept(old, make()) is old
    assert keyset.accept(old, make(())) is old
    assert keyset.accept(old, memoryview(make((R1, R2)))) is old


@faked
def test_the_same_version_with_other_content_is_refused():
    assert why_accept(make(), make(m11=1)) == "KEYSET_CONTENT"
    assert why_accept(make(), make((R2,), m11=1)) == "KEYSET_THRESHOLD"  # not evidence against the roots


@faked
def test_versions_are_consecutive():
    for version in (1, 6, 9, 10, LAST):
        assert why_accept(make(), make(m1=version)) == "KEYSET_VERSION"
    assert why_accept(make(m1=LAST), make(m1=LAST)) is None


@faked
def test_old_and_new_roots_must_both_agree():
    old = make((R1, R2), m5=[2, [R1, R2, R3]])
    new = {"m1": 8, "m5": [2, [R2, R3, R4]]}
    assert why_accept(old, make((R2, R3), **new)) is None
    assert why_accept(old, make((R1, R2, R4), **new)) is None
    assert why_accept(old, make((R1, R2), **new)) == "KEYSET_THRESHOLD"
    assert why_accept(old, make((R3, R4), **new)) == "KEYSET_THRESHOLD"
    assert why_accept(old, make((R2, R2, R2), **new)) == "KEYSET_THRESHOLD"


@faked
def test_a_release_key_signs_no_key_set():
    assert why_accept(make(), make((S1,), m1=8)) == "KEYSET_THRESHOLD"
    assert why_accept(make(), make((O1, S1, STRANGER), m1=8)) == "KEYSET_THRESHOLD"


@faked
def test_an_expired_key_set_is_still_a_link():
    old = keyset.genesis(make())
    link = keyset.accept(old, make(m1=8, m2=1500, m3=1600))
    assert link.expired(10**9)
    assert not keyset.accept(link, make(m1=9, m2=1500, m3=2 * 10**9)).expired(10**9)


@faked
def test_environments_are_never_mixed():
    assert why_accept(make(), make(m1=8, m4=2)) == "KEYSET_ENVIRONMENT"
    assert why_accept(make(m4=2), make(m1=8, m4=1)) == "KEYSET_ENVIRONMENT"


@faked
def test_issue_times_never_go_back():
    assert why_accept(make(), make(m1=8, m2=999)) == "KEYSET"
    assert why_accept(make(), make(m1=8, m2=1000)) is None


@faked
def test_a_revoked_key_stays_revoked():
    gone = cose.key_id(S2)
    old = make(m8=[gone])
    assert why_accept(old, make(m1=8)) == "KEYSET_KEY_REUSE"
    assert why_accept(old, make(m1=8, m8=[b"k" * 8, gone])) is None
    assert why_accept(old, make(m1=8, m6=[{1: S2, 2: ["fw"]}])) == "KEYSET_KEY_REUSE"
    assert why_accept(old, make(m1=8, m8=[gone], m6=[{1: S2, 2: ["fw"]}])) == "KEYSET_KEY_REUSE"


@faked
def test_a_key_never_changes_its_role():
    both = {"m1": 8, "m6": [], "m7": [{1: S1, 2: [1]}]}
    assert why_accept(make(), make(**both)) == "KEYSET_KEY_REUSE"
    assert why_accept(make(), make((R1, S1), m1=8, m5=[1, [R1, S1]], m6=[])) == "KEYSET_KEY_REUSE"
    old = make((R1,), m5=[1, [R1, R2]])
    assert why_accept(old, make(m1=8, m6=[{1: R2, 2: ["fw"]}])) == "KEYSET_KEY_REUSE"


@faked
def test_a_key_can_leave_and_be_revoked():
    assert why_accept(make(), make(m1=8, m6=[])) is None
    assert why_accept(make(), make(m1=8, m6=[], m8=[cose.key_id(S1)])) is None


@faked
def test_manifest_revocations_may_lapse():
    assert why_accept(make(m9=[bytes(32)]), make(m1=8)) is None


@faked
def test_a_leaked_root_that_is_outvoted_can_be_replaced():
    old = make((R1, R2), m5=[2, [R1, R2, R3]])
    new = make((R2, R3, R4), m1=8, m5=[2, [R2, R3, R4]], m8=[cose.key_id(R1)])
    assert why_accept(old, new) is None


def test_truncated_documents_are_refused():
    data = make()
    for end in range(len(data)):
        assert refusal(keyset.parse, data[:end]) is not None
