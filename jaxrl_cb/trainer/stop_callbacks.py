"""Stop callbacks: on a reward threshold, for want of progress, and by the clock."""

import math
import time
from typing import Any

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


class EpochStopCallbackNoImprovement(EpochStopCallback):
    """Stops when so many tests in a row brought no new highest mean return.

    The test before training sets the first mark.
    """

    def __init__(self, patience: int, min_delta: float = 0.0):
        """Args:
        patience: tests, 1 or more.
        min_delta: by how much a mean has to exceed the highest so far to count, 0 or more.
        """
        check_int("patience", patience, 1)
        check_float("min_delta", min_delta, 0)
        self.patience = patience
        self.min_delta = min_delta
        self.highest: float | None = None
        self.num_tests = 0

    def _tostring_excludes(self) -> list[str]:
        return ["highest", "num_tests"]

    def should_stop(self, mean_rewards: float, context: TrainingContext) -> bool:
        """Whether this is test number `patience` without progress."""
        if self.highest is None:
            history = getattr(context, "history", [])
            self.highest = float(history[0].mean[0]) if len(history) > 1 else -math.inf
        if mean_rewards > self.highest + self.min_delta:
            self.highest, self.num_tests = mean_rewards, 0
        else:
            self.num_tests += 1
        return self.num_tests >= self.patience


class EpochStopCallbackWallTime(EpochStopCallback):
    """Stops at the first test after so many seconds, compilation included.

    The time of a run that goes on from a snapshot is added up.
    """

    def __init__(self, seconds: float):
        """Args:
        seconds: wall-clock time, above 0.
        """
        check_float("seconds", seconds, 0, open_low=True)
        self.seconds = seconds
        self.elapsed = 0.0
        self._since: float | None = None

    def _tostring_excludes(self) -> list[str]:
        return ["elapsed", "_since"]

    def validate(self, context: TrainingContext) -> None:
        """Starts the clock."""
        self._since = time.monotonic()

    def should_stop(self, mean_rewards: float, context: TrainingContext) -> bool:
        """Whether the time is used up."""
        now = time.monotonic()
        self.elapsed += now - (now if self._since is None else self._since)
        self._since = now
        return self.elapsed >= self.seconds

    def state_dict(self) -> dict[str, Any]:
        """All but the clock's own reading, which means nothing in another process."""
        return {**super().state_dict(), "_since": None}
