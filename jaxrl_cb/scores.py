"""Statistics of scores over seeds and tasks, with intervals (Agarwal et al. 2021).

`compare` gives all of them for one or more algorithms: mean, median, interquartile mean (IQM) and
optimality gap, performance profiles, and how likely one is to do better than another. Intervals are
percentiles of a stratified bootstrap: seeds are drawn anew within each task.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import trim_mean

from jaxrl_cb.checks import check_float, check_int
from jaxrl_cb.errors import ConfigError, ConfigTypeError, kind, shown

BLOCK = 5_000_000
"""Numbers that are drawn at once."""


class Interval(NamedTuple):
    """A statistic and its interval."""

    low: Any
    value: Any
    high: Any

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclasses.dataclass(frozen=True)
class Summary:
    """What scores [R, T] of R seeds on T tasks come to.

    Attributes:
        num_seeds: R.
        num_tasks: T.
        mean: of all.
        median: over tasks, of each task's mean; of a single task, over its seeds.
        iqm: mean of the middle half of all R T scores.
        optimality_gap: by how much scores, cut off at `optimal`, fall short of it on average; None
            where no `optimal` was given.
    """

    num_seeds: int
    num_tasks: int
    mean: Interval
    median: Interval
    iqm: Interval
    optimality_gap: Interval | None


class Profile(NamedTuple):
    """Share of seeds, averaged over tasks, whose score is above each of K thresholds."""

    thresholds: np.ndarray  # [K]
    above: Interval  # each [K], in [0, 1]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Statistics of several algorithms by name.

    Attributes:
        summaries: by name.
        profiles: by name, over the same thresholds.
        improvement: by pair of names, the probability that a seed of the first has a higher score
            than one of the second on the same task (ties count half), averaged over tasks.
    """

    summaries: dict[str, Summary]
    profiles: dict[str, Profile]
    improvement: dict[tuple[str, str], Interval]

    def rows(self) -> list[dict[str, Any]]:
        """A row of plain numbers for each name."""
        return [{"name": name} | _plain(summary) for name, summary in self.summaries.items()]

    def __str__(self) -> str:
        names = ("num_seeds", "mean", "median", "iqm", "optimality_gap")
        cells = [["", *names]]
        for name, summary in self.summaries.items():
            values = [getattr(summary, column) for column in names]
            cells.append([name, *("" if value is None else str(value) for value in values)])
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        lines += [f"P({a} > {b}) = {p}" for (a, b), p in self.improvement.items()]
        return "\n".join(lines)


def compare(
    scores: Mapping[str, Any],
    *,
    optimal: float | None = None,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Statistics of the scores of one or more algorithms.

    Args:
        scores: by name, an array [R] of R seeds on one task or [R, T] on T tasks, or a result of
            `train`, of which each seed's last test counts. Scores of several tasks have to be on
            one scale (normalised).
        optimal: score above which nothing is gained, for the optimality gap.
        confidence: of the intervals, in (0, 1).
        num_resamples: bootstrap samples.
        seed: of the bootstrap; the same seed gives the same intervals.

    Raises:
        ConfigError: no scores, scores that are not finite, or tasks that differ in number.
    """
    check_int("num_resamples", num_resamples, 1)
    check_int("seed", seed, 0)
    check_float("confidence", confidence, 0, 1)
    if optimal is not None:
        check_float("optimal", optimal, -np.inf)
    arrays = _checked(scores)
    bootstrap = Bootstrap(confidence, num_resamples, seed)
    low = min(float(values.min()) for values in arrays.values())
    high = max(float(values.max()) for values in arrays.values())
    thresholds = np.linspace(low, high, 101)
    pairs = itertools.combinations(arrays, 2)
    return Comparison(
        summaries={name: summarize(x, optimal, bootstrap) for name, x in arrays.items()},
        profiles={name: profile(x, thresholds, bootstrap) for name, x in arrays.items()},
        improvement={(a, b): improvement(arrays[a], arrays[b], bootstrap) for a, b in pairs},
    )


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """How intervals are found."""

    confidence: float = 0.95
    num_resamples: int = 10_000
    seed: int = 0

    def interval(
        self, scores: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]
    ) -> Interval:
        """A statistic of scores [R, T] and its interval.

        Args:
            scores: of seeds and tasks.
            statistic: maps [B, R, T] to [B].
        """
        found = np.concatenate([statistic(part) for part in self._samples(scores)])
        return self.around(statistic(scores[None])[0], found)

    def weights(self, num_seeds: int, *stream: int) -> np.ndarray:
        """[B, R] how often each of R seeds is drawn, over R.

        Args:
            num_seeds: R.
            stream: tells draws that are to be independent apart.
        """
        random = np.random.default_rng([self.seed, *stream])
        even = np.full(num_seeds, 1 / num_seeds)
        return random.multinomial(num_seeds, even, size=self.num_resamples) / num_seeds

    def around(self, value: np.ndarray, found: np.ndarray) -> Interval:
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(found, [tail, 1 - tail], axis=0)
        return Interval(*(x.item() if np.ndim(x) == 0 else x for x in (low, value, high)))

    def _samples(self, scores: np.ndarray) -> Iterator[np.ndarray]:
        """Seeds drawn within each task, [B, R, T] in parts."""
        random, (num_seeds, num_tasks) = np.random.default_rng(self.seed), scores.shape
        left, most = self.num_resamples, max(BLOCK // scores.size, 1)
        while left:
            size = min(left, most)
            picks = random.integers(num_seeds, size=(size, num_seeds, num_tasks))
            yield scores[picks, np.arange(num_tasks)]
            left -= size


def summarize(
    scores: np.ndarray, optimal: float | None = None, bootstrap: Bootstrap | None = None
) -> Summary:
    """Point statistics of scores [R, T] and their intervals."""
    bootstrap = bootstrap or Bootstrap()
    num_seeds, num_tasks = scores.shape

    def median(x: np.ndarray) -> np.ndarray:
        return np.median(x[:, :, 0] if num_tasks == 1 else x.mean(axis=1), axis=1)

    def gap(x: np.ndarray) -> np.ndarray:
        most = np.float64(np.inf if optimal is None else optimal)
        return most - np.minimum(x, most).mean(axis=(1, 2))

    return Summary(
        num_seeds=num_seeds,
        num_tasks=num_tasks,
        mean=bootstrap.interval(scores, lambda x: x.mean(axis=(1, 2))),
        median=bootstrap.interval(scores, median),
        iqm=bootstrap.interval(scores, interquartile_mean),
        optimality_gap=None if optimal is None else bootstrap.interval(scores, gap),
    )


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """[B] mean of the middle half of scores [B, R, T]; a quarter (rounded down) goes each side."""
    return trim_mean(scores.reshape(len(scores), -1), 0.25, axis=1)


def profile(
    scores: np.ndarray, thresholds: np.ndarray, bootstrap: Bootstrap | None = None
) -> Profile:
    """Performance profile of scores [R, T] over thresholds [K]."""
    bootstrap = bootstrap or Bootstrap()
    above = (scores.T[:, :, None] > thresholds).astype(float)  # [T, R, K]
    drawn = [bootstrap.weights(len(scores), 0, t) @ own for t, own in enumerate(above)]
    found = np.mean(drawn, axis=0)
    return Profile(thresholds, bootstrap.around(above.mean(axis=(0, 1)), found))


def improvement(x: np.ndarray, y: np.ndarray, bootstrap: Bootstrap | None = None) -> Interval:
    """Probability that a score of x [R, T] is above one of y [Q, T] of the same task."""
    bootstrap = bootstrap or Bootstrap()
    ours, theirs = x.T[:, :, None], y.T[:, None, :]
    wins = (ours > theirs) + 0.5 * (ours == theirs)  # [T, R, Q]

    def drawn(task: int, won: np.ndarray) -> np.ndarray:
        first, second = (bootstrap.weights(n, i, task) for i, n in enumerate(won.shape, start=1))
        return np.sum((first @ won) * second, axis=1)

    found = np.mean([drawn(task, won) for task, won in enumerate(wins)], axis=0)
    return bootstrap.around(wins.mean(), found)


def last_of(means: np.ndarray) -> np.ndarray:
    """[S] each seed's last test of means [T, S], which are NaN once it has stopped."""
    last = len(means) - 1 - (~np.isnan(means))[::-1].argmax(axis=0)
    return means[last, np.arange(means.shape[1])]


def _checked(scores: Any) -> dict[str, np.ndarray]:
    """Scores by name, each [R, T]."""
    if not isinstance(scores, Mapping) or not scores:
        raise ConfigTypeError(
            f"scores={shown(scores)} is {kind(scores)}; expected a dict of arrays by name, for "
            "example {'dqn': [500.0, 480.5], 'double': [500.0, 500.0]}"
        )
    arrays = {str(name): _array(str(name), value) for name, value in scores.items()}
    numbers = {name: array.shape[1] for name, array in arrays.items()}
    if len(set(numbers.values())) > 1:
        raise ConfigError(
            f"scores are of different numbers of tasks: {numbers}; give the same ones"
        )
    return arrays


def _array(name: str, value: Any) -> np.ndarray:
    if hasattr(value, "history"):
        value = last_of(np.stack([record.mean for record in value.history]))
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigTypeError(f"scores[{name!r}]={shown(value)} are no numbers") from error
    if array.ndim not in (1, 2) or not array.size:
        raise ConfigError(
            f"scores[{name!r}] has the shape {array.shape}; expected [seeds] or [seeds, tasks]"
        )
    if not np.isfinite(array).all():
        raise ConfigError(
            f"scores[{name!r}] holds NaN or infinity; put there what a run that failed counts as"
        )
    return array.reshape(len(array), -1)


def _plain(summary: Summary) -> dict[str, Any]:
    row: dict[str, Any] = {"num_seeds": summary.num_seeds, "num_tasks": summary.num_tasks}
    for name in ("mean", "median", "iqm", "optimality_gap"):
        interval = getattr(summary, name)
        if interval is not None:
            row |= {name: interval.value, f"{name}_low": interval.low}
            row |= {f"{name}_high": interval.high}
    return row
