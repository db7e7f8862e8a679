"""What the learner asks of an algorithm."""

from collections.abc import Callable, Mapping
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


def observe(algorithm: Algorithm, params: PyTree, obs: Array) -> PyTree:
    """The parameters after observations [E, *obs] were acted upon.

    They change only where the algorithm has a method ``observe(params, obs)``.
    """
    method = getattr(algorithm, "observe", None)
    return params if method is None else method(params, obs)


def split(params: PyTree) -> tuple[PyTree, PyTree]:
    """What gradients change, and the rest: flax's collection "params", and the others if any."""
    if isinstance(params, Mapping) and "params" in params and len(params) > 1:
        return params["params"], {name: params[name] for name in params if name != "params"}
    return params, {}


def joined(learned: PyTree, rest: PyTree) -> PyTree:
    """The opposite of `split`."""
    return {"params": learned, **rest} if rest else learned


def batched_q(algorithm: Algorithm, params: PyTree) -> Callable[[Array, Array], Array]:
    """The action values of a batch: ``q(obs [B, *obs], key) -> [B, A]``."""
    q_values = jax.vmap(algorithm.q_values, in_axes=(None, 0, None))
    return lambda obs, key: q_values(params, obs, key)
