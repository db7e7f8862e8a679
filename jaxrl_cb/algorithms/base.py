"""What the learner asks of an algorithm."""

from collections.abc import Callable
from typing import Protocol

import jax

from jaxrl_cb.types import Array, PyTree, Transition


class Algorithm(Protocol):
    """A hashable value, equal to another one iff it computes the same; A actions.

    Every method is pure and takes one observation or transition: the learner maps them over
    minibatches, weights the losses and differentiates only `loss`. A key is one per minibatch,
    the same for all its transitions.
    """

    def init(self, key: Array, obs: Array) -> PyTree:
        """Parameters for observations like `obs` ([*obs])."""
        ...

    def q_values(self, params: PyTree, obs: Array, key: Array) -> Array:
        """[A] action values."""
        ...

    def target(
        self, params: PyTree, target_params: PyTree, transition: Transition, key: Array
    ) -> Array:
        """What `loss` is drawn towards; never differentiated. [] or any fixed shape."""
        ...

    def loss(
        self, params: PyTree, obs: Array, action: Array, target: Array, key: Array
    ) -> tuple[Array, Array]:
        """The loss [] and the priority [] (how surprising the transition was)."""
        ...


def batched_q(algorithm: Algorithm, params: PyTree) -> Callable[[Array, Array], Array]:
    """The action values of a batch: ``q(obs [B, *obs], key) -> [B, A]``."""
    q_values = jax.vmap(algorithm.q_values, in_axes=(None, 0, None))
    return lambda obs, key: q_values(params, obs, key)
