"""What the host remembers of a run, and what contexts show of it."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxrl_cb.trainer.context import TrainingContext
from jaxrl_cb.trainer.history import BestOfSeed, EpochRecord
from jaxrl_cb.types import PyTree


class Progress:
    """Host side of a run; with the device state and the callbacks' states it is the whole run.

    Attributes:
        epoch: epochs begun.
        env_step: environment steps done by a seed that still runs.
        history: all test records.
        best: best test of each seed.
        ended: by seed, the epoch and environment step at which it stopped.
        diverged: by seed, what was NaN or infinite, of those that it ended.
        dropped: seeds that `TrainingContext.drop` ended.
        num_evaluations: [S], further tests since the epoch began.
        seconds: wall seconds by what they were spent on.
    """

    def __init__(self, num_seeds: int):
        self.epoch = 0
        self.env_step = 0
        self.history: list[EpochRecord] = []
        self.best = [BestOfSeed() for _ in range(num_seeds)]
        self.ended: dict[int, tuple[int, int]] = {}
        self.diverged: dict[int, str] = {}
        self.dropped: set[int] = set()
        self.num_evaluations = np.zeros(num_seeds, np.uint32)
        self.seconds = {"compile": 0.0, "train": 0.0, "test": 0.0}

    @property
    def num_seeds(self) -> int:
        """S."""
        return len(self.best)

    @property
    def running(self) -> list[int]:
        """Seeds that have not stopped."""
        return [index for index in range(self.num_seeds) if index not in self.ended]

    def copy(self) -> "Progress":
        """A copy that does not change when this goes on; the records themselves are shared."""
        other = copy.copy(self)
        other.history, other.ended = list(self.history), dict(self.ended)
        other.diverged, other.dropped = dict(self.diverged), set(self.dropped)
        other.best = [copy.copy(best) for best in self.best]
        other.num_evaluations = self.num_evaluations.copy()
        other.seconds = dict(self.seconds)
        return other

    def begin_epoch(self) -> None:
        """Counts an epoch."""
        self.epoch += 1
        self.num_evaluations[:] = 0

    def remember(self, record: EpochRecord, params_of: Callable[[int], PyTree]) -> None:
        """Takes a test into history and, for running seeds, into account for the best.

        A seed that never came to a test has its first parameters as the best, of score NaN.
        """
        self.history.append(record)
        self.seconds["train"] += record.train_seconds
        self.seconds["test"] += record.test_seconds
        for index, score in enumerate(record.mean.tolist()):
            if index not in self.ended or self.best[index].best is None:
                self.best[index].offer(score, self.epoch, functools.partial(params_of, index))

    def end(self, index: int) -> None:
        """Notes that a seed stops now."""
        self.ended[index] = (self.epoch, self.env_step)

    def diverge(self, index: int, text: str) -> None:
        """Notes that NaN or infinity ends a seed now."""
        self.end(index)
        self.diverged[index] = text

    def drop(self, index: int) -> None:
        """Notes that a seed is dropped at the beginning of an epoch, which it has no part in."""
        self.ended[index] = (self.epoch - 1, self.env_step)
        self.dropped.add(index)

    def show_position(self, context: TrainingContext, views: list[TrainingContext]) -> None:
        """Brings the contexts up to date where no test has been done since they were."""
        running = self.running
        for each in (context, *views):
            each.epoch, each.env_step, each.running = self.epoch, self.env_step, running

    def show(self, context: TrainingContext, views: list[TrainingContext]) -> None:
        """Brings the contexts up to date."""
        scores = np.array([b.best.score if b.best else -np.inf for b in self.best])
        context.best_score = per_seed(scores)
        if len(context.history) != len(self.history):
            context.history = list(self.history)
        for index, (view, score) in enumerate(zip(views, scores.tolist(), strict=True)):
            new = self.history[len(view.history) :]
            view.history.extend(record.seed(index) for record in new)
            view.best_score = score
        self.show_position(context, views)


def per_seed(values: np.ndarray) -> Any:
    """A Python value for one seed, the array for more."""
    return values[0].item() if len(values) == 1 else values
