"""Refusals that a client is told about, with the status and the words it gets."""

from __future__ import annotations


class Problem(Exception):
    """An answer other than success: HTTP *status*, a short *code*, and one sentence."""

    def __init__(self, status: int, code: str, sentence: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code
        self.sentence = sentence
        self.headers = headers or {}

    def body(self) -> dict[str, str]:
        """The answer in the form that hawkBit gives errors."""
        return {"exceptionClass": "sekisho.Problem", "errorCode": f"sekisho.{self.code}", "message": self.sentence}


def missing(what: str, name: object) -> Problem:
    """404."""
    return Problem(404, "not_found", f"There is no {what} {str(name)[:100]!r}.")


def exists(what: str, name: object) -> Problem:
    """409."""
    return Problem(409, "exists", f"There is a {what} {str(name)[:100]!r} already.")


def wrong(sentence: str) -> Problem:
    """400."""
    return Problem(400, "bad_request", sentence)


def quota(sentence: str) -> Problem:
    """429, as hawkBit answers since 1.0."""
    return Problem(429, "quota", sentence)


def busy() -> Problem:
    """503: more is waiting to be written than the server takes on."""
    return Problem(503, "busy", "The server is busy.", {"Retry-After": "5"})


def broken() -> Problem:
    """500."""
    return Problem(500, "internal", "Something went wrong in the server; its log knows more.")
