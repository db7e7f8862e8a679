"""How epsilon starts out; callbacks override it."""

import dataclasses
from typing import Annotated

import numpy as np

from jaxrl_cb.checks import Range, check_fields
from jaxrl_cb.ops.segments import segment
from jaxrl_cb.types import Epsilon


@dataclasses.dataclass(frozen=True)
class Exploration:
    """Linear decay of epsilon over environment steps, and epsilon while testing.

    Attributes:
        epsilon_start: probability of a random action at the first step, in [0, 1].
        epsilon_final: the same at and after `epsilon_decay_steps`, in [0, 1].
        epsilon_decay_steps: environment steps of one seed; None takes 15 % of all its steps.
        epsilon_test: probability of a random action in tests, in [0, 1].
        epsilon_ladder: environment i of E acts in training with epsilon to the power of
            ``1 + epsilon_ladder * i / (E - 1)``, whatever sets epsilon; 0 is the same for all
            (Horgan et al. 2018, Ape-X: 7, with an epsilon of 0.4).
    """

    epsilon_start: Annotated[float, Range(0, 1)] = 1.0
    epsilon_final: Annotated[float, Range(0, 1)] = 0.05
    epsilon_decay_steps: Annotated[int | None, Range(0)] = None
    epsilon_test: Annotated[float, Range(0, 1)] = 0.0
    epsilon_ladder: Annotated[float, Range(0)] = 0.0

    def __post_init__(self):
        check_fields(self)

    def decay_steps(self, total_env_steps: int) -> int:
        """Length of the decay when one seed takes `total_env_steps` steps in all."""
        if self.epsilon_decay_steps is not None:
            return self.epsilon_decay_steps
        return min(total_env_steps * 15 // 100, 2**31 - 1)

    def initial(self, total_env_steps: int) -> Epsilon:
        """Epsilon before the first step, as NumPy scalars."""
        decay_steps = self.decay_steps(total_env_steps)
        training = segment(self.epsilon_start, self.epsilon_final, decay_steps)
        return Epsilon(training=training, inference=np.float32(self.epsilon_test))
