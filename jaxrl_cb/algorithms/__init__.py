"""Algorithms: small frozen values with four pure, unbatched methods."""

from jaxrl_cb.algorithms.base import Algorithm
from jaxrl_cb.algorithms.dqn import DQN

__all__ = ["DQN", "Algorithm"]
