"""Mutants (scripts/mutation.py) that cannot make a difference, each with the reason why."""

EQUIVALENT: dict[str, str] = {}
