from sekisho.envelope import keyset_version, sever
from sekisho_boot.reasons import CBOR, ENVELOPE, KEYSET, Refused

WRAPPER = b"\x02\x43\x01\x02\x03"
MANIFEST = b"\x03\x42\x0a\x0b"
BARE = b"\xd8\x6b\xa2" + WRAPPER + MANIFEST
KEYSET_7 = b"\xd8\x62\x84\x40\xa0\x45\xa2\x01\x07\x02\x00\x80"


def refusal(function, argument):
    try:
        function(argument)
    except Refused as refused:
        return refused.code
    return 0


def test_an_envelope_without_extras_stays_as_it_is():
    assert sever(BARE) == BARE


def test_text_severed_members_and_integrated_payloads_go():
    extras = b"\x14\x41\x00" + b"\x17\x44text" + b"\x63#fw\x45bytes"
    assert sever(b"\xd8\x6b\xa5" + WRAPPER + MANIFEST + extras) == BARE


def test_an_envelope_that_lacks_a_member_is_refused():
    assert refusal(sever, b"\xd8\x6b\xa1" + MANIFEST) == ENVELOPE
    assert refusal(sever, b"\xd8\x6b\xa3" + WRAPPER + MANIFEST + MANIFEST) == ENVELOPE


def test_other_documents_are_refused():
    assert refusal(sever, KEYSET_7) == ENVELOPE
    assert refusal(sever, b"") == CBOR
    assert refusal(sever, b"<html>") == CBOR


def test_damaged_envelopes_are_refused():
    for size in range(len(BARE)):
        assert refusal(sever, BARE[:size]) in (CBOR, ENVELOPE), size
    assert refusal(sever, BARE + b"\x00") == CBOR
    assert refusal(sever, b"\xd8\x6b\xa2" + b"\x02\x58\x03\x01\x02\x03" + MANIFEST) == CBOR


def test_good_cbor_that_is_no_envelope_is_said_to_be_none():
    assert refusal(sever, b"\xd8\x6b\xa2" + b"\x02\x19\x01\x02" + MANIFEST) == ENVELOPE
    assert refusal(sever, b"\xd8\x6b\xa2" + b"\x41\x02\x41x" + MANIFEST) == ENVELOPE
    assert refusal(sever, b"\xd8\x6b\x82" + WRAPPER[1:] + MANIFEST[1:]) == ENVELOPE
    assert refusal(sever, BARE[2:]) == ENVELOPE
    assert refusal(sever, b"\x00") == ENVELOPE


def test_reads_the_version_that_a_key_set_claims():
    assert keyset_version(KEYSET_7) == 7


def test_a_key_set_without_a_version_is_refused():
    assert refusal(keyset_version, b"\xd8\x62\x84\x40\xa0\x41\xa0\x80") == KEYSET
    assert refusal(keyset_version, BARE) == KEYSET
    for size in range(9):
        assert refusal(keyset_version, KEYSET_7[:size]) in (CBOR, KEYSET), size
