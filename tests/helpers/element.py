"""A secure component as an ATECC608 is one: a P-256 key that never leaves it."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from sekisho import secure


class P256(secure.Software):
    """Signs with ECDSA; its public half is X and Y, as the chip gives them. algorithm: the COSE algorithm it names."""

    def __init__(self, algorithm: int = -9) -> None:
        super().__init__(None)
        self.ALGORITHM = algorithm
        self._private = ec.generate_private_key(ec.SECP256R1())

    def public(self) -> bytes:
        numbers = self._private.public_key().public_numbers()
        return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")

    def made(self) -> bool:
        return False

    def kept(self) -> bool:
        return True

    def sign(self, message: Any) -> bytes:
        r, s = utils.decode_dss_signature(self._private.sign(bytes(message), ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")
