"""A conformance test for environments that people write themselves."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_cb.checks import check_int
from jaxrl_cb.envs import Environment, make
from jaxrl_cb.errors import UnsupportedEnvError
from jaxrl_cb.types import Array, EnvStep, PyTree


class Played(NamedTuple):
    """What random actions led to: T steps of E environments."""

    first_obs: np.ndarray  # [E, *obs], of the resets
    result: EnvStep  # [T, E, ...]; its state is left out


def check_environment(env: Any, *, num_envs: int = 64, num_steps: int | None = None) -> None:
    """Plays an environment with random actions and says what is wrong with it.

    Looked at are shapes and dtypes, that the functions are pure, that observations and rewards are
    finite, how episodes begin and end (a time limit has to truncate, not to terminate), the
    declared `is_binary`, and that no random key is used twice.

    Args:
        env: what `jaxrl_cb.envs.make` takes.
        num_envs: environments played side by side.
        num_steps: steps of each; None plays somewhat beyond the time limit.

    Raises:
        UnsupportedEnvError: with a line for each fault, and how to mend it.
    """
    check_int("num_envs", num_envs, 2)
    environment = make(env)
    limit = environment.spec.time_limit
    if num_steps is None:
        num_steps = 300 if limit is None else limit + min(limit, 50) + 2
    check_int("num_steps", num_steps, 1)
    faults = [*_purity(environment), *_keys(environment)]
    if not faults:  # playing takes pure functions for granted
        played = _play(environment, num_envs, num_steps)
        faults += [*_numbers(environment, played), *_endings(environment, played)]
        faults += _beginnings(environment, played)
    if faults:
        lines = "".join(f"\n- {fault}" for fault in faults)
        raise UnsupportedEnvError(f"environment {environment.spec.id!r}:{lines}")


def _purity(environment: Environment) -> Iterator[str]:
    """Traced twice, a pure function is the same program, and run twice it gives the same bits."""

    def once(key, action):
        key_reset, key_step, key_next = jax.random.split(key, 3)
        state, obs = environment.reset(key_reset)
        actions = action[None]
        states = jax.tree.map(lambda x: x[None], state)
        result = environment.step_all(key_step[None], key_next[None], states, actions)
        return obs, result._replace(state=())

    inputs = (jax.random.key(0), jnp.int32(0))
    texts = [str(jax.make_jaxpr(lambda *x: once(*x))(*inputs)) for _ in range(2)]
    if texts[0] != texts[1]:
        yield (
            "tracing reset and step twice gives two programs; they must depend on nothing but "
            "their arguments (no counters, no attributes that change, no NumPy random numbers)"
        )
        return
    results = []
    for _ in range(2):  # traced anew: what another source of randomness gave became a constant
        leaves = jax.tree.leaves(jax.jit(lambda *x: once(*x))(*inputs))
        results.append([np.asarray(leaf).tobytes() for leaf in leaves])
    if results[0] != results[1]:
        yield (
            "the same key and action gave two results; draw all randomness from the keys (no NumPy "
            "random numbers, in reset or in step)"
        )


def _keys(environment: Environment) -> Iterator[str]:
    """JAX's own checker of key reuse, over one reset and one step."""

    def reset(keys):
        return environment.reset_all(keys)[1]

    def step(keys_step, keys_reset, states, actions):
        return environment.step_all(keys_step, keys_reset, states, actions).obs

    keys = jax.random.split(jax.random.key(1), 4)[:, None]
    states, _ = jax.jit(environment.reset_all)(keys[0])
    for name, function, inputs in (
        ("reset", reset, (keys[1],)),
        ("step", step, (keys[2], keys[3], states, jnp.zeros(1, jnp.int32))),
    ):
        try:
            with jax.debug_key_reuse(True):
                jax.jit(function)(*inputs)
        except jax.errors.KeyReuseError as error:
            if "In scan" in str(error):  # the checker takes scanning over keys for reuse
                continue
            yield (
                f"{name} uses a random key twice, so that draws depend on each other; split the "
                "key and use each part once"
            )
            return  # a step holds a reset


def _play(environment: Environment, num_envs: int, num_steps: int) -> Played:
    def play(key: Array) -> Any:
        key_reset, key_scan = jax.random.split(key)
        states, obs = environment.reset_all(jax.random.split(key_reset, num_envs))

        def step(states: PyTree, key: Array):
            keys = jax.random.split(key, 2 * num_envs + 1)
            actions = jax.random.randint(keys[0], (num_envs,), 0, environment.spec.num_actions)
            result = environment.step_all(
                keys[1 : num_envs + 1], keys[num_envs + 1 :], states, actions
            )
            return result.state, result._replace(state=())

        keys = jax.random.split(key_scan, num_steps)
        return obs, jax.lax.scan(step, states, keys)[1]

    first_obs, result = jax.jit(play)(jax.random.key(2))
    return Played(np.asarray(first_obs), jax.tree.map(np.asarray, result))


def _numbers(environment: Environment, played: Played) -> Iterator[str]:
    spec, result = environment.spec, played.result
    for name, values in (("obs", result.obs), ("final obs", result.final_obs)):
        if not np.all(np.isfinite(values.astype(np.float64))):
            yield f"{name} holds NaN or infinity; a network cannot learn from it"
    if not np.all(np.isfinite(result.reward)):
        yield "reward holds NaN or infinity"
    if spec.is_binary and not np.all((result.final_obs == 0) | (result.final_obs == 1)):
        yield "it is declared binary, but observations hold other numbers than 0 and 1"


def _endings(environment: Environment, played: Played) -> Iterator[str]:
    """Lengths of episodes against the declared time limit."""
    limit, result = environment.spec.time_limit, played.result
    num_steps, num_envs = result.terminated.shape
    ages, at_limit, beyond = np.zeros(num_envs, int), [], False
    for step in range(num_steps):
        ages += 1
        ended = result.terminated[step] | result.truncated[step]
        beyond |= bool(limit is not None and np.any(ages > limit))
        flags = np.stack([result.terminated[step], result.truncated[step]], axis=1)
        at_limit += flags[ages == limit].tolist()
        ages[ended] = 0
    if limit is None:
        yield (
            "it has no time limit, so that a test might never end; declare one "
            "(time_limit=...) or wrap it: jaxrl_cb.envs.time_limit(env, steps)"
        )
    elif beyond:
        yield (
            f"an episode went on beyond the declared time limit of {limit} steps; step has to set "
            "truncated by then"
        )
    elif len(at_limit) > 1 and all(terminated and not cut for terminated, cut in at_limit):
        yield (
            f"all {len(at_limit)} episodes that reached the time limit of {limit} steps were "
            "terminated there; a time limit has to set truncated, as the future it cuts off "
            "still has a value"
        )


def _beginnings(environment: Environment, played: Played) -> Iterator[str]:
    """Starts after an episode's end against those of `reset`: the same distribution."""
    result, resets = played.result, played.first_obs
    ended = result.terminated | result.truncated
    starts = result.obs[ended].astype(np.float64).reshape(int(ended.sum()), -1)
    resets = resets.astype(np.float64).reshape(len(resets), -1)
    if len(starts) < 2:
        return
    random_resets = bool(np.any(resets != resets[0]))
    if random_resets and len(starts) > 8 and np.all(starts == starts[0]):
        yield "every episode after the first begins alike; the automatic reset must use its key"
        return
    spread = np.sqrt(resets.var(axis=0) / len(resets) + starts.var(axis=0) / len(starts))
    distance = np.abs(resets.mean(axis=0) - starts.mean(axis=0))
    scale = 1e-6 + 1e-6 * np.abs(resets).max(axis=0)
    if np.any(distance > 6 * spread + scale) and math.isfinite(float(distance.max())):
        yield (
            "episodes after the first begin elsewhere than those of reset (means differ by more "
            "than six standard errors); the observation after an end must be that of a new reset"
        )
