"""What a run remembers: one record per test phase, and the best parameters of each seed."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from jaxrl_cb.types import ChunkMetrics, PyTree


@dataclasses.dataclass(frozen=True)
class EpochRecord:
    """One test phase and the epoch before it. Rows of seeds that have stopped are NaN.

    Attributes:
        epoch: 0 for the test before training.
        env_step: environment steps of one seed so far, over its environments, without prefill.
        num_updates: gradient steps so far.
        returns: [S, N] undiscounted returns of complete episodes, N = num_test_episodes.
        lengths: [S, N] their lengths, -1 where stopped.
        eps_training: [S] training epsilon at the end of the epoch.
        eps_inference: [S] epsilon that acted in this test.
        train_loss: [S] mean loss over the epoch's gradient steps; NaN if there were none.
        train_return: [S] mean return of the training episodes that ended; NaN if there were none.
        num_masked: [S] transitions left out so far as their final observation was not kept; -1
            where stopped.
        train_seconds: wall seconds of the epoch's chunks.
        test_seconds: wall seconds of the test.
    """

    epoch: int
    env_step: int
    num_updates: int
    returns: np.ndarray
    lengths: np.ndarray
    eps_training: np.ndarray
    eps_inference: np.ndarray
    train_loss: np.ndarray
    train_return: np.ndarray
    num_masked: np.ndarray
    train_seconds: float
    test_seconds: float

    @property
    def mean(self) -> np.ndarray:
        """[S] float64 mean return of this test."""
        return self.returns.mean(axis=1, dtype=np.float64)

    @property
    def std(self) -> np.ndarray:
        """[S] float64 standard deviation of the returns of this test."""
        return self.returns.std(axis=1, dtype=np.float64)

    def seed(self, index: int) -> "EpochRecord":
        """The record of one seed, with a leading [1]; itself, where it is of one."""
        if len(self.returns) == 1:
            return self
        arrays = {
            field.name: value[index : index + 1]
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), np.ndarray)
        }
        return dataclasses.replace(self, **arrays)

    def row(self) -> dict[str, Any]:
        """The record as plain numbers for a logger, or lists of them where S > 1."""

        def plain(values: np.ndarray) -> Any:
            return values.tolist() if len(values) > 1 else values[0].item()

        return {
            "epoch": self.epoch,
            "num_updates": self.num_updates,
            "test/return_mean": plain(self.mean),
            "test/return_std": plain(self.std),
            "test/length_mean": plain(self.lengths.mean(axis=1, dtype=np.float64)),
            "test/eps": plain(self.eps_inference),
            "train/eps": plain(self.eps_training),
            "train/loss": plain(self.train_loss),
            "train/return_mean": plain(self.train_return),
            "train/num_masked": plain(self.num_masked),
            "time/train_seconds": self.train_seconds,
            "time/test_seconds": self.test_seconds,
        }


def training_means(
    metrics: Sequence[ChunkMetrics], num_updates: int, num_seeds: int, stopped: Iterable[int]
) -> dict[str, np.ndarray]:
    """The fields of a record that sum up an epoch's chunks, NaN where seeds have stopped.

    Args:
        metrics: of each chunk, NumPy arrays [S]; none before training.
        num_updates: gradient steps of the epoch.
        num_seeds: S.
        stopped: seeds that have stopped.
    """
    chunks = np.array([chunk[:3] for chunk in metrics], np.float64).reshape(-1, 3, num_seeds)
    losses, returns, episodes = chunks.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        loss, train_return = losses / num_updates, returns / episodes
    loss[list(stopped)] = train_return[list(stopped)] = np.nan
    num_masked = np.array(metrics[-1].num_masked if metrics else [0] * num_seeds, np.int64)
    num_masked[list(stopped)] = -1
    return {"train_loss": loss, "train_return": train_return, "num_masked": num_masked}


@dataclasses.dataclass(frozen=True)
class Best:
    """Parameters of a test, as NumPy arrays [1, ...], and its mean return."""

    score: float
    epoch: int
    params: PyTree


class BestOfSeed:
    """The test with the highest mean return of one seed; a tie goes to the later test."""

    def __init__(self, best: Best | None = None):
        self.best = best
        self._before: Best | None = None

    def offer(self, score: float, epoch: int, params: Callable[[], PyTree]) -> None:
        """Takes a new test into account; its parameters are only fetched if they are kept."""
        self._before = self.best
        self._keep(score, epoch, params)

    def confirm(
        self, score: float, epoch: int, params: Callable[[], PyTree], *, stopped: bool
    ) -> None:
        """Puts a confirmed mean in place of that of the test just offered.

        Args:
            score: mean return of the confirmation.
            epoch: of the test.
            params: gives the parameters.
            stopped: whether the run stops on it; such parameters are the best whatever came before.
        """
        self.best = None if stopped else self._before
        self._keep(score, epoch, params)

    def _keep(self, score: float, epoch: int, params: Callable[[], PyTree]) -> None:
        best = self.best
        if best is None or math.isnan(best.score) or score >= best.score:
            self.best = Best(score, epoch, params())
