"""What the learner asks of an algorithm."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jaxrl_cb.checks import check_choice
from jaxrl_cb.errors import ConfigTypeError, kind, shown
from jaxrl_cb.ops.losses import LOSSES
from jaxrl_cb.ops.mapped import ENVIRONMENT_AXIS, own_key
from jaxrl_cb.ops.targets import chosen
from jaxrl_cb.types import Array, PyTree, Transition


class Algorithm(Protocol):
    """A hashable value, equal to another one iff it computes the same; A actions.

    Every method is pure and takes one observation or transition: the learner maps them over
    minibatches, weights the losses and differentiates only `loss`. A key is one per minibatch,
    the same for all its transitions; of what is acted upon each environment has its own.
    """

    def init(self, key: Array, obs: Array) -> PyTree:
        """Parameters for observations like `obs` ([*obs])."""
        ...

    def q_values(self, params: PyTree, obs: Array, key: Array | None) -> Array:
        """[A] action values; without a key, as in tests, nothing about them is random."""
        ...

    def loss(
        self, params: PyTree, obs: Array, action: Array, target: Array, key: Array
    ) -> tuple[Array, Array]:
        """The loss [] and the priority [] (how surprising the transition was)."""
        ...


class ReplayAlgorithm(Algorithm, Protocol):
    """One that learns from a replay and a target network; online learners make targets [] alone."""

    def target(
        self, params: PyTree, target_params: PyTree, transition: Transition, key: Array
    ) -> Array:
        """What `loss` is drawn towards; never differentiated. [] or any fixed shape."""
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


def batched_q(algorithm: Algorithm, params: PyTree) -> Callable[[Array, Array | None], Array]:
    """The action values in each environment: ``q(obs [E, *obs], key) -> [E, A]``.

    What is random about them is drawn in each by itself, so that environments that are acted in at
    once explore differently, though they share parameters.
    """

    def q_values(obs: Array, key: Array | None) -> Array:
        own = None if key is None else own_key(key, ENVIRONMENT_AXIS)
        return algorithm.q_values(params, obs, own)

    return jax.vmap(q_values, in_axes=(0, None), axis_name=ENVIRONMENT_AXIS)


def greedy_q(algorithm: Algorithm, params: PyTree) -> Callable[[Array, Any], Array]:
    """The same for tests, where nothing is random: the key is not looked at."""
    q_values = batched_q(algorithm, params)
    return lambda obs, _: q_values(obs, None)


@dataclasses.dataclass(frozen=True)
class NetworkAlgorithm:
    """What algorithms have in common whose parameters are those of one network.

    Attributes:
        network: anything with flax's ``init(key, obs)`` and ``apply(params, obs)``; where it has
            an attribute `noisy` that is true, ``apply`` is given ``rngs={"noise": key}``.
    """

    network: Any

    def __post_init__(self):
        for method in ("init", "apply"):
            if isinstance(self.network, type) or not hasattr(self.network, method):
                raise ConfigTypeError(
                    f"network={shown(self.network)} is {kind(self.network)} that has no {method}; "
                    "expected a flax module, for example MLP(num_actions)"
                )

    def init(self, key: Array, obs: Array) -> PyTree:
        """The network's parameters for observations like `obs` ([*obs])."""
        return self.network.init(key, obs)

    def observe(self, params: PyTree, obs: Array) -> PyTree:
        """The parameters after observations [E, *obs], where the network counts them."""
        method = getattr(self.network, "observe", None)
        return params if method is None else method(params, obs)

    def apply(self, params: PyTree, obs: Array, *more: Array, key: Array | None) -> Array:
        """[A] or [A, N] of an observation [*obs], by the network; without a key it has no noise."""
        if key is None or not getattr(self.network, "noisy", False):
            return self.network.apply(params, obs, *more)
        return self.network.apply(params, obs, *more, rngs={"noise": key})


class ActionValues(NetworkAlgorithm):
    """What those have in common that learn one value for each action, by its error.

    Attributes:
        loss_name: "squared" or "huber" (threshold 1); a field of what is made of this.
    """

    loss_name: str

    def __post_init__(self):
        super().__post_init__()
        check_choice("loss", self.loss_name, LOSSES)

    def q_values(self, params: PyTree, obs: Array, key: Array | None) -> Array:
        """[A], what the network gives."""
        return self.apply(params, obs, key=key)

    def loss(
        self, params: PyTree, obs: Array, action: Array, target: Array, key: Array
    ) -> tuple[Array, Array]:
        """The loss [] of ``q(obs, action) - target``, and its magnitude [] as priority."""
        error = chosen(self.apply(params, obs, key=key), action) - target
        return LOSSES[self.loss_name](error), jnp.abs(error)
