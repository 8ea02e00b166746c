"""Accounts of the console: passwords, waits and lock-outs, sessions."""

from collections.abc import Callable

import pytest
from helpers.claims import both, check
from sekisho import accounts


@pytest.mark.requirement("STS13", "STS14", "STS15")
@both
def test_who_gets_in_and_what_guessing_costs(run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("store", "issued", "time", "ROUNDS"):  # the cases put others in their place
        monkeypatch.setattr(accounts, name, getattr(accounts, name))
    check(run, "accounts_cases")
