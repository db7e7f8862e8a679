"""Munchausen reinforcement learning: the logarithm of the policy added to the reward."""

import dataclasses
import math
from typing import Annotated

import chex
import jax
import jax.numpy as jnp

from jaxrl_cb.checks import Range, check_fields
from jaxrl_cb.types import Array


@dataclasses.dataclass(frozen=True)
class Munchausen:
    """Munchausen's target (Vieillard et al. 2020, eq. 2) of the policy softmax(q / temperature).

    ``r + alpha * clip(temperature * log pi(a|s), clip, 0)
    + gamma * sum_a' pi(a'|s') (z(s', a') - temperature * log pi(a'|s'))``. Of an n-step return the
    first step alone has the bonus.

    Attributes:
        alpha: weight of the bonus, in [0, 1].
        temperature: of the policy, above 0, in units of the reward.
        clip: least value that the logarithm times temperature counts with, at most 0.
    """

    alpha: Annotated[float, Range(0, 1)] = 0.9
    temperature: Annotated[float, Range(0, open_low=True)] = 0.03
    clip: Annotated[float, Range(-math.inf, 0)] = -1.0

    def __post_init__(self):
        check_fields(self)

    def log_policy(self, q_values: Array) -> Array:
        """[A] logarithm of the policy, of action values [A], times the temperature."""
        chex.assert_rank(q_values, 1)
        return self.temperature * jax.nn.log_softmax(q_values / self.temperature)

    def bonus(self, q_values: Array, action: Array) -> Array:
        """[] what is added to the reward of an action.

        Args:
            q_values: [A] of the observation that was acted upon.
            action: [] int.
        """
        return self.alpha * jnp.clip(self.log_policy(q_values)[action], self.clip, 0.0)

    def value(self, q_values: Array, outcomes: Array) -> Array:
        """[N] value of an observation under the policy, entropy included.

        Args:
            q_values: [A] that the policy is made of.
            outcomes: [A, N] what is worth how much: the values themselves, or quantiles.
        """
        policy = jax.nn.softmax(q_values / self.temperature)
        return jnp.sum(policy[:, None] * (outcomes - self.log_policy(q_values)[:, None]), axis=0)
