"""A run between two epochs: in memory, and as the arrays and the JSON that a checkpoint holds."""

import dataclasses
from collections.abc import Container, Mapping
from typing import Any

import jax
import numpy as np

from jaxrl_cb.errors import shown
from jaxrl_cb.learners import Learner
from jaxrl_cb.trainer import leaves
from jaxrl_cb.trainer.history import Best, BestOfSeed, EpochRecord
from jaxrl_cb.trainer.members import LOCKSTEP
from jaxrl_cb.trainer.params import TrainerParams
from jaxrl_cb.trainer.plain import from_plain
from jaxrl_cb.trainer.programs import state_shapes
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
            "dropped": sorted(progress.dropped),
            "num_evaluations": progress.num_evaluations.tolist(),
            "seconds": progress.seconds,
            "callbacks": self.callbacks,
        }


def expected_state(learner: Learner, params: TrainerParams, num_running: int) -> TrainState:
    """Shapes and dtypes of the state of a run of which so many seeds have not stopped."""
    axes, num_seeds, shapes = learner.state_axes(), params.num_seeds, state_shapes(learner)
    seeds = leaves.with_leading(num_seeds, axes, shapes)
    if num_seeds == 1:
        return seeds
    if not num_running:
        return seeds.replace(buffer=None, rollout=None)
    running = leaves.with_leading(num_running, axes, shapes)
    return seeds.replace(buffer=running.buffer, rollout=running.rollout)


def shapes_of(expected: TrainState) -> dict[str, tuple[tuple[int, ...], str]]:
    """By name, what a checkpoint has to hold of the state and of the best parameters."""
    stored = {f"state.{name}": _stored(leaf) for name, leaf in named(expected).items()}
    best = {f"best.{name}": _stored(leaf) for name, leaf in named(expected.params).items()}
    return {name: (leaf.shape, leaf.dtype.name) for name, leaf in (stored | best).items()}


def from_stored(arrays: Arrays, data: dict[str, Any], expected: TrainState) -> Snapshot:
    """The snapshot that was made into these arrays and this JSON.

    Raises:
        Exception: of any kind, it cannot have been one. Whatever `Trainer.restore` uses is checked.
    """
    state = _tree("state", arrays, expected)
    best = _tree("best", arrays, expected.params)
    num_seeds = len(jax.tree.leaves(best)[0])
    progress = Progress(num_seeds)
    progress.history = _history(arrays, num_seeds)
    progress.epoch = _whole(data["epoch"], 0)
    progress.env_step = _whole(data["env_step"], 0)
    last = progress.history[-1]
    if (last.epoch, last.env_step) != (progress.epoch, progress.env_step):
        raise ValueError(f"its last test is of epoch {last.epoch}, step {last.env_step}")
    for index, (score, epoch) in zip(range(num_seeds), data["best"], strict=True):
        own = jax.tree.map(lambda x, i=index: x[i : i + 1], best)
        best_epoch = _whole(epoch, 0, progress.epoch)
        progress.best[index] = BestOfSeed(Best(_of(float, score), best_epoch, own))
    for index, epoch, step in data["ended"]:
        when = (_whole(epoch, 0, progress.epoch), _whole(step, 0, progress.env_step))
        progress.ended[_new_seed(index, progress, progress.ended)] = when
    for index, words in data["diverged"]:
        if index not in progress.ended:
            raise ValueError(f"seed {index} diverged but did not end")
        progress.diverged[_new_seed(index, progress, progress.diverged)] = _of(str, words)
    for index in data.get("dropped", []):  # earlier versions dropped none
        if index not in progress.ended or index in progress.diverged:
            raise ValueError(f"seed {index} was dropped but did not end so")
        progress.dropped.add(_new_seed(index, progress, progress.dropped))
    numbers = zip(range(num_seeds), data["num_evaluations"], strict=True)
    progress.num_evaluations[:] = [_whole(number, 0, 2**32 - 1) for _, number in numbers]
    if data["seconds"].keys() != progress.seconds.keys():
        raise ValueError(f"its seconds are of {list(data['seconds'])}")
    progress.seconds = {name: _of(float, value) for name, value in data["seconds"].items()}
    lockstep = _lockstep(arrays, expected, num_seeds)
    return Snapshot(state, lockstep, progress, _callbacks(data["callbacks"]))


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


def _history(arrays: Arrays, num_seeds: int) -> list[EpochRecord]:
    """The records of epochs 0, 1, ..., of which every column has a row."""
    columns, num_rows = {}, len(arrays["history.epoch"])
    for field in dataclasses.fields(EpochRecord):
        column = arrays[f"history.{field.name}"]
        num_axes = 3 if field.name in ("returns", "lengths") else 2
        num_axes = num_axes if field.type is np.ndarray else 1
        is_right = column.shape[:2] == (num_rows, num_seeds)[:num_axes]
        if not is_right or column.ndim != num_axes or column.dtype.kind not in "biuf":
            raise ValueError(f"its history.{field.name} is {column.dtype}{list(column.shape)}")
        columns[field.name] = column.tolist() if num_axes == 1 else column
    if columns["epoch"] != list(range(num_rows)):
        raise ValueError("its history does not have every epoch once")
    return [
        EpochRecord(**{name: column[row] for name, column in columns.items()})
        for row in range(num_rows)
    ]


def _lockstep(arrays: Arrays, expected: TrainState, num_seeds: int) -> Arrays:
    own = {name: arrays[f"lockstep.{name}"] for name in LOCKSTEP}
    for name, value in own.items():
        if (value.shape, value.dtype) != ((num_seeds,), getattr(expected, name).dtype):
            raise ValueError(f"its lockstep.{name} is {value.dtype}{list(value.shape)}")
    return own


def _callbacks(entries: Any) -> list[dict[str, Any]]:
    """Checks that this is what `Hooks.state_dict` gives; what states mean is the callbacks' own."""
    for entry in _of(list, entries):
        for name in ("class", "text"):
            _of(str, entry[name])
        _of(dict, from_plain(entry["state"]))
    return entries


def _new_seed(index: Any, progress: Progress, known: Container[int]) -> int:
    if index in known:
        raise ValueError(f"seed {index} is there twice")
    return _whole(index, 0, progress.num_seeds - 1)


def _whole(value: Any, low: int, high: int = 2**63 - 1) -> int:
    if not low <= _of(int, value) <= high:
        raise ValueError(f"{value} is not in {low} to {high}")
    return value


def _of(kind: type, value: Any) -> Any:
    """The value itself, which is of just this type."""
    if type(value) is not kind:
        raise TypeError(f"{shown(value)} is no {kind.__name__}")
    return value


def _data(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if leaves.is_key(leaf) else leaf)


def _stored(leaf: Any) -> Any:
    is_key = leaves.is_key_dtype(leaf.dtype)
    return jax.eval_shape(jax.random.key_data, leaf) if is_key else leaf
