"""Whether an image carries the secure boot v2 signature that a chip will ask for.

espsecure judges it, Espressif's own tool, run as a program (it is under the GPL; none of it is imported).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from . import imagefile
from .errors import ToolError
from .files import read_file

CODE = "SECURE_BOOT"
"""Code of the finding in the gate and in the factory's check."""
MAX_KEY = 1 << 16
RSA_BITS = 3072
TIMEOUT = 60


def check_key(path: Path) -> None:
    """Refuse with KEY_FILE what is no secure boot key (PEM: RSA-3072 or ECDSA; the public half will do)."""
    data = read_file(path, "secure boot key", MAX_KEY)
    try:
        key = load_pem_public_key(data) if b"PUBLIC" in data else load_pem_private_key(data, None).public_key()
    except (ValueError, TypeError) as error:
        raise ToolError("KEY_FILE", f"{path} is no secure boot key in PEM (without passphrase).") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) and not (isinstance(key, rsa.RSAPublicKey) and _strong(key)):
        raise ToolError("KEY_FILE", f"{path} is no secure boot key: that is RSA-{RSA_BITS} or ECDSA.")


def _strong(key: rsa.RSAPublicKey) -> bool:
    return key.key_size == RSA_BITS


def problem(data: bytes, key: Path, what: str) -> str | None:
    """Why a chip with secure boot would not start *data* (called *what*), or None where it would.

    *data* is an app or bootloader with its signature, as `imagefile` finds it. Raises ToolError KEY_FILE, SECURE_BOOT
    (espsecure does not run).
    """
    check_key(key)
    length = imagefile.read_structure(data).length
    if imagefile.signed_length(data, length) == length:
        return f"The {what} has no secure boot signature (or a damaged one); sign it with espsecure sign-data."
    with tempfile.TemporaryDirectory(prefix="sekisho-signed-") as directory:
        image = Path(directory) / "image.bin"
        image.write_bytes(data)
        line = ("-m", "espsecure", "verify-signature", "--version", "2", "--keyfile", str(key), str(image))
        try:
            done = subprocess.run([sys.executable, *line], capture_output=True, text=True, check=False, timeout=TIMEOUT)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ToolError(CODE, f"espsecure cannot be run: {error}.") from error
    if done.returncode == 0 and "successful" in done.stdout:
        return None
    if "No module named" in done.stderr:
        raise ToolError(CODE, "espsecure is not installed; run pip install esptool.")
    return f"The {what} is not signed with {key.name}: a chip with that key would not start it."
