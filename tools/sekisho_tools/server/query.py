"""hawkBit's filter language (RSQL) -> SQL conditions: ``attribute.chip==esp32s3 and (name==a*,updatestatus!=error)``.

Comparisons ``== != =in= =out= =gt= =ge= =lt= =le= > >= < <=``; ``;`` or ``and``; ``,`` or ``or``; brackets; ``*``
stands for any text. Text compares without regard to case, as hawkBit does on most of its databases.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Column, ColumnElement, and_, exists, func, not_, or_
from sqlalchemy import types as sqltypes

from .errors import Problem, wrong
from .tables import attribute, dist_set, rollout, target, target_metadata

MAX_QUERY = 1000
MAX_TERMS = 50
_TOKEN = re.compile(
    r"""\s*(?:(?P<bracket>[()])|(?P<and>;|and\b)|(?P<or>,|or\b)|(?P<op>=in=|=out=|=gt=|=ge=|=lt=|=le=|==|!=|>=|<=|>|<)"""
    r"""|"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>(?:[^'\\]|\\.)*)'|(?P<word>[^\s"'();,=!<>]+))""",
    re.IGNORECASE,
)

Condition = ColumnElement[bool]
Field = Callable[[Callable[[Column[Any]], Condition], str], Condition]
"""Takes what to do with the column, and the rest of the selector after the first dot."""


def _column(column: Column[Any]) -> Field:
    def make(compare: Callable[[Column[Any]], Condition], rest: str) -> Condition:
        if rest:
            raise _bad(rest)
        return compare(column)

    return make


def _pairs(table: Any) -> Field:
    def make(compare: Callable[[Column[Any]], Condition], rest: str) -> Condition:
        if not rest:
            raise _bad("attribute")
        return exists().where(table.c.target_id == target.c.id, table.c.key == rest, compare(table.c.value))

    return make


def _set_of(which: Column[Any]) -> Field:
    columns = {"": dist_set.c.id, "id": dist_set.c.id, "name": dist_set.c.name, "version": dist_set.c.version}

    def make(compare: Callable[[Column[Any]], Condition], rest: str) -> Condition:
        if rest not in columns:
            raise _bad(rest)
        return exists().where(dist_set.c.id == which, compare(columns[rest]))

    return make


TARGETS: Mapping[str, Field] = {
    "controllerid": _column(target.c.controller_id),
    "id": _column(target.c.controller_id),
    "name": _column(target.c.name),
    "description": _column(target.c.description),
    "updatestatus": _column(target.c.update_status),
    "ipaddress": _column(target.c.address),
    "createdat": _column(target.c.created_at),
    "lastcontrollerrequestat": _column(target.c.last_poll_at),
    "attribute": _pairs(attribute),
    "metadata": _pairs(target_metadata),
    "assignedds": _set_of(target.c.assigned_set_id),
    "installedds": _set_of(target.c.installed_set_id),
}


def columns_of(table: Any, **names: Column[Any]) -> dict[str, Field]:
    """Fields for the plain columns of a table under hawkBit's names."""
    return {"id": _column(table.c.id)} | {name: _column(column) for name, column in names.items()}


ROLLOUTS = columns_of(rollout, name=rollout.c.name, status=rollout.c.status, description=rollout.c.description)


def _bad(where: str) -> Problem:
    return wrong(f"The filter cannot be read at {where[:60]!r}.")


class _Parser:
    def __init__(self, text: str, fields: Mapping[str, Field]) -> None:
        if len(text) > MAX_QUERY:
            raise wrong(f"A filter has at most {MAX_QUERY} characters.")
        self.fields = fields
        self.tokens: list[tuple[str, str]] = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if not match or match.lastgroup is None:
                raise _bad(text[at:])
            self.tokens.append((match.lastgroup, match[match.lastgroup]))
            at = match.end()
        self.at = 0
        self.terms = 0

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def take(self, *kinds: str) -> tuple[str, str]:
        token = self.peek()
        if token[0] not in kinds:
            raise _bad(token[1] or "its end")
        self.at += 1
        return token

    def whole(self) -> Condition:
        found = self.any_of()
        self.take("end") if self.peek()[0] != "end" else None
        return found

    def any_of(self) -> Condition:
        parts = [self.all_of()]
        while self.peek()[0] == "or":
            self.take("or")
            parts.append(self.all_of())
        return or_(*parts)

    def all_of(self) -> Condition:
        parts = [self.one()]
        while self.peek()[0] == "and":
            self.take("and")
            parts.append(self.one())
        return and_(*parts)

    def one(self) -> Condition:
        self.terms += 1
        if self.terms > MAX_TERMS:
            raise wrong(f"A filter has at most {MAX_TERMS} terms.")
        if self.peek() == ("bracket", "("):
            self.take("bracket")
            found = self.any_of()
            if self.take("bracket")[1] != ")":
                raise _bad("(")
            return found
        selector = self.take("word")[1]
        name, _, rest = selector.partition(".")
        field = self.fields.get(name.lower())
        if field is None:
            raise wrong(f"A filter cannot ask for {name[:60]!r}.")
        operator = self.take("op")[1].lower()
        values = self.values(operator)
        if operator in ("!=", "=out="):
            positive = "==" if operator == "!=" else "=in="
            return not_(func.coalesce(field(lambda column: _compare(column, positive, values), rest), False))
        return field(lambda column: _compare(column, operator, values), rest)

    def values(self, operator: str) -> list[str]:
        if operator not in ("=in=", "=out="):
            return [self.value()]
        if self.take("bracket")[1] != "(":
            raise _bad(")")
        found = [self.value()]
        while self.peek()[0] == "or":
            self.take("or")
            found.append(self.value())
        if self.take("bracket")[1] != ")":
            raise _bad("(")
        if len(found) > 500:
            raise wrong("A list in a filter has at most 500 values.")
        return found

    def value(self) -> str:
        kind, text = self.take("word", "double", "single")
        return text if kind == "word" else re.sub(r"\\(.)", r"\1", text)


def _compare(column: Column[Any], operator: str, values: list[str]) -> Condition:
    number = isinstance(column.type, sqltypes.Integer)
    if operator in ("==", "=in="):
        return or_(*(_equal(column, value, number) for value in values))
    value: Any = _integer(values[0]) if number else values[0]
    greater = operator in ("=gt=", ">", "=ge=", ">=")
    found: Condition = column >= value if greater else column <= value
    return found if operator in ("=ge=", ">=", "=le=", "<=") else and_(found, column != value)


def _integer(text: str) -> int:
    if not re.fullmatch(r"-?\d{1,18}", text):
        raise _bad(text)
    return int(text)


def _equal(column: Column[Any], value: str, number: bool) -> Condition:
    if number:
        return column == _integer(value)
    if "*" in value:
        pattern = re.sub(r"([\\%_])", r"\\\1", value).replace("*", "%")
        return column.ilike(pattern, escape="\\")
    return func.lower(column) == func.lower(value)


def condition(text: str, fields: Mapping[str, Field]) -> Condition:
    """The SQL condition for a filter; Problem 400 when it cannot be read."""
    parser = _Parser(text, fields)
    if not parser.tokens:
        raise wrong("The filter is empty.")
    return parser.whole()


def targets(text: str) -> Condition:
    """The condition on targets."""
    return condition(text, TARGETS)
