"""What a sweep came to: a table of trials and seeds, the best trial, its policies."""

import csv
import dataclasses
import io
import math
import sys
from typing import Any

import numpy as np

from jaxrl_cb.checks import check_choice, check_int
from jaxrl_cb.display import endings
from jaxrl_cb.scores import Interval, last_of, summarize
from jaxrl_cb.trainer import Policy, TrainResult


@dataclasses.dataclass(frozen=True)
class Trial:
    """Settings that are tried.

    Attributes:
        index: from 0.
        settings: those of the space.
        group: number of its group, from 0.
    """

    index: int
    settings: dict[str, Any]
    group: int


@dataclasses.dataclass(frozen=True, repr=False)
class SweepResult:
    """What a sweep came to.

    Attributes:
        trials: in order.
        results: of each group, whose seeds are those of its trials, one trial after another.
        num_seeds: of each trial.
        first_seed: seed of the first.
    """

    trials: list[Trial]
    results: list[TrainResult]
    num_seeds: int
    first_seed: int

    def rows(self) -> list[dict[str, Any]]:
        """A row for each trial and seed: its settings, how it ended, and its scores.

        "score" is the mean return of its last test, "best_score" that of its best one.
        """
        return [self._row(trial, own) for trial in self.trials for own in range(self.num_seeds)]

    def scores(self, trial: int) -> np.ndarray:
        """[num_seeds] the last test of each seed of a trial."""
        result, places = self._places(trial)
        return last_of(np.stack([record.mean for record in result.history]))[places]

    def is_dropped(self, trial: int) -> bool:
        """Whether a callback dropped any seed of a trial."""
        result, places = self._places(trial)
        return bool(np.atleast_1d(result.dropped)[places].any())

    @property
    def ranking(self) -> list[int]:
        """Trials from the best to the worst, by the mean of `scores`.

        Those that were dropped come last, the ones that were dropped earlier after the others.
        """

        def key(index: int) -> tuple[int, float, int]:
            result, places = self._places(index)
            epochs = np.atleast_1d(result.epoch)[places].max().item()
            mean = float(np.mean(self.scores(index)))
            worth = math.inf if math.isnan(mean) else -mean
            return -epochs if self.is_dropped(index) else -sys.maxsize, worth, index

        return sorted(range(len(self.trials)), key=key)

    @property
    def best(self) -> Trial:
        """The first of `ranking`."""
        return self.trials[self.ranking[0]]

    def interval(self, trial: int) -> Interval:
        """Mean of a trial's scores with its 95 % interval over seeds (bootstrap)."""
        return summarize(self.scores(trial)[:, None]).mean

    def policy(self, trial: int, which: str = "best") -> Policy:
        """The policies of a trial's seeds: of their best tests, or their last ones.

        Args:
            trial: its index.
            which: "best" or "last".
        """
        check_choice("which", which, ("best", "last"))
        result, places = self._places(trial)
        return (result.best_policy if which == "best" else result.policy).seeds(places)

    def __repr__(self) -> str:
        best = self.best
        return (
            f"SweepResult({len(self.trials)} trials of {self.num_seeds} seeds, best: "
            f"trial {best.index} {best.settings}, {self.interval(best.index)})"
        )

    def _places(self, trial: int) -> tuple[TrainResult, list[int]]:
        """A trial's group, and where its seeds are in it."""
        check_int("trial", trial, 0, len(self.trials) - 1)
        group = self.trials[trial].group
        before = sum(other.group == group for other in self.trials[:trial])
        first = before * self.num_seeds
        return self.results[group], list(range(first, first + self.num_seeds))

    def _row(self, trial: Trial, own: int) -> dict[str, Any]:
        result, places = self._places(trial.index)
        place = places[own]
        facts = {
            name: np.atleast_1d(getattr(result, name))[place].item()
            for name in ("epoch", "env_step", "best_score", "best_epoch")
        }
        score = float(self.scores(trial.index)[own])
        head = {"trial": trial.index, "seed": self.first_seed + own} | trial.settings
        return head | {"ended": endings(result)[place], "score": score} | facts


def as_csv(rows: list[dict[str, Any]]) -> str:
    """Rows as the text of a CSV file."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]))
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
