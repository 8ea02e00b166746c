"""Text that came from elsewhere, on a terminal."""

from __future__ import annotations


def printable(text: object) -> str:
    """*text* with ``?`` for every control and formatting character: no file can move the cursor or turn words round."""
    return "".join(sign if sign.isprintable() else "?" for sign in str(text))
