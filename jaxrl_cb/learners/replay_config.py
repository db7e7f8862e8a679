"""Sizes of the replay and of training from it."""

import dataclasses
import math
from fractions import Fraction
from typing import Annotated

from jaxrl_cb.checks import Range, check_fields, check_multiple
from jaxrl_cb.errors import ConfigError
from jaxrl_cb.ops.counters import update_rate

MAX_ROWS = 2**28
"""Rows whose positions, and those of final observations (up to six times as many), fit an int32."""


MAX_LEAVES = 2**31 - 2**10
"""Transitions whose number, padded to a sum tree, fits an int32."""


@dataclasses.dataclass(frozen=True)
class ReplayConfig:
    """How much is stored and how often it is trained on.

    Attributes:
        num_envs: E, training environments stepped together.
        buffer_size: transitions kept, over all environments; a multiple of `num_envs`.
        batch_size: transitions per gradient step.
        samples_per_insert: batch_size x gradient steps / environment steps after prefill: how often
            each transition is trained on. Counted exactly, as the decimal written here.
        start_timesteps: environment steps before training (prefill), over all environments;
            a multiple of `num_envs`. They count neither as environment steps nor for the rate.
        start_timesteps_random: whether these steps act at random, or at the starting epsilon.
        n_step: n, rewards summed before bootstrapping.
        priority_alpha: exponent of a transition's error, in proportion to which it is drawn (Schaul
            et al. 2016); 0 draws all alike.
        priority_beta: exponent of the weights that make up for it, at the first step: 1 makes up
            wholly. In the state: callbacks set it through the policy.
        priority_beta_final: the same at the last step of the run, linear in between.
    """

    num_envs: Annotated[int, Range(1)] = 16
    buffer_size: Annotated[int, Range(1)] = 100_000
    batch_size: Annotated[int, Range(1)] = 128
    samples_per_insert: Annotated[float, Range(0)] = 8.0
    start_timesteps: Annotated[int, Range(0)] = 1_280
    start_timesteps_random: bool = True
    n_step: Annotated[int, Range(1)] = 1
    priority_alpha: Annotated[float, Range(0, 1)] = 0.0
    priority_beta: Annotated[float, Range(0, 1)] = 0.4
    priority_beta_final: Annotated[float, Range(0, 1)] = 1.0

    def __post_init__(self):
        check_fields(self)
        each_env = f"num_envs {self.num_envs}"
        check_multiple("buffer_size", self.buffer_size, self.num_envs, each_env)
        check_multiple("start_timesteps", self.start_timesteps, self.num_envs, each_env)
        if self.buffer_size < self.batch_size:
            raise ConfigError(
                f"buffer_size={self.buffer_size} is smaller than batch_size={self.batch_size}; "
                "raise the one or lower the other"
            )
        if self.num_rows > MAX_ROWS:
            raise ConfigError(
                f"buffer_size={self.buffer_size} holds {self.num_rows} steps of each environment, "
                f"more than the {MAX_ROWS} that are counted; lower it to {MAX_ROWS * self.num_envs}"
            )
        if self.num_rows < self.n_step:
            raise ConfigError(
                f"buffer_size={self.buffer_size} holds {self.num_rows} steps of each environment; "
                f"n_step={self.n_step} needs at least {self.n_step * self.num_envs}"
            )
        if self.priority_alpha and self.buffer_size > MAX_LEAVES:
            raise ConfigError(
                f"buffer_size={self.buffer_size} is too large for priority_alpha="
                f"{self.priority_alpha:g}; lower it to {MAX_LEAVES}, or take "
                "priority_alpha=0"
            )
        if self.start_timesteps < (self.n_step - 1) * self.num_envs:
            raise ConfigError(
                f"start_timesteps={self.start_timesteps} is too small for n_step={self.n_step}; "
                f"use at least {(self.n_step - 1) * self.num_envs}"
            )
        if self.start_timesteps > self.buffer_size:
            raise ConfigError(
                f"start_timesteps={self.start_timesteps} is more than buffer_size="
                f"{self.buffer_size} holds; use at most {self.num_rows * self.num_envs}"
            )
        if self.rate.numerator + self.rate.denominator >= 2**31:
            raise ConfigError(
                f"samples_per_insert={self.samples_per_insert} has too many digits to be counted "
                "exactly; write fewer"
            )

    @property
    def num_rows(self) -> int:
        """T, vector steps that the replay holds."""
        return self.buffer_size // self.num_envs

    @property
    def rate(self) -> Fraction:
        """Gradient steps per vector step."""
        return update_rate(self.num_envs, self.samples_per_insert, self.batch_size)

    @staticmethod
    def sizes_for(num_envs: int, batch_size: int | None = None) -> dict[str, int]:
        """Defaults that follow the number of environments, not yet multiples of it.

        The batch grows with the environments (half of them, 128 to 8192), so that the number of
        gradient steps per vector step stays about constant while each becomes larger.
        """
        batch_size = batch_size or min(max(num_envs // 2, 128), 8192)
        return {
            "batch_size": batch_size,
            "buffer_size": max(100_000, 128 * num_envs),
            "start_timesteps": max(10 * batch_size, 16 * num_envs),
        }


@dataclasses.dataclass(frozen=True)
class TargetConfig:
    """Discount and target network.

    Attributes:
        gamma: discount per environment step, in [0, 1].
        tau: step of the target network towards the online one, in (0, 1]; 1 is a hard copy.
        target_update_period: gradient steps between two such steps.
    """

    gamma: Annotated[float, Range(0, 1)] = 0.99
    tau: Annotated[float, Range(0, 1, open_low=True)] = 0.005
    target_update_period: Annotated[int, Range(1)] = 1

    def __post_init__(self):
        check_fields(self)


def learning_rate_for(batch_size: int) -> float:
    """2.5e-4 at a batch of 128, growing with its square root, at most 1e-3."""
    return min(2.5e-4 * math.sqrt(batch_size / 128), 1e-3)
