"""The adapter to gymnax (>= 1.0, whose step keeps `terminated` and `truncated` apart).

gymnax is imported when the first environment is made: it brings plotting libraries along and
starts the JAX backend. It is called with JAX's default promotion rules, which it relies on.
"""

import contextlib
import dataclasses
import functools
import importlib
import inspect
import math
import operator
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl_cb.checks import MAX_INT, check_bool, check_float, check_int
from jaxrl_cb.envs.environment import (
    ByIdentity,
    Environment,
    EnvSpec,
    conformed,
    resetting,
    strong,
    tree_values,
)
from jaxrl_cb.envs.lazy import import_gymnax
from jaxrl_cb.errors import (
    ConfigError,
    ConfigTypeError,
    JaxrlError,
    UnknownEnvError,
    UnsupportedEnvError,
    did_you_mean,
    kind,
    shown,
)
from jaxrl_cb.ops.promotion import default_promotion
from jaxrl_cb.types import EnvStep

BINARY = frozenset(
    [
        *("Asterix-MinAtar", "Breakout-MinAtar", "Freeway-MinAtar", "Seaquest-MinAtar"),
        *("SpaceInvaders-MinAtar", "Catch-bsuite", "DeepSea-bsuite", "SimpleBandit-bsuite"),
        *("Pong-misc", "FrozenLake-misc"),
    ]
)
"""Environments whose observations hold only 0 and 1, although they are typed float32."""

NEEDS_DOWNLOAD = {"MNISTBandit-bsuite": "it downloads a data set when it is made"}


def from_id(
    env_id: str, env_kwargs: dict[str, Any], env_params: dict[str, float] | None = None
) -> Environment:
    """Makes a registered gymnax environment.

    Args:
        env_id: for example "CartPole-v1".
        env_kwargs: fields of its parameters (``max_steps_in_episode=200``) or arguments of its
            constructor.
        env_params: numbers among its parameters that are no constants of compiled programs.

    Raises:
        UnknownEnvError: no such id, with the nearest one.
        UnsupportedEnvError: it needs a download, or its actions are not discrete.
        ConfigError: a key of `env_kwargs` is neither a parameter nor an argument, or one of
            `env_params` is no parameter that is a fraction.
    """
    gymnax = import_gymnax()
    registry = importlib.import_module("gymnax.registration")._registry
    if env_id not in registry:
        raise UnknownEnvError(
            f"env={shown(env_id)} is not a gymnax environment{did_you_mean(env_id, registry)}; "
            "`jaxrl-cb envs` lists them, and any environment object can be passed instead"
        )
    if env_id in NEEDS_DOWNLOAD:
        raise UnsupportedEnvError(f"env={env_id!r} is not supported: {NEEDS_DOWNLOAD[env_id]}")
    signature = inspect.signature(registry[env_id]).parameters
    arguments = set(signature)
    if any(not isinstance(name, str) for name in env_kwargs):
        raise ConfigTypeError(f"env_kwargs={shown(env_kwargs)}: every key must be a name")
    for name in arguments & set(env_kwargs):
        _check_like(name, env_kwargs[name], signature[name].default)
    own = {k: v for k, v in env_kwargs.items() if k in arguments}
    with default_promotion(), _blamed_on(env_id, own):
        env, params = gymnax.make(env_id, **own)
    fields = {field.name for field in dataclasses.fields(params)}
    unknown = set(env_kwargs) - fields - arguments
    if unknown:
        name = sorted(unknown)[0]
        raise ConfigError(
            f"env_kwargs: {env_id} has no parameter {name!r}"
            f"{did_you_mean(name, fields | arguments)}. "
            f"It has {', '.join(sorted(fields | arguments))}"
        )
    for name in fields & set(env_kwargs):
        _check_like(name, env_kwargs[name], getattr(params, name))
    new = {name: value for name, value in env_kwargs.items() if name in fields}
    for name, value in new.items():  # some limits are floats, and only work as such
        if isinstance(getattr(params, name), float) and isinstance(value, int):
            new[name] = float(value)
    params = params.replace(**new)
    constructed = tuple(sorted((k, repr(v)) for k, v in env_kwargs.items() if k in arguments))
    maker = ByIdentity(registry[env_id])
    env_params = _checked_params(env_id, env_params or {}, params)
    anything = params.replace(**dict.fromkeys(env_params, 0.0))
    key = ("gymnax", env_id, maker, constructed, tree_values(anything), tuple(sorted(env_params)))
    with _blamed_on(env_id, env_kwargs):
        if not env_params:
            return _adapted(_Made(key, env_id, env, params))
        threshold = gymnasium_threshold(env_id)

        def bind(values: Mapping[str, Any]) -> Environment:
            live = params.replace(**values)
            return _adapt(env, params, env_id, threshold, key, live)

        return dataclasses.replace(bind(env_params), env_params=env_params, bind=bind)


def _checked_params(env_id: str, given: dict[str, Any], params: Any) -> dict[str, float]:
    """`env_params`, each of which has to be one of the parameters that are fractions."""
    fields = [field.name for field in dataclasses.fields(params)]
    known = [name for name in fields if isinstance(getattr(params, name), float)]
    known = [name for name in known if name != "max_steps_in_episode"]
    for name, value in given.items():
        if name not in known:
            raise ConfigError(
                f"env_params: {env_id} has no parameter {shown(name)} that is a fraction"
                f"{did_you_mean(str(name), known)}. It has {', '.join(known) or 'none'}; others "
                "can be given as env_kwargs"
            )
        check_float(f"env_params: {name}", value, -math.inf)
    return {name: float(given[name]) for name in sorted(given)}


@dataclasses.dataclass(frozen=True)
class _Made:
    """A registered environment and its parameters; equal to another iff its `key` is."""

    key: Hashable
    env_id: str = dataclasses.field(compare=False)
    env: Any = dataclasses.field(compare=False)
    params: Any = dataclasses.field(compare=False)


@functools.lru_cache(maxsize=64)
def _adapted(made: _Made) -> Environment:
    """Kept, as to trace an environment's functions takes up to a second."""
    threshold = gymnasium_threshold(made.env_id)
    return _adapt(made.env, made.params, made.env_id, threshold, made.key)


def _check_like(name: str, value: Any, default: Any) -> None:
    """Checks one of `env_kwargs` by the value it replaces: a number stays a number."""
    if isinstance(value, np.ndarray | jax.Array):  # as some parameters are
        return
    name = f"env_kwargs: {name}"
    if isinstance(default, bool):
        check_bool(name, value)
    elif name.endswith(" max_steps_in_episode"):
        is_whole = isinstance(value, float | np.floating) and value.is_integer()
        check_int(name, int(value) if is_whole else value, 1)
    elif isinstance(default, int):
        check_int(name, value, -MAX_INT)
    elif isinstance(default, float):
        check_float(name, value, -math.inf)
    elif isinstance(default, str) and not isinstance(value, str):
        raise ConfigTypeError(f"{name}={shown(value)} is {kind(value)}; expected a text")


@contextlib.contextmanager
def _blamed_on(env_id: str, env_kwargs: dict[str, Any]) -> Iterator[None]:
    """Turns what an environment raises when it is made of `env_kwargs` into a ConfigError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, JaxrlError) or not env_kwargs:
            raise
        raise ConfigError(
            f"env_kwargs={shown(env_kwargs)}: {env_id} cannot be made so ({type(error).__name__}: "
            f"{shown(str(error))}); take other values"
        ) from error


def discrete_ids() -> list[str]:
    """The registered environments that can be trained on."""
    return [entry.id for entry in catalog() if entry.space]


class Entry(NamedTuple):
    """A registered environment: its discrete action space, or why it cannot be trained on."""

    id: str
    space: Any
    reason: str


@functools.cache
def catalog() -> list[Entry]:
    """All environments that gymnax registers."""
    gymnax = import_gymnax()
    entries = []
    for env_id in gymnax.registered_envs:
        if env_id in NEEDS_DOWNLOAD:
            entries.append(Entry(env_id, None, NEEDS_DOWNLOAD[env_id]))
            continue
        with default_promotion():
            env, params = gymnax.make(env_id)
            space = env.action_space(params)
        is_discrete = hasattr(space, "n")
        reason = "" if is_discrete else "its actions are continuous"
        entries.append(Entry(env_id, space if is_discrete else None, reason))
    return entries


def from_object(env: Any, params: Any = None) -> Environment:
    """Adapts a gymnax environment object, or any object with its methods.

    Args:
        env: has ``reset(key, params)`` and ``step(key, state, action, params)`` of 6 values.
        params: its parameters; None takes ``env.default_params``.

    Raises:
        UnsupportedEnvError: what is missing or does not fit, by name.
    """
    if type(env).__module__.split(".")[0] == "gymnasium":
        raise UnsupportedEnvError(
            f"env is {kind(env)} of Gymnasium, which cannot be compiled; pass the id of gymnax's "
            "(`jaxrl-cb envs` lists them), or write it as two functions (jaxrl_cb.envs.functional)"
        )
    for name in ("reset", "step", "action_space"):
        if not callable(getattr(env, name, None)):
            raise UnsupportedEnvError(
                f"env is {kind(env)} without a method {name!r}; pass a gymnax id, a "
                "gymnax environment, a pair (env, params), or what jaxrl_cb.envs.functional makes "
                "of two functions"
            )
    default = getattr(env, "default_params", None)
    params = default if params is None else params
    if dataclasses.is_dataclass(default) and not isinstance(params, type(default)):
        raise ConfigTypeError(
            f"params={shown(params)} is {kind(params)}; expected {type(default).__name__}, for "
            "example env.default_params.replace(...)"
        )
    env_id = str(getattr(env, "name", type(env).__name__))
    key = ("object", ByIdentity(env), tree_values(params))
    return _adapt(env, params, env_id, gymnasium_threshold(env_id), key)


def gymnasium_threshold(env_id: str) -> float | None:
    """The reward threshold of the environment of the same id in Gymnasium's registry, or None."""
    registry = importlib.import_module("gymnasium.envs.registration").registry
    return registry[env_id].reward_threshold if env_id in registry else None


def _adapt(env, params, env_id, threshold, key, live=None) -> Environment:
    """The environment; `live` are its parameters where some of their values may be traced."""
    live = params if live is None else live
    with default_promotion():
        num_actions = getattr(env.action_space(params), "n", None)
    if num_actions is None:
        raise UnsupportedEnvError(
            f"env={env_id!r} has the action space {env.action_space(params)}; Q-learning needs a "
            f"Discrete one, as these have: {', '.join(discrete_ids())}"
        )

    encoded = _encoder(env, params)

    def reset(key):
        with default_promotion():
            obs, state = env.reset(key, live)
        return state, encoded(obs)

    def raw_step(key, state, action):
        with default_promotion():
            obs, state, reward, terminated, _ = env.step_env(key, state, action, live)
            truncated = env.is_truncated(state, live)
        return state, encoded(obs), reward, terminated, truncated

    def own_step(key_step, key_reset, state, action):
        with default_promotion():
            result = env.step(key_step, state, action, live)
        count = len(result) if isinstance(result, tuple | list) else 1
        if count != 6 or "final_observation" not in result[5]:
            raise UnsupportedEnvError(
                f"step of {env_id!r} returned {count} values; expected 6: (obs, state, reward, "
                "terminated, truncated, info) with info['final_observation'] (gymnax 1.x)"
                + (", which is missing" if count == 6 else "")
            )
        obs, state, reward, terminated, truncated, info = result
        obs, final_obs = encoded(obs), encoded(info["final_observation"])
        return EnvStep(state, obs, reward, terminated, truncated, final_obs, reward)

    _, obs = jax.eval_shape(lambda: strong(reset(jax.random.key(0))))
    spec = EnvSpec(
        id=env_id,
        obs_shape=tuple(obs.shape),
        obs_dtype=obs.dtype.name,
        num_actions=int(num_actions),
        time_limit=_time_limit(params),
        reward_threshold=threshold,
        is_binary=env_id in BINARY or obs.dtype == bool,
    )
    # Base.step splits its key and resets; resetting does the same with two keys drawn beforehand.
    base = importlib.import_module("gymnax.environments.environment").Environment
    if type(env).step is base.step:
        return resetting(spec, reset, raw_step, key)
    return conformed(spec, reset, own_step, key)


def _encoder(env: Any, params: Any) -> Callable[[Any], Any]:
    """What turns an observation into an array: one of n states becomes a one-hot vector [n]."""
    with default_promotion():
        space = env.observation_space(params) if hasattr(env, "observation_space") else None
    num_states = getattr(space, "n", None)
    if num_states is None:
        return lambda obs: obs
    return lambda obs: jax.nn.one_hot(obs, int(num_states))


def _time_limit(params: Any) -> int | None:
    limit = getattr(params, "max_steps_in_episode", None)
    try:
        return None if limit is None else operator.index(int(limit))
    except (TypeError, ValueError, OverflowError):
        return None
