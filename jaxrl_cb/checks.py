"""Checks of settings, in the user's words. Each raises and returns nothing."""

import math
import numbers
import typing
from typing import Any, NamedTuple

from jaxrl_cb.errors import ConfigError, ConfigTypeError

MAX_INT = 2**31 - 1


class Range(NamedTuple):
    """In an annotation, what an int or a float may be: ``Annotated[float, Range(0, 1)]``."""

    low: float
    high: float = math.inf
    open_low: bool = False


class Choice(NamedTuple):
    """In an annotation, what a setting may be: ``Annotated[str, Choice(("best", "last"))]``."""

    choices: Any


def check_fields(config: Any) -> None:
    """Checks the fields of a dataclass by their annotations; None passes where it is allowed."""
    for name, kind in typing.get_type_hints(type(config), include_extras=True).items():
        annotated = hasattr(kind, "__metadata__")
        base, limits = typing.get_args(kind) if annotated else (kind, None)
        types, value = typing.get_args(base) or (base,), getattr(config, name)
        if value is None and type(None) in types:
            continue
        if isinstance(limits, Choice):
            check_choice(name, value, limits.choices)
        elif isinstance(limits, Range) and float in types:
            check_float(name, value, limits.low, limits.high, open_low=limits.open_low)
        elif isinstance(limits, Range):
            check_int(
                name,
                value,
                int(limits.low),
                int(limits.high) if limits.high < math.inf else MAX_INT,
            )
        elif bool in types:
            check_bool(name, value)


def check_int(name: str, value: Any, low: int, high: int = MAX_INT) -> None:
    """Checks that a setting is an int (not a bool) in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ConfigTypeError(f"{name}={value!r} is a {type(value).__name__}; expected an int")
    if not low <= int(value) <= high:
        raise ConfigError(f"{name}={value} is out of range; it must be {_range(low, high)}")


def check_float(
    name: str, value: Any, low: float, high: float = math.inf, *, open_low: bool = False
) -> None:
    """Checks that a setting is a finite number in [low, high], or (low, high] if `open_low`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        hint = f"; write {name}={float(value)!r}" if _is_numeric_text(value) else ""
        raise ConfigTypeError(f"{name}={value!r} is a {type(value).__name__}, not a number{hint}")
    number = float(value)
    if not math.isfinite(number) or not low <= number <= high or (open_low and number == low):
        words = f"above {low:g}" if open_low else f"{low:g} or more"
        words += f" and at most {high:g}" if high < math.inf else " and finite"
        raise ConfigError(f"{name}={value} is out of range; it must be {words}")


def check_bool(name: str, value: Any) -> None:
    """Checks that a setting is True or False."""
    if not isinstance(value, bool):
        raise ConfigTypeError(
            f"{name}={value!r} is a {type(value).__name__}; expected True or False"
        )


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Checks that a setting is one of the choices."""
    if value not in list(choices):
        raise ConfigError(f"{name}={value!r} is not one of {', '.join(map(repr, choices))}")


def check_multiple(name: str, value: int, of: int, what: str) -> None:
    """Checks that a setting is a multiple; the message names the two nearest that are."""
    if value % of:
        below, above = value // of * of, (value // of + 1) * of
        nearest = f"{below} or {above}" if below else f"{above}"
        raise ConfigError(f"{name}={value} is not a multiple of {of} ({what}); use {nearest}")


def _range(low: int, high: int) -> str:
    return f"at least {low}" if high == MAX_INT else f"at least {low} and at most {high}"


def _is_numeric_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False
