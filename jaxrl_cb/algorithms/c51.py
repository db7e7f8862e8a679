"""Categorical DQN."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

from jaxrl_cb.algorithms.base import NetworkAlgorithm
from jaxrl_cb.checks import check_bool, check_float, check_int
from jaxrl_cb.ops.distributions import chosen_row, projected
from jaxrl_cb.types import Array, PyTree, Transition


@dataclasses.dataclass(frozen=True)
class C51(NetworkAlgorithm):
    """Learns the probability of each of N evenly spaced returns (Bellemare et al. 2017).

    The target [N] is ``r + discount * z`` of the next action's distribution, projected on the atoms
    (eq. 7). The loss is the cross entropy; the priority is the divergence from the target, which is
    that without what no prediction could avoid (Hessel et al. 2018).

    Attributes:
        network: gives [A, N] logits.
        num_atoms: N, 2 or more.
        v_min: the lowest return; lower ones count as it.
        v_max: the highest.
        double: whether the online network chooses the next action.
    """

    num_atoms: int = 51
    v_min: float = -10.0
    v_max: float = 10.0
    double: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_bool("double", self.double)
        check_int("num_atoms", self.num_atoms, 2)
        check_float("v_min", self.v_min, -math.inf)
        check_float("v_max", self.v_max, self.v_min, open_low=True)

    def q_values(self, params: PyTree, obs: Array, key: Array | None) -> Array:
        return self._means(self.apply(params, obs, key=key))

    def target(
        self, params: PyTree, target_params: PyTree, transition: Transition, key: Array
    ) -> Array:
        logits = self.apply(target_params, transition.next_obs, key=key)
        select = self._means(logits)
        if self.double:
            select = self.q_values(params, transition.next_obs, jax.random.fold_in(key, 1))
        probs = jax.nn.softmax(logits[jnp.argmax(select)])
        atoms = self._atoms()
        return projected(probs, transition.reward + transition.discount * atoms, atoms)

    def loss(
        self, params: PyTree, obs: Array, action: Array, target: Array, key: Array
    ) -> tuple[Array, Array]:
        logits = chosen_row(self.apply(params, obs, key=key), action)
        loss = -jnp.sum(target * jax.nn.log_softmax(logits))
        least = -jnp.sum(xlogy(target, target))  # of any prediction
        return loss, jnp.maximum(loss - least, 0.0)

    def _atoms(self) -> Array:
        return jnp.linspace(self.v_min, self.v_max, self.num_atoms, dtype=jnp.float32)

    def _means(self, logits: Array) -> Array:
        return jnp.sum(jax.nn.softmax(logits) * self._atoms()[None, :], axis=1)
