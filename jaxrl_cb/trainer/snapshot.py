"""A run between two epochs: in memory, and as the arrays and the JSON that a checkpoint holds."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxrl_cb.learners.replay import ReplayLearner
from jaxrl_cb.trainer import leaves
from jaxrl_cb.trainer.history import Best, BestOfSeed, EpochRecord
from jaxrl_cb.trainer.params import TrainerParams
from jaxrl_cb.trainer.progress import Progress
from jaxrl_cb.types import PyTree, TrainState

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """All that a run is: its device state and what the host remembers.

    Attributes:
        state: of all seeds with a leading [S], on the host; replay and rollout are those of the
            seeds that still ran.
        lockstep: the scalars that running seeds have in common, of each seed [S].
        progress: what the host remembers.
        callbacks: class and state of each callback, as JSON.
    """

    state: TrainState
    lockstep: Arrays
    progress: Progress
    callbacks: list[dict[str, Any]]

    def to_arrays(self) -> Arrays:
        """All arrays by name; keys as their data."""
        best = [b.best.params for b in self.progress.best if b.best is not None]
        best = jax.tree.map(lambda *parts: np.concatenate(parts), *best)
        history = self.progress.history
        return {
            **{f"state.{name}": _data(leaf) for name, leaf in named(self.state).items()},
            **{f"best.{name}": leaf for name, leaf in named(best).items()},
            **{f"lockstep.{name}": value for name, value in self.lockstep.items()},
            **{
                f"history.{field.name}": np.array(
                    [getattr(record, field.name) for record in history]
                )
                for field in dataclasses.fields(EpochRecord)
            },
        }

    def to_json(self) -> dict[str, Any]:
        """The rest, as JSON."""
        progress = self.progress
        best = [[b.best.score, b.best.epoch] for b in progress.best if b.best is not None]
        return {
            "epoch": progress.epoch,
            "env_step": progress.env_step,
            "best": best,
            "ended": [[index, *when] for index, when in progress.ended.items()],
            "diverged": [[index, words] for index, words in progress.diverged.items()],
            "num_evaluations": progress.num_evaluations.tolist(),
            "seconds": progress.seconds,
            "callbacks": self.callbacks,
        }


def expected_state(learner: ReplayLearner, params: TrainerParams, num_running: int) -> TrainState:
    """Shapes and dtypes of the state of a run of which so many seeds have not stopped."""
    axes, num_seeds = learner.state_axes(), params.num_seeds
    state = learner.abstract_state(params.total_env_steps)

    def with_leading(size: int, tree: TrainState) -> TrainState:
        def leaf(x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((size, *x.shape), x.dtype)

        return leaves.per_seed_leaves(leaf, axes, tree)

    seeds = with_leading(num_seeds, state)
    if num_seeds == 1:
        return seeds
    if not num_running:
        return seeds.replace(buffer=None, rollout=None)
    running = with_leading(num_running, state)
    return seeds.replace(buffer=running.buffer, rollout=running.rollout)


def shapes_of(expected: TrainState) -> dict[str, tuple[tuple[int, ...], str]]:
    """By name, what a checkpoint has to hold of the state and of the best parameters."""
    stored = {f"state.{name}": _stored(leaf) for name, leaf in named(expected).items()}
    best = {f"best.{name}": _stored(leaf) for name, leaf in named(expected.params).items()}
    return {name: (leaf.shape, leaf.dtype.name) for name, leaf in (stored | best).items()}


def from_stored(arrays: Arrays, data: dict[str, Any], expected: TrainState) -> Snapshot:
    """The snapshot that was made into these arrays and this JSON.

    Raises:
        KeyError, ValueError, TypeError: it cannot have been one.
    """
    state = _tree("state", arrays, expected)
    best = _tree("best", arrays, expected.params)
    progress = Progress(len(data["best"]))
    progress.epoch, progress.env_step = int(data["epoch"]), int(data["env_step"])
    progress.history = _history(arrays)
    for index, (score, epoch) in enumerate(data["best"]):
        own = jax.tree.map(lambda x, i=index: x[i : i + 1], best)
        progress.best[index] = BestOfSeed(Best(float(score), int(epoch), own))
    progress.ended = {int(i): (int(epoch), int(step)) for i, epoch, step in data["ended"]}
    progress.diverged = {int(index): str(words) for index, words in data["diverged"]}
    progress.num_evaluations = np.array(data["num_evaluations"], np.uint32)
    progress.seconds = {str(name): float(value) for name, value in data["seconds"].items()}
    prefix = "lockstep."
    lockstep = {n.removeprefix(prefix): x for n, x in arrays.items() if n.startswith(prefix)}
    return Snapshot(state, lockstep, progress, data["callbacks"])


def named(tree: PyTree) -> dict[str, Any]:
    """The leaves by their path, in words and numbers between dots."""
    flat = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in flat}


def _tree(prefix: str, arrays: Mapping[str, Any], expected: PyTree) -> PyTree:
    """Puts the named arrays back into a tree; key data become typed keys."""

    def leaf(name: str, like: Any) -> Any:
        value = arrays[f"{prefix}.{name}"]
        if not leaves.is_key_dtype(like.dtype):
            return value
        return jax.random.wrap_key_data(value, impl=leaves.key_impl(like.dtype))

    values = [leaf(name, like) for name, like in named(expected).items()]
    return jax.tree.unflatten(jax.tree.structure(expected), values)


def _history(arrays: Arrays) -> list[EpochRecord]:
    columns = {}
    for field in dataclasses.fields(EpochRecord):
        column = arrays[f"history.{field.name}"]
        columns[field.name] = column.tolist() if column.ndim == 1 else column
    return [
        EpochRecord(**{name: column[row] for name, column in columns.items()})
        for row in range(len(columns["epoch"]))
    ]


def _data(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if leaves.is_key(leaf) else leaf)


def _stored(leaf: Any) -> Any:
    is_key = leaves.is_key_dtype(leaf.dtype)
    return jax.eval_shape(jax.random.key_data, leaf) if is_key else leaf
