"""Turns whatever a user passes as `env` into an `Environment`."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jaxrl_cb.checks import check_float
from jaxrl_cb.envs.environment import Environment
from jaxrl_cb.envs.gymnax import from_id, from_object
from jaxrl_cb.errors import ConfigError, ConfigTypeError, kind, shown


def make(
    env: Any,
    env_kwargs: Mapping[str, Any] | None = None,
    env_params: Mapping[str, float] | None = None,
) -> Environment:
    """Makes an environment.

    Args:
        env: a gymnax id, a gymnax environment (its default parameters are taken), a pair
            ``(env, params)``, or an `Environment` (see `functional`).
        env_kwargs: parameters or constructor arguments; only with an id.
        env_params: parameters that are no constants of compiled programs; with an id, or an
            `Environment` that has them already, whose values they replace.

    Raises:
        UnknownEnvError, UnsupportedEnvError, ConfigError, ConfigTypeError: with the way out.
    """
    if not isinstance(env_kwargs, Mapping | None):
        raise ConfigTypeError(f"env_kwargs={shown(env_kwargs)} is {kind(env_kwargs)}, not a dict")
    if not isinstance(env_params, Mapping | None):
        raise ConfigTypeError(f"env_params={shown(env_params)} is {kind(env_params)}, not a dict")
    env_kwargs = dict(env_kwargs or {})
    if isinstance(env, str):
        return from_id(env, env_kwargs, dict(env_params or {}))
    if env_kwargs:
        raise ConfigError("env_kwargs goes with an environment id; pass (env, params) instead")
    if isinstance(env, Environment):
        return _with_params(env, env_params or {})
    if env_params:
        raise ConfigError("env_params goes with an environment id; pass (env, params) instead")
    if env is None or isinstance(env, bool | int | float | bytes):
        raise ConfigTypeError(
            f"env={shown(env)} is neither an environment id nor an environment; write for example "
            "'CartPole-v1'"
        )
    if isinstance(env, type):
        raise ConfigTypeError(f"env is the class {env.__name__}; write {env.__name__}()")
    if isinstance(env, tuple):
        if len(env) != 2:
            raise ConfigTypeError(f"env is a tuple of {len(env)}; expected (env, params)")
        if isinstance(env[0], str):
            raise ConfigTypeError(
                f"env={shown(env)} is an id with parameters; write env={env[0]!r} and env_kwargs"
            )
        return from_object(*env)
    return from_object(env)


def _with_params(env: Environment, given: Mapping[str, float]) -> Environment:
    """The environment with other values of parameters that it has."""
    for name, value in given.items():
        if name not in env.env_params:
            raise ConfigError(
                f"env_params: {env.spec.id} was made without {shown(name)} among its env_params, "
                f"which are {', '.join(env.env_params) or 'none'}; make it by "
                "jaxrl_cb.envs.make(id, env_params={...}), which wrappers pass on"
            )
        check_float(f"env_params: {name}", value, -math.inf)
    if not given:
        return env
    values = {**env.env_params, **{name: float(value) for name, value in given.items()}}
    return dataclasses.replace(env.with_params(values), env_params=values, bind=env.bind)
