"""Stop callbacks on a reward threshold."""

import math

import numpy as np

from jaxrl_cb.checks import check_float, check_int
from jaxrl_cb.errors import ConfigError
from jaxrl_cb.trainer.callbacks import EpochStopCallback
from jaxrl_cb.trainer.context import TrainingContext


class EpochStopCallbackRewardThreshold(EpochStopCallback):
    """Stops at the first test whose mean return reaches the threshold.

    The first passing test of many is a lucky one; `EpochStopCallbackConfirmedRewardThreshold` tests
    again before it stops.
    """

    def __init__(self, threshold: float | None = None):
        """Args:
        threshold: mean undiscounted return, 0.0 and negative ones included; None takes the
            environment's own, ``context.envs.env.spec.reward_threshold``, at each call.
        """
        if threshold is not None:
            check_float("threshold", threshold, -math.inf)
        self.threshold = threshold

    def validate(self, context: TrainingContext) -> None:
        """Raises ConfigError if there is no threshold anywhere."""
        self._threshold(context)

    def should_stop(self, mean_rewards: float, context: TrainingContext) -> bool:
        """``mean_rewards >= threshold``; never for NaN.

        Raises:
            ConfigError: (a ValueError) there is no threshold anywhere.
        """
        return bool(mean_rewards >= self._threshold(context))

    def _threshold(self, context: TrainingContext) -> float:
        if self.threshold is not None:
            return self.threshold
        spec = getattr(context.envs.env, "spec", None)
        threshold = getattr(spec, "reward_threshold", None)
        if threshold is None:
            name = getattr(spec, "id", None) or type(context.envs.env).__name__
            raise ConfigError(
                f"environment {name!r} has no reward threshold; give one, for example "
                f"{type(self).__name__}(threshold=100.0)"
            )
        return float(threshold)


class EpochStopCallbackConfirmedRewardThreshold(EpochStopCallbackRewardThreshold):
    """Stops when a test reaches the threshold and so do fresh episodes of the same parameters.

    Choosing the first test that passes overrates the policy (the winner's curse); the confirming
    episodes are played on keys that had no part in the choice.
    """

    def __init__(self, threshold: float | None = None, episodes: int = 100):
        """Args:
        threshold: see `EpochStopCallbackRewardThreshold`.
        episodes: complete episodes of the confirmation.
        """
        super().__init__(threshold)
        check_int("episodes", episodes, 1)
        self.episodes = episodes

    def should_stop(self, mean_rewards: float, context: TrainingContext) -> bool:
        """Whether this test and the confirmation both reach the threshold."""
        if not super().should_stop(mean_rewards, context):
            return False
        confirmed = float(np.mean(context.evaluate(self.episodes), dtype=np.float64))
        context.confirmed_score = confirmed
        return super().should_stop(confirmed, context)
