"""PQN."""

import dataclasses

import jax.numpy as jnp

from jaxrl_cb.algorithms.base import NetworkAlgorithm
from jaxrl_cb.checks import check_choice
from jaxrl_cb.ops.losses import LOSSES
from jaxrl_cb.ops.targets import chosen
from jaxrl_cb.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class PQN(NetworkAlgorithm):
    """Q-learning without replay and target network, which LayerNorm keeps steady (Gallici 2024).

    Attributes:
        network: gives [A] action values.
        loss_name: "squared" or "huber" (threshold 1).
    """

    loss_name: str = "squared"

    def __post_init__(self):
        super().__post_init__()
        check_choice("loss", self.loss_name, LOSSES)

    def q_values(self, params: PyTree, obs: Array, key: Array | None) -> Array:
        return self.apply(params, obs, key=key)

    def loss(
        self, params: PyTree, obs: Array, action: Array, target: Array, key: Array
    ) -> tuple[Array, Array]:
        error = chosen(self.apply(params, obs, key=key), action) - target
        return LOSSES[self.loss_name](error), jnp.abs(error)
