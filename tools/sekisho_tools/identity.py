"""Who an image is for: vendor, product class and device as the UUIDs that SUIT manifests carry.

draft-ietf-suit-manifest section 8.4.8.2 (as RFC 4122 names): the vendor is a UUIDv5 of its domain in the DNS
namespace, the class a UUIDv5 of whatever tells products apart in the vendor's namespace, the device one of its chip id.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import NAMESPACE_DNS, UUID, uuid5

from .errors import ToolError


def _given(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _need(text: str, what: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ToolError("IDENTITY", f"The {what} must be a name or a UUID, not {text!r}.")
    return text.strip()


def vendor_id(vendor: str) -> UUID:
    """The UUID of *vendor*: a domain such as ``example.com``, or the UUID itself. ToolError IDENTITY when empty."""
    return _given(vendor) or uuid5(NAMESPACE_DNS, _need(vendor, "vendor").lower())


def class_id(vendor: str, product_class: str) -> UUID:
    """The UUID of *product_class* (``my-board``, or the UUID itself) of *vendor*. ToolError IDENTITY when empty."""
    return _given(product_class) or uuid5(vendor_id(vendor), _need(product_class, "product class"))


def device_id(vendor: str, unique_id: bytes) -> UUID:
    """The UUID of the device whose chip says *unique_id* (`machine.unique_id()`), as the device makes it."""
    return uuid5(vendor_id(vendor), unique_id.hex())


@dataclass(frozen=True)
class Identity:
    """What `sekisho_boot.suit.check` compares a manifest with: 16-byte ids; *device* None stands for any."""

    vendor: bytes
    classes: tuple[bytes, ...]
    device: bytes | None = None

    @classmethod
    def of(cls, vendor: str, *product_classes: str, device: UUID | None = None) -> Identity:
        """The identity of a product by its names."""
        classes = tuple(class_id(vendor, name).bytes for name in product_classes)
        return cls(vendor_id(vendor).bytes, classes, device.bytes if device else None)
