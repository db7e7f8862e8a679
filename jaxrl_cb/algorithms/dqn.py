"""DQN, Double DQN and Munchausen DQN."""

import dataclasses

import jax

from jaxrl_cb.algorithms.base import ActionValues
from jaxrl_cb.checks import check_bool
from jaxrl_cb.ops.munchausen import Munchausen
from jaxrl_cb.ops.targets import double_target, max_target
from jaxrl_cb.types import Array, PyTree, Transition


@dataclasses.dataclass(frozen=True)
class DQN(ActionValues):
    """Deep Q-learning (Mnih et al. 2015; double: van Hasselt et al. 2016; Vieillard et al. 2020).

    The target [] is ``r + discount * max_a q_target(s', a)``; double, ``q_target(s', argmax_a
    q(s', a))`` in place of the maximum (eq. 4 there); Munchausen: `Munchausen`.

    Attributes:
        network: gives [A] action values.
        double: whether the online network chooses the action that the target network values, as
            here by default and in "double_dqn", but not in "dqn".
        loss_name: "squared" or "huber" (threshold 1).
        munchausen: makes it Munchausen DQN, whose target network does all; `double` is not asked.
    """

    double: bool = True
    loss_name: str = "squared"
    munchausen: Munchausen | None = None

    def __post_init__(self):
        super().__post_init__()
        check_bool("double", self.double)

    def target(
        self, params: PyTree, target_params: PyTree, transition: Transition, key: Array
    ) -> Array:
        reward, discount = transition.reward, transition.discount
        q_next = self.apply(target_params, transition.next_obs, key=key)
        if self.munchausen:
            q = self.apply(target_params, transition.obs, key=key)
            bonus = self.munchausen.bonus(q, transition.action)
            return reward + bonus + discount * self.munchausen.value(q_next, q_next[:, None])[0]
        if not self.double:
            return max_target(reward, discount, q_next)
        q_select = self.apply(params, transition.next_obs, key=jax.random.fold_in(key, 1))
        return double_target(reward, discount, q_next, q_select)
