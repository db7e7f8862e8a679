"""Spaces of settings: lists of values and distributions, and the trials drawn from them."""

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxrl_cb.checks import check_float
from jaxrl_cb.config import check_names
from jaxrl_cb.errors import ConfigError, ConfigTypeError, kind, shown

SHARED = ("seed", "num_seeds", "max_epochs", "epoch_num_steps", "num_test_episodes")
"""Settings that all trials have in common, as they are trained together."""


DICTS = ("env_params.", "env_kwargs.")
"""What names of a space begin with that are entries of a setting which is a dict."""


@dataclasses.dataclass(frozen=True)
class Distribution:
    """Where random search draws a setting from; see `uniform` and `log_uniform`."""

    low: float
    high: float
    is_log: bool = False
    is_whole: bool = False

    def __post_init__(self):
        check_float("low", self.low, -math.inf)
        check_float("high", self.high, self.low)
        if self.is_log:
            check_float("low", self.low, 0, open_low=True)

    def draw(self, random: np.random.Generator) -> int | float:
        """A value; whole ones are as likely as all that rounds to them."""
        low, high = self.low, self.high
        if self.is_whole:
            low, high = low - 0.5, high + 0.5
        if self.is_log:
            value = math.exp(random.uniform(math.log(low), math.log(high)))
        else:
            value = random.uniform(low, high)
        return int(np.clip(round(value), self.low, self.high)) if self.is_whole else float(value)


def uniform(low: float, high: float) -> Distribution:
    """A number between two others, each as likely; whole if both are ints."""
    return Distribution(low, high, is_whole=isinstance(low, int) and isinstance(high, int))


def log_uniform(low: float, high: float) -> Distribution:
    """A number whose logarithm is uniform, for learning rates and the like; whole for two ints."""
    return Distribution(low, high, True, isinstance(low, int) and isinstance(high, int))


def draw_trials(
    space: Mapping[str, Any], num_trials: int | None, seed: int = 0
) -> list[dict[str, Any]]:
    """The settings of each trial: all combinations, or so many drawn at random.

    Args:
        space: see `sweep`.
        num_trials: None for all combinations.
        seed: of random draws.
    """
    if not isinstance(space, Mapping) or not space:
        what = "empty" if space == {} else kind(space)
        raise ConfigTypeError(
            f"space={shown(space)} is {what}; expected a dict of values by setting, for example "
            "{'learning_rate': log_uniform(1e-4, 1e-2), 'n_step': [1, 3]}"
        )
    names = [name.partition(".")[0] if name.startswith(DICTS) else name for name in space]
    check_names(name for name in names if name != "algorithm")
    space = {name: _plain(values) for name, values in space.items()}
    for name, values in space.items():
        if name in SHARED:
            raise ConfigError(f"space: {name} is the same for all trials; give it beside the space")
        if not isinstance(values, Distribution | list | tuple) or not values:
            raise ConfigTypeError(
                f"space: {name}={shown(values)} is {kind(values)}; expected a list of values, "
                "uniform(low, high) or log_uniform(low, high)"
            )
    if num_trials is None:
        endless = [name for name, values in space.items() if isinstance(values, Distribution)]
        if endless:
            raise ConfigError(f"space: {endless[0]} is a distribution; say num_trials as well")
        return [dict(zip(space, own, strict=True)) for own in itertools.product(*space.values())]
    random = np.random.default_rng(seed)

    def value(values: Any) -> Any:
        if isinstance(values, Distribution):
            return values.draw(random)
        return values[random.integers(len(values))]

    return [{name: value(values) for name, values in space.items()} for _ in range(num_trials)]


def _plain(values: Any) -> Any:
    """A NumPy or JAX array (``np.logspace(-4, -2, 5)``) as a list."""
    is_array = isinstance(values, np.ndarray | jax.Array) and values.ndim
    return np.asarray(values).tolist() if is_array else values


KINDS = {"uniform": uniform, "log_uniform": log_uniform}


def together(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a trial: those that all have, and its own."""
    settings = dict(shared)
    for name, value in own.items():
        outer, dot, entry = name.partition(".")
        is_entry = dot and name.startswith(DICTS)
        settings[outer] = {**settings.get(outer, {}), entry: value} if is_entry else value
    return settings


def parse_space(texts: Sequence[str]) -> dict[str, Any]:
    """A space from the command line.

    Args:
        texts: each ``name=value,value``, ``name=uniform(low,high)`` or ``name=log_uniform(low,
            high)``; a value is JSON, or else a text.

    Raises:
        ConfigError: a text is none of these, or names a setting again.
    """
    space: dict[str, Any] = {}
    for text in texts:
        name, equals, values = (part.strip() for part in text.partition("="))
        if not (name and equals and values) or name in space:
            why = "again" if name in space else "is no setting and its values"
            raise ConfigError(
                f"{shown(text)} {why}; write for example learning_rate=1e-3,1e-2 or "
                "learning_rate=log_uniform(1e-4,1e-2)"
            )
        kind_name, bracket, ends = values.partition("(")
        if bracket and kind_name in KINDS:
            space[name] = _distribution(kind_name, _values(ends.removesuffix(")")))
        else:
            space[name] = _values(values)
    return space


def space_from_json(data: Any) -> dict[str, Any]:
    """A space from a file: lists of values, or ``{"log_uniform": [low, high]}``.

    Raises:
        ConfigError: a distribution that there is not.
    """
    if not isinstance(data, dict):
        raise ConfigTypeError(f"a space is {kind(data)}; expected an object of values by setting")
    return {
        name: _distribution(*next(iter(values.items())))
        if isinstance(values, dict) and len(values) == 1
        else values
        for name, values in data.items()
    }


def _distribution(name: str, ends: Any) -> Distribution:
    if name not in KINDS or not isinstance(ends, list) or len(ends) != 2:
        raise ConfigError(
            f"{shown(name)} of {shown(ends)} is no distribution; there are {', '.join(KINDS)} of "
            "two numbers"
        )
    return KINDS[name](*ends)


def _values(text: str) -> list[Any]:
    """JSON values between commas; what is none is a text."""
    try:
        return json.loads(f"[{text}]")
    except json.JSONDecodeError:
        return [_value(part.strip()) for part in text.split(",")]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return {"True": True, "False": False}.get(text, text)


def in_json(values: Any) -> Any:
    """A list of values or a distribution for JSON, see `space_from_json`."""
    if isinstance(values, Distribution):
        return {"log_uniform" if values.is_log else "uniform": [values.low, values.high]}
    return list(_plain(values))
