"""COSE_Sign1 and COSE_Sign: what is accepted, and the reason of each refusal."""

from sekisho_boot import cose
from writer import Pairs, Raw, Tag, dumps, fake_sign, faked, refusal, sign1

A, B, C = bytes([1] * 32), bytes([2] * 32), bytes([3] * 32)
PAYLOAD = dumps([-16, bytes(range(32))])
EDDSA = dumps({1: -19})
NO_HEADERS = Raw(b"\xa0")


def block(protected=EDDSA, headers=NO_HEADERS, payload=None, signature=None, tag=18, extra=()):
    if signature is None:
        signature = fake_sign(A, dumps(["Signature1", protected, b"", PAYLOAD]))
    return dumps(Tag(tag, [protected, headers, payload, signature] + list(extra)))


def why(data, keys=(A, B), revoked=()):
    return refusal(cose.verify_sign1, data, PAYLOAD, keys, revoked)


def test_key_id_is_the_start_of_the_keys_sha256():
    assert cose.key_id(bytes(32)) == bytes((0x66, 0x68, 0x7A, 0xAD, 0xF8, 0x62, 0xBD, 0x77))


@faked
def test_finds_the_key_by_its_id():
    assert cose.verify_sign1(sign1(PAYLOAD, A), PAYLOAD, [A, B]) == 0
    assert cose.verify_sign1(sign1(PAYLOAD, B), PAYLOAD, [A, B]) == 1
    assert cose.verify_sign1(memoryview(sign1(PAYLOAD, B, -8)), memoryview(PAYLOAD), [A, B]) == 1


@faked
def test_tries_every_key_without_a_key_id():
    assert cose.verify_sign1(sign1(PAYLOAD, B, kid=False), PAYLOAD, [A, B]) == 1
    assert why(sign1(PAYLOAD, C, kid=False)) == "SIGNATURE"
    assert why(sign1(PAYLOAD, C, kid=False), []) == "KEY_UNKNOWN"


@faked
def test_takes_the_key_id_from_either_header_but_not_from_both():
    kid = cose.key_id(A)
    both = dumps(Pairs([(1, -19), (4, kid)]))
    assert why(block(both)) is None
    assert why(block(both, {4: kid})) == "COSE"
    assert why(block(headers={4: kid})) is None


@faked
def test_a_foreign_key_id_is_no_hint():
    assert why(block(headers={4: b"11"})) is None
    assert why(block(headers={4: b""})) is None


@faked
def test_a_key_id_chooses_the_key_and_nothing_else():
    assert why(block(headers={4: cose.key_id(B)})) == "SIGNATURE"
    assert why(block(headers={4: cose.key_id(C)})) == "KEY_UNKNOWN"


@faked
def test_refuses_a_stranger_and_a_wrong_payload():
    assert why(sign1(PAYLOAD, C)) == "KEY_UNKNOWN"
    assert why(sign1(PAYLOAD + b"\0", A)) == "SIGNATURE"


@faked
def test_a_payload_has_at_most_64_kilobytes():
    made = sign1(PAYLOAD, A)
    assert refusal(cose.verify_sign1, made, bytes(65535), (A,)) == "SIGNATURE"
    assert refusal(cose.verify_sign1, made, bytes(65536), (A,)) == "LIMIT"


@faked
def test_a_revoked_key_is_named_as_revoked():
    revoked = [cose.key_id(B)]
    assert why(sign1(PAYLOAD, B), (A, B), revoked) == "KEY_REVOKED"
    assert why(sign1(PAYLOAD, B), (A,), revoked) == "KEY_REVOKED"
    assert why(sign1(PAYLOAD, B, kid=False), (A, B), revoked) == "KEY_REVOKED"
    assert why(sign1(PAYLOAD, A), (A, B), revoked) is None


@faked
def test_other_algorithms_are_told_apart_from_malformed_blocks():
    for alg in (-7, -9, -53, -46, 5, "EdDSA", None, -(1 << 40)):
        assert why(block(dumps({1: alg}))) == "ALGORITHM", alg
    assert why(block(dumps(Pairs([(1, -7), (2, [1]), (33, b"x")])), signature=b"short")) == "ALGORITHM"
    for tag in (17, 97, 98):
        assert why(block(tag=tag)) == "ALGORITHM"


@faked
def test_the_algorithm_must_be_protected():
    for protected in (b"", b"\xa0", dumps({4: cose.key_id(A)})):
        assert why(block(protected, {1: -19})) == "COSE"
        assert why(block(protected)) == "COSE"
    assert why(block(headers={1: -19})) == "COSE"


@faked
def test_refuses_any_other_header():
    assert why(block(dumps(Pairs([(1, -19), (2, [1])])))) == "COSE"
    assert why(block(dumps(Pairs([(1, -19), (3, 0)])))) == "COSE"
    for label in (3, 5, 33, -1):  # also where the value is a byte string, like that of the kid
        assert why(block(dumps(Pairs([(1, -19), (label, b"x")])))) == "COSE"
        assert why(block(headers={label: b"x"})) == "COSE"
    assert why(block(dumps(Pairs([(1, -19), (-1, 0)])))) == "COSE"
    assert why(block(headers={2: [4]})) == "COSE"
    assert why(block(headers={5: b""})) == "COSE"
    assert why(block(headers={"a": 1})) == "COSE"


@faked
def test_refuses_wrong_shapes():
    good = block()
    assert why(good) is None
    assert why(good + b"\0") == "CBOR"
    assert why(good[1:]) == "COSE"  # untagged
    assert why(block(tag=19)) == "COSE"
    assert why(block(payload=PAYLOAD)) == "COSE"
    assert why(block(payload=b"")) == "COSE"
    assert why(block(payload=False)) == "COSE"
    assert why(block(extra=(1,))) == "COSE"
    assert why(dumps(Tag(18, [EDDSA, {}, None]))) == "COSE"
    assert why(block(protected=Pairs([(1, -19)]), signature=b"s" * 64)) == "COSE"
    assert why(block(EDDSA + b"\0")) == "CBOR"
    assert why(block(headers=[])) == "COSE"
    assert why(block(headers={4: "text"})) == "COSE"
    for size in (0, 63, 65, 114):
        assert why(block(signature=b"s" * size)) == "COSE"
    for end in range(len(good)):
        assert why(good[:end]) == "CBOR"


@faked
def test_refuses_doubled_or_unsorted_headers():
    kid = cose.key_id(A)
    assert why(block(dumps(Pairs([(4, kid), (1, -19)])))) in ("COSE", "CBOR")
    assert why(block(dumps(Pairs([(1, -19), (1, -19)])))) == "CBOR"
    assert why(block(headers=Pairs([(4, kid), (4, kid)]))) == "CBOR"


@faked
def test_a_document_carries_its_payload_with_it():
    made = dumps(
        Tag(18, [EDDSA, {4: cose.key_id(B)}, PAYLOAD, fake_sign(B, dumps(["Signature1", EDDSA, b"", PAYLOAD]))])
    )
    index, payload = cose.open_sign1(made, (A, B))
    assert (index, bytes(payload)) == (1, PAYLOAD)
    assert refusal(cose.open_sign1, made, (A,)) == "KEY_UNKNOWN"
    assert refusal(cose.open_sign1, made, (A, B), [cose.key_id(B)]) == "KEY_REVOKED"
    assert refusal(cose.open_sign1, block(), (A, B)) == "COSE"  # detached
    assert why(made) == "COSE"  # attached
    changed = made[:-70] + bytes((made[-70] ^ 1,)) + made[-69:]
    assert refusal(cose.open_sign1, changed, (A, B)) == "SIGNATURE"


def signer(key, payload=PAYLOAD, alg=-19, kid=None, signature=None, protected=None):
    protected = dumps({1: alg}) if protected is None else protected
    made = fake_sign(key, dumps(["Signature", b"", protected, b"", payload]))
    return [protected, {4: cose.key_id(key) if kid is None else kid}, made if signature is None else signature]


def document(signers, payload=PAYLOAD, body=b"", headers=NO_HEADERS, tag=98):
    return dumps(Tag(tag, [body, headers, payload, signers]))


def found(data, keys=(A, B, C)):
    payload, indices = cose.verify_sign(data, keys)
    assert bytes(payload) == PAYLOAD
    return indices


@faked
def test_counts_every_signing_key_once():
    assert found(document([])) == []
    assert found(document([signer(C), signer(A)])) == [2, 0]
    assert found(document([signer(A), signer(A), signer(B)])) == [0, 1]
    assert found(document([signer(A)]), (A, A)) == [0]
    assert found(document([signer(A), signer(A)]), (A, A)) == [0]


@faked
def test_signatures_that_do_not_verify_count_for_nothing():
    assert found(document([signer(A, b"other"), signer(B)])) == [1]
    assert found(document([signer(A, kid=cose.key_id(B))])) == []
    assert found(document([signer(bytes(32))])) == []
    assert found(document([signer(A, kid=b"11")])) == []
    assert found(document([signer(A, alg=-7, signature=b"short"), signer(B)])) == [1]


@faked
def test_payload_lengths_of_every_head_size():
    for size in (0, 1, 23, 24, 255, 256, 8000):
        payload = b"\7" * size
        data = document([signer(B, payload)], payload)
        assert cose.verify_sign(data, (A, B))[1] == [1]


def why_sign(data):
    return refusal(cose.verify_sign, data, (A, B))


@faked
def test_refuses_malformed_cose_sign():
    assert why_sign(document([signer(A)], tag=18)) == "COSE"
    assert why_sign(document([signer(A)], body=EDDSA)) == "COSE"
    assert why_sign(document([signer(A)], headers={4: b"x"})) == "COSE"
    assert why_sign(document([signer(A)], headers={b"x": []})) == "COSE"
    assert why_sign(document([signer(A)], payload=None)) == "COSE"
    assert why_sign(document([signer(A)]) + b"\0") == "CBOR"
    assert why_sign(dumps(Tag(98, [b"", NO_HEADERS, PAYLOAD, [], 0]))) == "COSE"
    assert why_sign(dumps(Tag(98, [b"", NO_HEADERS, PAYLOAD]))) == "COSE"
    assert why_sign(document([signer(A) + [1]])) == "COSE"
    assert why_sign(document([[EDDSA, {}, bytes(64)]])) == "COSE"
    assert why_sign(document([[b"", {1: -19}, bytes(64)]])) == "COSE"
    assert why_sign(document([signer(A, signature=bytes(63))])) == "COSE"
    assert why_sign(document([signer(A)] * 16)) is None
    assert why_sign(document([signer(A)] * 17)) == "LIMIT"
    good = document([signer(A), signer(B)])
    for end in range(len(good)):
        assert why_sign(good[:end]) == "CBOR"
