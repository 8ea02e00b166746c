"""The one exception that host code raises for something the user can act on."""

from __future__ import annotations


class ToolError(Exception):
    """Something went wrong that the user can understand and mend.

    *code* is a short name in capitals (a reason code of `sekisho_boot.reasons` where one fits, so that desk and device
    speak of the same thing); *sentence* is one sentence that says what is wrong and what to do. `cli.main` prints it
    as ``error[CODE]: sentence`` and exits with 1.
    """

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence

    def __str__(self) -> str:
        return f"error[{self.code}]: {self.sentence}"
