"""The seeds of a run as competitors: which trial each belongs to, and how the trials have done."""

from collections.abc import Callable, Sequence

import numpy as np

from jaxrl_cb.trainer.progress import Progress


class Population:
    """Trials (settings that are tried) of one or more seeds each.

    In a sweep its other groups, which are trained in turn, epoch by epoch, count as well.

    Attributes:
        trials: the trial of each seed of the run; in a run by itself every seed is one of its own.
    """

    def __init__(self, trials: Sequence[int], progress: Callable[[], Progress]):
        self.trials = tuple(trials)
        self._progress = progress
        self._groups = [self]

    @staticmethod
    def join(groups: Sequence["Population"]) -> None:
        """Lets groups of a sweep see each other's scores."""
        for group in groups:
            group._groups = list(groups)

    def scores(self, epoch: int) -> dict[int, float]:
        """By trial, the mean over its seeds of their tests at the end of an epoch.

        A seed that a stop callback ended before counts with its last test, one that NaN or infinity
        ended as minus infinity. Trials that had been dropped before are left out.

        Args:
            epoch: that all groups have done.
        """
        return {trial: score for group in self._groups for trial, score in group._own(epoch)}

    def _own(self, epoch: int) -> list[tuple[int, float]]:
        progress = self._progress()
        tests = np.stack([record.mean for record in progress.history[: epoch + 1]])
        by_trial: dict[int, list[float]] = {}
        for index, trial in enumerate(self.trials):
            ended_at = progress.ended[index][0] if index in progress.ended else epoch
            if index in progress.dropped and ended_at < epoch:
                continue
            own = tests[:, index]
            own = own[~np.isnan(own)]
            is_sound = index not in progress.diverged and len(own)
            by_trial.setdefault(trial, []).append(float(own[-1]) if is_sound else -np.inf)
        return [(trial, float(np.mean(scores))) for trial, scores in by_trial.items()]
