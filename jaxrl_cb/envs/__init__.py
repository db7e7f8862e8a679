"""Environments behind one interface; `make` accepts all that a user may have."""

from jaxrl_cb.envs.environment import Environment, EnvSpec, functional
from jaxrl_cb.envs.make import make
from jaxrl_cb.envs.wrappers import (
    action_repeat,
    clip_reward,
    frame_stack,
    normalize_reward,
    scale_reward,
    sticky_actions,
    time_limit,
)

__all__ = [
    "EnvSpec",
    "Environment",
    "action_repeat",
    "clip_reward",
    "frame_stack",
    "functional",
    "make",
    "normalize_reward",
    "scale_reward",
    "sticky_actions",
    "time_limit",
]
