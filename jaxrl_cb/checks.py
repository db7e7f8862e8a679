"""Checks of settings, in the user's words. Each raises and returns nothing."""

import inspect
import math
import numbers
import typing
from typing import Any, NamedTuple

import numpy as np

from jaxrl_cb.errors import ConfigError, ConfigTypeError, did_you_mean, kind, shown

MAX_INT = 2**31 - 1
MAX_FLOAT = float(np.finfo(np.float32).max)


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
    for name, hint in typing.get_type_hints(type(config), include_extras=True).items():
        annotated = hasattr(hint, "__metadata__")
        base, limits = typing.get_args(hint) if annotated else (hint, None)
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
        number = _as_number(value)
        is_whole = number is not None and number.is_integer() and abs(number) < 2**63
        raise ConfigTypeError(
            f"{name}={shown(value)} is {kind(value)}; expected an int"
            f"{_hint(name, value, int(number) if is_whole and number is not None else None)}"
        )
    if not low <= int(value) <= high:
        words = f"at least {low}"
        words += f" and at most {high}" if high != MAX_INT or int(value) > high else ""
        raise ConfigError(f"{name}={shown(value)} is out of range; it must be {words}")


def check_float(
    name: str, value: Any, low: float, high: float = math.inf, *, open_low: bool = False
) -> None:
    """Checks that a setting is a number in [low, high], or (low, high] if `open_low`.

    Finite means as a float32, which is what programs compute with; and a number above 0 may not
    become 0 there.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ConfigTypeError(
            f"{name}={shown(value)} is {kind(value)}, not a number"
            f"{_hint(name, value, _as_number(value))}"
        )
    number = _as_float(value)
    is_tiny = open_low and low == 0 < number < float(np.finfo(np.float32).tiny)
    if (
        is_tiny
        or not max(low, -MAX_FLOAT) <= number <= min(high, MAX_FLOAT)
        or (open_low and number == low)
    ):
        raise ConfigError(
            f"{name}={shown(value)} is out of range; it must be {_words(low, high, open_low)}"
        )


def check_bool(name: str, value: Any) -> None:
    """Checks that a setting is True or False."""
    if not isinstance(value, bool):
        raise ConfigTypeError(f"{name}={shown(value)} is {kind(value)}; expected True or False")


def check_kind(name: str, value: Any, expected: type) -> None:
    """Checks that something is an instance of a class."""
    if not isinstance(value, expected):
        raise ConfigTypeError(
            f"{name}={shown(value)} is {kind(value)}; expected an instance of {expected.__name__}"
        )


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Checks that a setting is one of the choices, which are texts."""
    if not isinstance(value, str) or value not in choices:
        near = did_you_mean(value, choices) if isinstance(value, str) else ""
        listed = ", ".join(map(repr, choices))
        raise ConfigError(f"{name}={shown(value)} is not one of {listed}{near}")


def check_callable(name: str, value: Any, argument: str) -> None:
    """Checks that a setting is a function of one argument, or None."""
    if value is not None and (not callable(value) or isinstance(value, type)):
        raise ConfigTypeError(
            f"{name}={shown(value)} is {kind(value)}; expected a function ({argument}) or None"
        )
    try:
        if value is not None:
            inspect.signature(value).bind(argument)
    except TypeError as error:
        raise ConfigTypeError(f"{name} is called as {name}({argument}), but: {error}") from error
    except ValueError:  # it has no signature to look at
        pass


def check_new_name(of: str, name: Any, value: Any, fits: bool, expected: str, own: Any) -> None:
    """Checks what is registered under a name, which is not to be one in `own`."""
    if not isinstance(name, str) or not fits:
        wrong = value if isinstance(name, str) else name
        raise ConfigTypeError(
            f"register got {shown(wrong)}, {kind(wrong)}; expected a name and {expected}"
        )
    if name in own:
        raise ConfigError(f"{of} {name!r} is the library's own; choose another name")


def check_multiple(name: str, value: int, of: int, what: str) -> None:
    """Checks that a setting is a multiple; the message names the two nearest that are."""
    if value % of:
        below, above = value // of * of, (value // of + 1) * of
        nearest = f"{below} or {above}" if below else f"{above}"
        raise ConfigError(f"{name}={value} is not a multiple of {of} ({what}); use {nearest}")


def _words(low: float, high: float, open_low: bool) -> str:
    words = f"above {low:g}" if open_low else f"{low:g} or more" if low > -math.inf else ""
    end = f"at most {high:g}" if high < math.inf else f"finite (at most {MAX_FLOAT:.4g})"
    return f"{words} and {end}" if words else end


def _hint(name: str, value: Any, number: float | None) -> str:
    """The way out for a value of the wrong type: its number, or nothing at all."""
    if value is None:
        return "; leave it out for its default"
    return "" if number is None else f"; write {name.split(': ')[-1]}={number!r}"


def _as_number(value: Any) -> float | None:
    """The finite number that a text or a number stands for."""
    if not isinstance(value, str | numbers.Real) or isinstance(value, bool):
        return None
    try:
        return number if math.isfinite(number := _as_float(value)) else None
    except ValueError:
        return None


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
