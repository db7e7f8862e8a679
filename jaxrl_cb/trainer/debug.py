"""Runs a chunk that went wrong again, step by step, to find what made the first NaN."""

import functools
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import checkify

from jaxrl_cb.learners import Learner
from jaxrl_cb.ops.counters import NEVER
from jaxrl_cb.trainer.leaves import copied, rows
from jaxrl_cb.trainer.members import Group
from jaxrl_cb.trainer.nonfinite import NonFinite
from jaxrl_cb.trainer.programs import over_seeds
from jaxrl_cb.types import Buffer, ChunkMetrics, OnlineBuffer, TrainState


class NoDebugger:
    """Keeps nothing and explains nothing."""

    def keep(self, groups: Sequence[Group]) -> None:
        """Does nothing."""

    def explain(self, found: NonFinite) -> str:
        """An empty string."""
        return ""


class Debugger:
    """Keeps the states from before a chunk, and explains from them what was found after it."""

    def __init__(self, learner: Learner):
        self._learner = learner
        self._kept: list[tuple[tuple[int, ...], TrainState]] = []

    def keep(self, groups: Sequence[Group]) -> None:
        """Copies the states of all groups, in place of those from before the last chunk."""
        self._kept = []  # before the next copy is made
        self._kept = [(group.indices, copied(group.state)) for group in groups if _runs(group)]

    def explain(self, found: NonFinite) -> str:
        """Which operation makes the first NaN, or what becomes infinite, when it is run again."""
        if not found.length:
            return "debug=True runs chunks again, not the prefill"
        state, step = self._before(found.index), _checked_step(self._learner)
        for number in range(1, found.length + 1):
            error, (state, metrics) = step(state)
            step_name = "vector step" if self._learner.rollout_length == 1 else "rollout"
            where = f"run again, in {step_name} {number} of the chunk's {found.length}"
            names = ", ".join(nonfinite_in(state, metrics, self._learner.rollout_length))
            if error.get():
                operation = operation_of(error.get_exception())
                return f"{where}: {operation}" + (
                    f"; not finite after it: {names}" if names else ""
                )
            if names:
                return f"{where}: no operation made NaN, but {names} became infinite"
        return "run again step by step, everything stayed finite"

    def _before(self, index: int) -> TrainState:
        """The state of a seed before the chunk, with a leading [1]."""
        indices, state = next(kept for kept in self._kept if index in kept[0])
        if len(indices) == 1:
            return state
        return rows(state, self._learner.state_axes(), [indices.index(index)])


def operation_of(error: Any) -> str:
    """What checkify found, and the innermost line of the program that is not JAX's own."""
    words = str(error).strip().rstrip(".")
    found = error.traceback_info
    lines = traceback.extract_tb(found.as_python_traceback())[::-1] if found else []
    home = str(Path(jax.__file__).parent)
    own = next((line for line in lines if not line.filename.startswith(home)), None)
    return words if own is None else f"{words} at {own.filename}:{own.lineno} ({own.name})"


def nonfinite_in(state: TrainState, metrics: ChunkMetrics, num_steps: int) -> list[str]:
    """Names of what is not finite after an iteration of so many steps; all have a leading [1]."""
    names = []
    if metrics.num_sound_steps[0] < num_steps:
        names.append(_bad_input(state.buffer))
    if metrics.first_bad_update[0] != NEVER:
        names.append("the loss")
    is_finite = [bool(np.all(np.isfinite(leaf))) for leaf in jax.tree.leaves(state.params)]
    if not all(is_finite):
        names.append(f"{is_finite.count(False)} of {len(is_finite)} arrays of parameters")
    return names


def _bad_input(buffer: Buffer | OnlineBuffer) -> str:
    if isinstance(buffer, OnlineBuffer):  # which keeps no rewards
        return "a reward or an observation"
    row = int(buffer.cursor.position) - 1
    is_reward = not np.all(np.isfinite(buffer.reward[0, row]))
    return "a reward" if is_reward else "an observation"


def _runs(group: Group) -> bool:
    return group.state.rollout is not None


@functools.lru_cache(maxsize=4)
def _checked_step(learner: Learner) -> Callable[[TrainState], Any]:
    axes = learner.state_axes()
    step = over_seeds(learner.step, 1, (axes,), (axes, 0))
    return jax.jit(checkify.checkify(step, errors=checkify.nan_checks))
