"""What a sweep came to: a table of trials and seeds, the best trial, its policies."""

import csv
import dataclasses
import io
import math
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxrl_cb.checks import check_choice, check_int
from jaxrl_cb.display import endings
from jaxrl_cb.errors import ConfigError, JaxrlError
from jaxrl_cb.scores import Interval, last_of, summarize
from jaxrl_cb.trainer import Policy, TrainResult


@dataclasses.dataclass(frozen=True)
class Trial:
    """Settings that are tried.

    Attributes:
        index: from 0.
        settings: those of the space.
    """

    index: int
    settings: dict[str, Any]


class SweepResult:
    """What a sweep came to.

    Attributes:
        trials: in order; those of whose seeds all have begun.
        results: of each group.
        groups: the trial and the number within it of each seed of a group.
        num_seeds: of each trial.
        first_seed: seed of the first.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        results: Sequence[TrainResult],
        groups: Sequence[Sequence[tuple[int, int]]],
        num_seeds: int,
        first_seed: int,
    ):
        self.results, self.groups = list(results), [list(group) for group in groups]
        self.num_seeds, self.first_seed = num_seeds, first_seed
        self._place = {
            tuple(member): (group, row)
            for group, members in enumerate(groups)
            for row, member in enumerate(members)
        }
        whole = [(t.index, num_seeds - 1) in self._place for t in trials]
        self.trials = [trial for trial, has_begun in zip(trials, whole, strict=True) if has_begun]
        self._begun = {trial.index for trial in self.trials}
        self._last = [last_of(np.stack([r.mean for r in own.history])) for own in self.results]
        self._endings = [endings(own) for own in self.results]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each trial and seed: its settings, how it ended, and its scores.

        "score" is the mean return of its last test, "best_score" that of its best one.
        """
        return [self._row(trial, own) for trial in self.trials for own in range(self.num_seeds)]

    def scores(self, trial: int) -> np.ndarray:
        """[num_seeds] the last test of each seed of a trial."""
        return np.array([self._last[group][row] for group, row in self._places(trial)])

    def is_dropped(self, trial: int) -> bool:
        """Whether a callback dropped any seed of a trial."""
        return any(self._endings[group][row] == "dropped" for group, row in self._places(trial))

    @property
    def ranking(self) -> list[int]:
        """Trials from the best to the worst, by the mean of `scores`.

        Those that were dropped come last, the ones that were dropped earlier after the others.
        """

        def key(index: int) -> tuple[int, float, int]:
            epochs = max(self._fact("epoch", *place) for place in self._places(index))
            mean = float(np.mean(self.scores(index)))
            worth = math.inf if math.isnan(mean) else -mean
            return -epochs if self.is_dropped(index) else -sys.maxsize, worth, index

        return sorted((trial.index for trial in self.trials), key=key)

    @property
    def best(self) -> Trial:
        """The first of `ranking`.

        Raises:
            JaxrlError: no trial has begun with all of its seeds.
        """
        if not self.trials:
            raise JaxrlError("no trial of the sweep has begun with all of its seeds")
        first = self.ranking[0]
        return next(trial for trial in self.trials if trial.index == first)

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
        places = self._places(trial)
        parts = [  # more than one where the seeds of a trial were trained in waves
            _policy(self.results[group], which).seeds([row for own, row in places if own == group])
            for group in dict.fromkeys(group for group, _ in places)
        ]
        if len(parts) == 1:
            return parts[0]
        params = jax.tree.map(lambda *own: np.concatenate(own), *(part.params for part in parts))
        epsilon = np.concatenate([part.epsilon for part in parts])
        return Policy(parts[0].algorithm, parts[0].spec, params, epsilon)

    def __repr__(self) -> str:
        if not self.trials:
            return "SweepResult(no trial has begun with all of its seeds)"
        best = self.best
        return (
            f"SweepResult({len(self.trials)} trials of {self.num_seeds} seeds, best: "
            f"trial {best.index} {best.settings}, {self.interval(best.index)})"
        )

    def _places(self, trial: int) -> list[tuple[int, int]]:
        """Group and row of each seed of a trial."""
        check_int("trial", trial, 0)
        if trial not in self._begun:
            raise ConfigError(
                f"trial={trial} is none of the sweep's, or not all of its seeds have begun; there "
                f"are {len(self.trials)}, up to {max(self._begun, default=-1)}"
            )
        return [self._place[trial, own] for own in range(self.num_seeds)]

    def _fact(self, name: str, group: int, row: int) -> Any:
        """What a group's result says of a seed."""
        return np.atleast_1d(getattr(self.results[group], name))[row].item()

    def _row(self, trial: Trial, own: int) -> dict[str, Any]:
        group, row = self._place[trial.index, own]
        names = ("epoch", "env_step", "best_score", "best_epoch")
        facts = {name: self._fact(name, group, row) for name in names}
        score = self._last[group][row].item()
        head = {"trial": trial.index, "seed": self.first_seed + own} | trial.settings
        return head | {"ended": self._endings[group][row], "score": score} | facts


def _policy(result: TrainResult, which: str) -> Policy:
    return result.best_policy if which == "best" else result.policy


def as_csv(rows: list[dict[str, Any]]) -> str:
    """Rows as the text of a CSV file."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]))
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
