"""Testing a policy outside a run."""

import functools
from typing import Any

import jax
import numpy as np

from jaxrl_cb.algorithms.base import Algorithm, greedy_q
from jaxrl_cb.checks import check_float, check_int
from jaxrl_cb.envs import Environment, EnvSpec
from jaxrl_cb.errors import ConfigError, UnsupportedEnvError
from jaxrl_cb.learners import evaluation
from jaxrl_cb.trainer.policy import Policy, check_policy
from jaxrl_cb.types import ChunkMetrics


def play(
    policy: Policy, environment: Environment, *, episodes: int, seed: int, epsilon: float
) -> np.ndarray:
    """Plays complete episodes, each in an environment of its own.

    Returns:
        [S, episodes] undiscounted returns.
    """
    check_int("episodes", episodes, 1)
    check_int("seed", seed, 0, 2**32 - 1)
    check_float("epsilon", epsilon, 0, 1)
    check_fits(policy, environment.spec)
    program = _program(policy.algorithm, environment.fixed, episodes)
    params, arguments = (
        jax.tree.map(np.asarray, policy.params),
        (np.uint32(seed), np.float32(epsilon)),
    )
    each = [jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(policy.num_seeds)]
    results = [program(own, *arguments) for own in each]
    check_complete(environment, np.stack([result.is_complete for result in results]))
    return np.stack([np.asarray(result.returns) for result in results])


def check_fits(policy: Policy, spec: EnvSpec) -> None:
    """Raises ConfigError if a policy cannot be played in an environment."""
    check_policy("policy", policy)
    if spec.time_limit is None:
        raise ConfigError(
            f"environment {spec.id!r} has no time limit, so a test might never end; give it one: "
            "jaxrl_cb.envs.time_limit(env, steps)"
        )
    if spec.obs_shape != policy.spec.obs_shape or spec.num_actions != policy.spec.num_actions:
        raise ConfigError(
            f"the policy was trained for {policy.spec.id!r} ({policy.spec.obs_shape} observations, "
            f"{policy.spec.num_actions} actions), not for {spec.id!r} ({spec.obs_shape}, "
            f"{spec.num_actions})"
        )


def check_complete(environment: Environment, is_complete: np.ndarray) -> None:
    """Raises ConfigError if an episode did not end within the environment's time limit."""
    if not np.all(is_complete):
        spec = environment.spec
        raise ConfigError(
            f"environment {spec.id!r} did not end an episode within its declared time limit of "
            f"{spec.time_limit} steps; its step has to set truncated by then"
        )


def check_packing(environment: Environment, metrics: ChunkMetrics) -> None:
    """Raises UnsupportedEnvError if replay lost a part of an observation."""
    if (metrics.num_lossy > 0).any():
        raise UnsupportedEnvError(
            f"environment {environment.spec.id!r} is declared binary, but its observations hold "
            "other numbers than 0 and 1, which replay cannot keep as bits; make it with "
            "is_binary=False"
        )


@functools.lru_cache(maxsize=8)
def _program(algorithm: Algorithm, environment: Environment, episodes: int) -> Any:
    def run(params, seed, epsilon):
        key, q_values = jax.random.key(seed), greedy_q(algorithm, params)
        return evaluation.evaluate(environment, q_values, epsilon, key, episodes)

    return jax.jit(run)
