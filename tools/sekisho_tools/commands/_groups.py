"""Options that several commands have in common: a dataclass of them stands for all in a command's signature."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, get_args, get_type_hints


def _panelled(annotation: Any, panel: str) -> Any:
    origin, *about = get_args(annotation)
    options = [copy.copy(one) for one in about]
    for option in options:
        option.rich_help_panel = panel
    return Annotated[(origin, *options)]


def grouped(function: Callable[..., None]) -> Callable[..., None]:
    """The command *function* with each parameter that is a dataclass replaced by its fields, as options of their own.

    The fields are annotated like parameters of a command; those with a default may be left out. In the help they stand
    together under the class's PANEL.
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        kind = parameter.annotation
        if not is_dataclass(kind):
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        group: Any = kind
        groups[parameter.name] = group
        hints = get_type_hints(group, include_extras=True)
        for one in fields(group):
            default = inspect.Parameter.empty if one.default is MISSING else one.default
            kept = inspect.Parameter.KEYWORD_ONLY
            parameters.append(
                inspect.Parameter(one.name, kept, default=default, annotation=_panelled(hints[one.name], group.PANEL))
            )

    @functools.wraps(function)
    def command(**values: Any) -> None:
        made = {name: kind(**{one.name: values.pop(one.name) for one in fields(kind)}) for name, kind in groups.items()}
        function(**made, **values)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command
