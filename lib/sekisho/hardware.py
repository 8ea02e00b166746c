"""What the eFuses say about protection: secure boot, flash encryption, JTAG, download mode. Read only.

Source: espefuse's definitions (esptool 5) of block 0. Fields are (word, first bit, bits); the words of ESP32 begin at
the base of the controller, those of the newer chips 0x2C above it. Chips are told by `sekisho_config.CHIP`, the id in
image headers.
"""

from micropython import const

SECURE_BOOT = const(1)
FLASH_ENCRYPTION = const(2)
JTAG_OFF = const(3)
DOWNLOAD_OFF = const(4)
NAMES = {
    SECURE_BOOT: "secure-boot",
    FLASH_ENCRYPTION: "flash-encryption",
    JTAG_OFF: "jtag-off",
    DOWNLOAD_OFF: "download-off",
}

_ESP32 = const(0)
_C3 = const(5)
_S3 = const(9)
_C6 = const(13)
_BASES = {_ESP32: 0x3FF5A000, _S3: 0x6000702C, _C3: 0x6000882C, _C6: 0x600B082C}


def fuses(chip: int, mem32):
    """{SECURE_BOOT: bool, ...} of the chip, or None for one that is not known here."""
    base = _BASES.get(chip)
    if base is None:
        return None

    def field(word: int, first: int, bits: int = 1) -> int:
        return (mem32[base + 4 * word] & 0xFFFFFFFF) >> first & (1 << bits) - 1

    if chip == _ESP32:
        crypt = field(0, 20, 7)
        states = (field(6, 4, 2) > 0, field(6, 6) == 1, field(0, 27) == 1)
    else:
        usb = field(3, 22) if chip == _S3 else field(1, 9)
        crypt = field(2, 18, 3)
        states = (field(3, 20) == 1, field(1, 19) == 1 and usb == 1, field(4, 0) == 1)
    # Encryption is on while an odd number of bits of the counter is set.
    return {
        SECURE_BOOT: states[0],
        FLASH_ENCRYPTION: bin(crypt).count("1") % 2 == 1,
        JTAG_OFF: states[1],
        DOWNLOAD_OFF: states[2],
    }
