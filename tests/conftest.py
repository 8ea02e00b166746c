"""Shared fixtures; importing `device_code` first makes the device packages importable on CPython."""

import sekisho_tools.device_code  # noqa: F401
