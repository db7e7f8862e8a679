"""Quantile-regression DQN."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxrl_cb.algorithms.base import NetworkAlgorithm
from jaxrl_cb.checks import check_bool, check_int
from jaxrl_cb.ops.distributions import chosen_row, midpoints, quantile_huber
from jaxrl_cb.types import Array, PyTree, Transition


@dataclasses.dataclass(frozen=True)
class QRDQN(NetworkAlgorithm):
    """Learns N quantiles of the return (Dabney et al. 2018, QR-DQN).

    The target [N] is ``r + discount * quantiles`` of the action with the greatest mean, the loss
    the quantile Huber loss with threshold 1 (eq. 10), summed over the N and averaged over targets.

    Attributes:
        network: gives [A, N] quantiles.
        num_quantiles: N.
        double: whether the online network chooses the next action.
    """

    num_quantiles: int = 51
    double: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_bool("double", self.double)
        check_int("num_quantiles", self.num_quantiles, 1)

    def q_values(self, params: PyTree, obs: Array, key: Array | None) -> Array:
        return jnp.mean(self.apply(params, obs, key=key), axis=1)

    def target(
        self, params: PyTree, target_params: PyTree, transition: Transition, key: Array
    ) -> Array:
        quantiles = self.apply(target_params, transition.next_obs, key=key)
        select = jnp.mean(quantiles, axis=1)
        if self.double:
            select = self.q_values(params, transition.next_obs, jax.random.fold_in(key, 1))
        return transition.reward + transition.discount * quantiles[jnp.argmax(select)]

    def loss(
        self, params: PyTree, obs: Array, action: Array, target: Array, key: Array
    ) -> tuple[Array, Array]:
        quantiles = chosen_row(self.apply(params, obs, key=key), action)
        return quantile_huber(quantiles, midpoints(self.num_quantiles), target)
