"""Every refusal has a name: the one catalogue of reason codes (design, invariant 6).

A code fits one byte, since ledger records hold it. Its class follows from its value:
permanent (1..127: drop, never retry this manifest), temporary (128..191: hold and ask again),
unproven (192..255: back off and retry, never ban). Codes are never renumbered.
The comment behind each code is its meaning in one sentence; docs, CLI and server tables are made from it.
"""

from micropython import const

# -- permanent: the thing itself is wrong ---------------------------------------------------------
CBOR = const(1)  # The bytes are not well-formed deterministic CBOR.
LIMIT = const(2)  # A size, depth or count is over the limit of the profile.
COSE = const(3)  # The COSE structure is malformed or uses a header that is not allowed.
ALGORITHM = const(4)  # An algorithm is not supported by the device or not allowed by the key set.
SIGNATURE = const(5)  # A signature by a known key does not verify.
KEY_UNKNOWN = const(6)  # No signature is by a key that the key set names.
KEY_REVOKED = const(7)  # The signing key is revoked.
KEY_RIGHTS = const(8)  # The signing key has no right for this component or product class.
ENVELOPE = const(9)  # The SUIT envelope has the wrong tag, members or order.
MANIFEST_DIGEST = const(10)  # The manifest does not match the digest that was signed.
MANIFEST_VERSION = const(11)  # The manifest version is not 1.
MANIFEST = const(12)  # The manifest has a member or a type that the profile does not allow.
MANIFEST_REVOKED = const(13)  # This manifest is revoked by the key set.
COMMAND = const(14)  # A SUIT command is not supported here.
PARAMETER = const(15)  # A SUIT parameter is not supported, missing, or of the wrong type.
COMPONENT = const(16)  # A component is unknown, missing or named twice.
VENDOR = const(17)  # The image is for another vendor.
CLASS = const(18)  # The image is for another product class.
DEVICE = const(19)  # The image is for another device.
SEQUENCE = const(20)  # The sequence number is lower than the one the device has proved.
FLOOR = const(21)  # The sequence number is below the security floor.
CEILING = const(22)  # The sequence number is above the ceiling of the key set.
IMAGE_DIGEST = const(23)  # The image does not match its digest.
IMAGE_SIZE = const(24)  # The image does not fit its slot or its announced size.
IMAGE_FORMAT = const(25)  # The bootloader would refuse this image (header, segments or checksum).
IMAGE_CHIP = const(26)  # The image is for another chip or chip revision.
IMAGE_HASH = const(27)  # The image carries no appended SHA-256, or it is wrong.
SEVERABLE = const(28)  # A severable member does not match its digest, or is needed and absent.
VERSION_TIE = const(29)  # Firmware and application sequence numbers do not fit together.
SLOT = const(30)  # The record names the running slot or a slot that does not exist.
KEYSET = const(31)  # The key set is malformed.
KEYSET_VERSION = const(32)  # The key set version does not follow the current one.
KEYSET_CONTENT = const(33)  # Same key set version, other content.
KEYSET_THRESHOLD = const(34)  # Too few root signatures, by the old roots or by the new ones.
KEYSET_ENVIRONMENT = const(35)  # The key set is for the other environment.
KEYSET_KEY_REUSE = const(36)  # A key appears twice, in two roles, or after its revocation.
ABANDONED = const(37)  # This image was rolled back on order and returns only with a higher sequence.
PERMIT = const(38)  # The operator order is malformed, or for another device, target or nonce.
PERMIT_TARGET = const(39)  # The image to roll back to is gone or forbidden.
ENGINE_FAULT = const(40)  # The device's own code broke down again and again over this.
NO_ROLLBACK = const(41)  # The bootloader has no rollback support, so firmware cannot be updated.
NOT_STAGED = const(42)  # Nothing, or not this manifest, is staged.
STAGED_CHANGED = const(43)  # The staged envelope is not the one that was accepted.
ENCRYPTED = const(44)  # The sekisho partition is encrypted, which its records do not allow.
LEDGER_VERSION = const(45)  # The ledger has a format version that this engine does not know.
TRUNCATED = const(46)  # The payload ended before its announced size.
EXPIRED_MANIFEST = const(47)  # The manifest's use-before time has passed.
PERMIT_EXPIRED = const(48)  # The operator order has expired.
ORDER_REPLAY = const(49)  # This operator order, or a later one by the same key, was obeyed before.
DECLINED = const(50)  # An authorised person refused this release.
SETTING = const(51)  # There is no such setting, or the value is not one that it can have.
BACKUP = const(52)  # The backup is damaged, or the key is not the one it was made with.

# -- temporary: hold, the answer may change -------------------------------------------------------
EXPIRED_KEYSET = const(128)  # The key set has expired; a newer one is needed.
LOCKED = const(129)  # Nothing proves a counter any more: no installs until an operator order.
TRIAL = const(130)  # Not while an image is on trial.
NOT_SELECTED = const(131)  # The running slot is not the selected, VALID one.
BUSY = const(132)  # Another update is in progress.
NO_KEYSET = const(133)  # The newest accepted key set is lost; it must be fetched again.
FLASH = const(134)  # Flash did not read back what was written.
DISABLED = const(135)  # Updates are switched off.
APPROVAL = const(136)  # An approval is needed first.
WINDOW = const(137)  # Outside the maintenance window.
BATTERY = const(138)  # Not enough power.
RETRY_LATER = const(139)  # Tried too often; wait before the next try.
NETWORK = const(140)  # The server could not be reached or broke off.
SERVER = const(141)  # The server answered with something that makes no sense.
NOTHING = const(142)  # No update is in progress, or none is offered.
CONTENT_KEY = const(143)  # The device has no key that opens the payload.

# -- unproven: the image may be good, the trial could not show it ---------------------------------
ATTEMPTS = const(192)  # The trial was attempted three times and never confirmed.
HEALTH = const(193)  # The new image's own health check failed.
FALLBACK = const(194)  # The bootloader fell back to the other slot.
TARGET_LOST = const(195)  # The chosen image no longer verifies in its slot.
DEADLINE = const(196)  # The trial was not confirmed in time.
INTERRUPTED = const(197)  # Installing was broken off four times, by power cuts or faults of the engine.


class Refused(Exception):
    """The one exception of the engine; ``code`` is a reason code. Its message holds nothing secret."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def name(code: int) -> str:
    """The catalogue name of *code*, for example ``SIGNATURE``; unknown codes give ``REASON_<code>``."""
    for key, value in globals().items():
        if value == code and key == key.upper():
            return key
    return "REASON_%d" % code


def kind(code: int) -> str:
    """The class of *code*: ``permanent``, ``temporary`` or ``unproven``."""
    return "permanent" if code < 128 else "temporary" if code < 192 else "unproven"
