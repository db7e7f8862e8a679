"""Implicit quantile networks, plain and Munchausen."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxrl_cb.algorithms.base import NetworkAlgorithm
from jaxrl_cb.checks import check_bool, check_int
from jaxrl_cb.ops.distributions import chosen_row, midpoints, quantile_huber
from jaxrl_cb.ops.mapped import SAMPLE_AXIS, TARGET_AXIS, own_key
from jaxrl_cb.ops.munchausen import Munchausen
from jaxrl_cb.types import Array, PyTree, Transition


@dataclasses.dataclass(frozen=True)
class IQN(NetworkAlgorithm):
    """Learns the quantiles at random fractions (Dabney et al. 2018, IQN; Vieillard et al. 2020).

    The target [num_target_fractions] is ``r + discount * quantiles`` of the action with the
    greatest mean, the loss that of `QRDQN` at the drawn fractions (eq. 3); M-IQN: `Munchausen`.

    Attributes:
        network: ``apply(params, obs, fractions [K])`` gives [A, K] quantiles.
        num_fractions: drawn for the loss, for each sample.
        num_target_fractions: drawn for the target; as many, evenly spaced, are what the next action
            or policy is found by.
        num_acting_fractions: evenly spaced, that action values are the mean of.
        double: whether the online network chooses the next action.
        munchausen: makes it M-IQN, whose target network does all; `double` is not asked.
    """

    num_fractions: int = 8
    num_target_fractions: int = 8
    num_acting_fractions: int = 32
    double: bool = False
    munchausen: Munchausen | None = None

    def __post_init__(self):
        super().__post_init__()
        check_bool("double", self.double)
        for name in ("num_fractions", "num_target_fractions", "num_acting_fractions"):
            check_int(name, getattr(self, name), 1)

    def init(self, key: Array, obs: Array) -> PyTree:
        return self.network.init(key, obs, midpoints(1))

    def q_values(self, params: PyTree, obs: Array, key: Array | None) -> Array:
        return self._means(params, obs, key, self.num_acting_fractions)

    def target(
        self, params: PyTree, target_params: PyTree, transition: Transition, key: Array
    ) -> Array:
        reward, discount, next_obs = transition.reward, transition.discount, transition.next_obs
        key, key_select = jax.random.split(key)
        fractions = self._drawn(key, self.num_target_fractions)
        quantiles = self.apply(target_params, next_obs, fractions, key=key)
        count = self.num_target_fractions
        if self.munchausen:
            q = self._means(target_params, transition.obs, key, count)
            q_next = self._means(target_params, next_obs, key, count)
            bonus = self.munchausen.bonus(q, transition.action)
            return reward + bonus + discount * self.munchausen.value(q_next, quantiles)
        select = (params, key_select) if self.double else (target_params, key)
        action = jnp.argmax(self._means(select[0], next_obs, select[1], count))
        return reward + discount * quantiles[action]

    def loss(
        self, params: PyTree, obs: Array, action: Array, target: Array, key: Array
    ) -> tuple[Array, Array]:
        fractions = self._drawn(key, self.num_fractions)
        quantiles = chosen_row(self.apply(params, obs, fractions, key=key), action)
        return quantile_huber(quantiles, fractions, target)

    def _means(self, params: PyTree, obs: Array, key: Array | None, count: int) -> Array:
        fractions = midpoints(count)
        return jnp.mean(self.apply(params, obs, fractions, key=key), axis=1)

    def _drawn(self, key: Array, count: int) -> Array:
        for axis in (SAMPLE_AXIS, TARGET_AXIS):
            key = own_key(key, axis)
        return jax.random.uniform(key, (count,))
