"""DQN and Double DQN."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxrl_cb.checks import check_bool, check_choice
from jaxrl_cb.errors import ConfigTypeError, kind, shown
from jaxrl_cb.ops.losses import LOSSES
from jaxrl_cb.ops.targets import chosen, double_target, max_target
from jaxrl_cb.types import Array, PyTree, Transition


@dataclasses.dataclass(frozen=True)
class DQN:
    """Deep Q-learning (Mnih et al. 2015; double: van Hasselt et al. 2016).

    Attributes:
        network: anything with flax's ``init(key, obs)`` and ``apply(params, obs) -> [A]``.
        double: whether the online network chooses the action that the target network values.
        loss_name: "squared" or "huber" (threshold 1).
    """

    network: Any
    double: bool = True
    loss_name: str = "squared"

    def __post_init__(self):
        for method in ("init", "apply"):
            if isinstance(self.network, type) or not hasattr(self.network, method):
                raise ConfigTypeError(
                    f"network={shown(self.network)} is {kind(self.network)} that has no {method}; "
                    "expected a flax module, for example MLP(num_actions)"
                )
        check_bool("double", self.double)
        check_choice("loss", self.loss_name, LOSSES)

    def init(self, key: Array, obs: Array) -> PyTree:
        return self.network.init(key, obs)

    def q_values(self, params: PyTree, obs: Array, key: Array) -> Array:
        return self.network.apply(params, obs)

    def observe(self, params: PyTree, obs: Array) -> PyTree:
        method = getattr(self.network, "observe", None)
        return params if method is None else method(params, obs)

    def target(
        self, params: PyTree, target_params: PyTree, transition: Transition, key: Array
    ) -> Array:
        q_next = self.network.apply(target_params, transition.next_obs)
        if not self.double:
            return max_target(transition.reward, transition.discount, q_next)
        q_select = self.network.apply(params, transition.next_obs)
        return double_target(transition.reward, transition.discount, q_next, q_select)

    def loss(
        self, params: PyTree, obs: Array, action: Array, target: Array, key: Array
    ) -> tuple[Array, Array]:
        error = chosen(self.network.apply(params, obs), action) - target
        return LOSSES[self.loss_name](error), jnp.abs(error)
