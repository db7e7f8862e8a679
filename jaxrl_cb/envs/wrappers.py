"""Environments made of environments. Each takes what `make` takes and gives an `Environment`.

Wrappers of the reward change what is learned from, never what is reported: tests, thresholds and
training returns stay in the environment's own units (`EnvStep.score`).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxrl_cb.checks import check_float, check_int
from jaxrl_cb.envs.environment import ENV_AXIS, Environment, begun_anew, checked, strong
from jaxrl_cb.envs.make import make
from jaxrl_cb.ops.statistics import Moments, merged, no_moments
from jaxrl_cb.types import Array, EnvStep, PyTree


def sticky_actions(env: Any, probability: float = 0.25) -> Environment:
    """Repeats the previous action instead of the chosen one with some probability.

    (Machado et al. 2018, section 5.) An episode's first action is never replaced.

    Args:
        env: what `make` takes.
        probability: in [0, 1].
    """
    check_float("probability", probability, 0, 1)
    env = make(env)

    def around(env: Environment):
        def reset(key):
            state, obs = env.reset(key)
            return (state, jnp.int32(-1)), obs

        def step(key_step, key_reset, state, action):
            inner, previous = state
            key_step, key_sticky = jax.random.split(key_step)
            repeats = jax.random.bernoulli(key_sticky, probability) & (previous >= 0)
            action = jnp.where(repeats, previous, action)
            result = env.step(key_step, key_reset, inner, action)
            return result._replace(state=(result.state, jnp.where(_ended(result), -1, action)))

        return reset, step

    return _wrapped("sticky_actions", env, around, probability)


def action_repeat(env: Any, times: int) -> Environment:
    """Takes every action several times, or until the episode ends; rewards are summed.

    Args:
        env: what `make` takes.
        times: 1 or more. The time limit becomes the number of actions that fit the old one.
    """
    check_int("times", times, 1)
    env = make(env)

    def around(env: Environment):
        def step(key_step, key_reset, state, action):
            def again(result: EnvStep, keys: tuple[Array, Array]):
                new = env.step(*keys, result.state, action)
                reward, score = result.reward + new.reward, result.score + new.score
                new = new._replace(reward=reward, score=score)
                return _select(_ended(result), result, new), None

            key_step, step_rest = jax.random.split(key_step)
            key_reset, reset_rest = jax.random.split(key_reset)
            first = env.step(key_step, key_reset, state, action)
            rest = (jax.random.split(step_rest, times - 1), jax.random.split(reset_rest, times - 1))
            return lax.scan(again, first, rest)[0] if times > 1 else first

        return env.reset, step

    limit = env.spec.time_limit
    limit = None if limit is None else -(-limit // times)
    return _wrapped("action_repeat", env, around, times, time_limit=limit)


def time_limit(env: Any, steps: int) -> Environment:
    """Truncates episodes that are still running after so many steps.

    The environment's reward threshold, which belongs to its own limit, is dropped.

    Args:
        env: what `make` takes; it may have a time limit of its own, or none.
        steps: 1 or more.
    """
    check_int("steps", steps, 1)
    env = make(env)

    def around(env: Environment):
        def reset(key):
            state, obs = env.reset(key)
            return (state, jnp.int32(0)), obs

        def step(key_step, key_reset, state, action):
            inner, age = state
            key_reset, key_cut = jax.random.split(key_reset)
            result = env.step(key_step, key_reset, inner, action)
            cut = (age + 1 >= steps) & ~_ended(result)
            inner, obs = begun_anew(cut, env.reset, key_cut, (result.state, result.obs))
            age = jnp.where(cut | _ended(result), 0, age + 1)
            return result._replace(state=(inner, age), obs=obs, truncated=result.truncated | cut)

        return reset, step

    limit = min(steps, env.spec.time_limit or steps)
    changes = {"time_limit": limit, "reward_threshold": None}
    return _wrapped("time_limit", env, around, steps, **changes)


def frame_stack(env: Any, num_frames: int) -> Environment:
    """Gives the latest observations together, oldest first, along a new first axis.

    An episode begins with its first observation repeated.

    Args:
        env: what `make` takes.
        num_frames: 1 or more.
    """
    check_int("num_frames", num_frames, 1)
    env = make(env)

    def around(env: Environment):
        def repeated(obs: Array) -> Array:
            return jnp.broadcast_to(obs, (num_frames, *obs.shape))

        def reset(key):
            state, obs = env.reset(key)
            return (state, repeated(obs)), repeated(obs)

        def step(key_step, key_reset, state, action):
            inner, frames = state
            result = env.step(key_step, key_reset, inner, action)
            pushed = jnp.concatenate([frames[1:], result.final_obs[None]])
            frames = jnp.where(_ended(result), repeated(result.obs), pushed)
            return result._replace(state=(result.state, frames), obs=frames, final_obs=pushed)

        return reset, step

    shape = (num_frames, *env.spec.obs_shape)
    return _wrapped("frame_stack", env, around, num_frames, obs_shape=shape)


def scale_reward(env: Any, scale: float) -> Environment:
    """Multiplies what is learned from.

    Args:
        env: what `make` takes.
        scale: finite; returns are reported unscaled.
    """
    check_float("scale", scale, -math.inf)
    return _rewarded("scale_reward", env, lambda reward: reward * scale, scale)


def clip_reward(env: Any, low: float = -1.0, high: float = 1.0) -> Environment:
    """Clips what is learned from to [low, high] (Mnih et al. 2015, to [-1, 1]).

    Args:
        env: what `make` takes.
        low: finite.
        high: finite, at least `low`; returns are reported unclipped.
    """
    check_float("low", low, -math.inf)
    check_float("high", high, low)
    return _rewarded("clip_reward", env, lambda reward: jnp.clip(reward, low, high), (low, high))


def normalize_reward(env: Any, gamma: float = 0.99, epsilon: float = 1e-8) -> Environment:
    """Divides what is learned from by the running deviation of the discounted return.

    The statistics are part of the environments' state, common to all that are stepped together
    (as Gymnasium's vector wrapper ``NormalizeReward``; Engstrom et al. 2020).

    Args:
        env: what `make` takes.
        gamma: discount of the return whose deviation is taken, in [0, 1].
        epsilon: added to the variance; above 0.
    """
    check_float("gamma", gamma, 0, 1)
    check_float("epsilon", epsilon, 0, open_low=True)
    env = make(env)

    def around(env: Environment):
        def reset(key):
            state, obs = env.reset(key)
            return (state, no_moments(), jnp.float32(0.0)), obs

        def step(key_step, key_reset, state, action):
            inner, moments, discounted = state
            result = env.step(key_step, key_reset, inner, action)
            discounted = gamma * discounted + result.reward
            mean = lax.pmean(discounted, ENV_AXIS)
            variance = lax.pmean((discounted - mean) ** 2, ENV_AXIS)
            batch = Moments(
                count=lax.psum(jnp.float32(1.0), ENV_AXIS), mean=mean, variance=variance
            )
            moments = merged(moments, batch)
            reward = result.reward * lax.rsqrt(moments.variance + epsilon)
            discounted = jnp.where(_ended(result), 0.0, discounted)
            return result._replace(state=(result.state, moments, discounted), reward=reward)

        return reset, step

    return _wrapped("normalize_reward", env, around, (gamma, epsilon))


def _rewarded(name: str, env: Any, change: Callable[[Array], Array], settings: Any) -> Environment:
    env = make(env)

    def around(env: Environment):
        def step(key_step, key_reset, state, action):
            result = env.step(key_step, key_reset, state, action)
            return result._replace(reward=change(result.reward))

        return env.reset, step

    return _wrapped(name, env, around, settings)


def _wrapped(
    name: str,
    env: Environment,
    around: Callable[[Environment], tuple[Any, Any]],
    settings: Any,
    **changes: Any,
) -> Environment:
    """An environment around another one, whose `env_params` it has.

    Args:
        name: of the wrapper.
        env: the one inside.
        around: gives `reset` and `step`.
        settings: all that `around` depends on besides.
        **changes: to the specification.
    """
    spec = dataclasses.replace(env.spec, id=f"{name}({env.spec.id})", **changes)
    whole = checked(spec, *around(env), (name, settings, env.cache_key))
    if not env.env_params:
        return whole

    def bind(values: Mapping[str, Any]) -> Environment:
        reset, step = around(env.with_params(values))
        return dataclasses.replace(whole, reset=lambda key: strong(reset(key)), step=step)

    return dataclasses.replace(whole, env_params=env.env_params, bind=bind)


def _ended(result: EnvStep) -> Array:
    return result.terminated | result.truncated


def _select(condition: Array, yes: PyTree, no: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), strong(yes), strong(no))
