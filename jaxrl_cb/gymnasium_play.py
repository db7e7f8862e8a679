"""Policies in the environments of Gymnasium, which has the classic tasks under the same names."""

import importlib
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxrl_cb.checks import check_float, check_int
from jaxrl_cb.errors import ConfigError, MissingPackageError
from jaxrl_cb.trainer.policy import Policy


def make_gymnasium(env_id: str, **settings: Any) -> Any:
    """Gymnasium's own environment of this id.

    Raises:
        ConfigError: it has none.
    """
    gymnasium = importlib.import_module("gymnasium")
    if env_id not in gymnasium.registry:
        raise ConfigError(f"Gymnasium has no environment {env_id!r}; play it without gymnasium")
    return gymnasium.make(env_id, **settings)


def play_gymnasium(
    policy: Policy, env_id: str, *, episodes: int, seed: int, epsilon: float = 0.0
) -> np.ndarray:
    """Plays complete episodes, stepped side by side.

    Args:
        policy: of one seed.
        env_id: for example "CartPole-v1".
        episodes: N; episode i is reset with ``seed + i``.
        seed: 0 or more.
        epsilon: probability of a random action, in [0, 1].

    Returns:
        [N] undiscounted returns.
    """
    check_int("episodes", episodes, 1)
    check_int("seed", seed, 0, 2**32 - 1)
    check_float("epsilon", epsilon, 0, 1)
    envs = [make_gymnasium(env_id) for _ in range(episodes)]
    obs = np.stack([env.reset(seed=seed + i)[0] for i, env in enumerate(envs)])
    returns, alive = np.zeros(episodes), np.ones(episodes, bool)
    generator = np.random.default_rng(seed)
    while alive.any():
        coins = generator.random(episodes) < epsilon
        random = generator.integers(policy.spec.num_actions, size=episodes)
        actions = np.where(coins, random, policy.act(obs))
        for i in np.flatnonzero(alive):
            obs[i], reward, terminated, truncated, _ = envs[i].step(int(actions[i]))
            returns[i] += reward
            alive[i] = not (terminated or truncated)
    for env in envs:
        env.close()
    return returns


def gymnasium_frames(policy: Policy, env_id: str, *, episodes: int, seed: int) -> Iterator[Any]:
    """Pictures [height, width, 3] uint8 of greedy episodes, drawn by Gymnasium.

    Raises:
        MissingPackageError: pygame is not installed, with the line that installs it.
    """
    if importlib.util.find_spec("pygame") is None:
        raise MissingPackageError(
            f"{env_id} is drawn by pygame, which is not installed: pip install 'jaxrl-cb[render]', "
            "or in a checkout pip install '.[render]'"
        )
    for driver in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):  # pygame is to open neither
        os.environ.setdefault(driver, "dummy")
    env = make_gymnasium(env_id, render_mode="rgb_array")
    for episode in range(episodes):
        obs, _ = env.reset(seed=seed + episode)
        ended = False
        while not ended:
            yield env.render()
            obs, _, terminated, truncated, _ = env.step(int(policy.act(obs)))
            ended = terminated or truncated
        yield env.render()
    env.close()
