"""Sizes of training without a replay."""

import dataclasses
from typing import Annotated

from jaxrl_cb.checks import Range, check_fields


@dataclasses.dataclass(frozen=True)
class OnlineConfig:
    """How rollouts are gathered and learned from (Gallici et al. 2024, PQN).

    Attributes:
        rollout_length: vector steps from one phase of learning to the next.
        num_minibatches: gradient steps that learn from a rollout once, each from an equal part of
            it; divides `num_envs` x `rollout_length`.
        update_epochs: times that all of a rollout is learned from.
        td_lambda: weight of later steps in the target, in [0, 1]: 0 looks one step ahead, 1 as far
            as the rollout goes.
    """

    rollout_length: Annotated[int, Range(1)] = 32
    num_minibatches: Annotated[int, Range(1)] = 32
    update_epochs: Annotated[int, Range(1)] = 2
    td_lambda: Annotated[float, Range(0, 1)] = 0.65

    def __post_init__(self):
        check_fields(self)
