"""Animations of policies."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from jaxrl_cb.checks import check_int
from jaxrl_cb.envs import Environment, make
from jaxrl_cb.errors import ConfigError, shown
from jaxrl_cb.files import checked_output, writing
from jaxrl_cb.gymnasium_play import gymnasium_frames
from jaxrl_cb.trainer.evaluate import check_fits
from jaxrl_cb.trainer.policy import Policy

DRAWN_BY_GYMNASIUM = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0")
COLORS = np.array(
    [
        *([230, 230, 230], [31, 119, 180], [255, 127, 14], [44, 160, 44], [214, 39, 40]),
        *([148, 103, 189], [140, 86, 75], [227, 119, 194], [188, 189, 34], [23, 190, 207]),
        [80, 80, 80],
    ],
    np.uint8,
)


def render_gif(
    policy: Policy,
    environment: Any,
    path: str | os.PathLike[str],
    *,
    episodes: int = 1,
    seed: int = 0,
    fps: int = 30,
    max_frames: int = 1_000,
) -> int:
    """Writes an animated GIF of greedy episodes.

    The classic tasks are drawn by Gymnasium, in its own environment; others whose observations are
    grids ([height, width] or [height, width, channels], as MinAtar's) in a colour per channel.

    Args:
        policy: of one seed.
        environment: that it was trained for; whatever `jaxrl_cb.envs.make` takes.
        path: of the file.
        episodes: complete episodes.
        seed: of the episodes.
        fps: frames per second, at most 1000.
        max_frames: at most.

    Returns:
        Number of frames.

    Raises:
        ConfigError: the environment cannot be drawn.
    """
    from PIL import Image

    check_int("episodes", episodes, 1)
    check_int("seed", seed, 0, 2**32 - 1)
    check_int("fps", fps, 1, 1000)
    check_int("max_frames", max_frames, 1)
    environment, path = make(environment), checked_output(path)
    check_fits(policy, environment.spec)
    if policy.num_seeds != 1:
        raise ConfigError(f"policy has {policy.num_seeds} seeds; pick one of them, as policy[0]")
    if path.suffix.lower() != ".gif":
        raise ConfigError(f"output={shown(str(path))} is not a .gif, the only kind that is written")
    spec = environment.spec
    if spec.id in DRAWN_BY_GYMNASIUM:
        frames = gymnasium_frames(policy, spec.id, episodes=episodes, seed=seed)
    elif len(spec.obs_shape) in (2, 3) and min(spec.obs_shape[:2]) > 1:
        frames = _grid_frames(policy, environment, episodes=episodes, seed=seed)
    else:
        raise ConfigError(
            f"environment {spec.id!r} cannot be drawn: it is neither one of "
            f"{', '.join(DRAWN_BY_GYMNASIUM)} nor has it observations that are grids"
        )
    images = [Image.fromarray(frame) for frame in _first(frames, max_frames)]
    first, *others = (image.convert("P", palette=Image.Palette.ADAPTIVE) for image in images)
    with writing("output", path):
        first.save(path, save_all=True, append_images=others, duration=round(1000 / fps), loop=0)
    return len(images)


def _first(frames: Iterable[Any], count: int) -> Iterator[Any]:
    return (frame for frame, _ in zip(frames, range(count), strict=False))


def _grid_frames(
    policy: Policy, environment: Environment, *, episodes: int, seed: int
) -> Iterator[np.ndarray]:
    step = jax.jit(environment.step)
    for episode in range(episodes):
        key, key_reset = jax.random.split(jax.random.key(seed + episode))
        state, obs = jax.jit(environment.reset)(key_reset)
        yield _picture(np.asarray(obs))
        ended = False
        while not ended:
            key, key_step, key_next = jax.random.split(key, 3)
            result = step(key_step, key_next, state, policy.act(obs))
            state, obs = result.state, result.obs
            ended = bool(result.terminated | result.truncated)
            yield _picture(np.asarray(result.final_obs))


def _picture(obs: np.ndarray) -> np.ndarray:
    """[height, width (, channels)] to colours, enlarged to about 320 pixels; later channels win."""
    channels = obs if obs.ndim == 3 else obs[..., None]
    index = np.zeros(channels.shape[:2], int)
    for channel in range(channels.shape[-1]):
        index[channels[..., channel] > 0.5] = 1 + channel % (len(COLORS) - 1)
    size = max(1, 320 // max(index.shape))
    return np.kron(COLORS[index], np.ones((size, size, 1), np.uint8))
