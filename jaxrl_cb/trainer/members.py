"""The seeds of a run: which are held together, which still run, and what stopped ones keep.

How seeds are executed is a value. Each group of W seeds has one state with a leading [W] and one
set of programs. On CPU every seed is a group of its own (one program, dispatched for each in turn,
over all CPU devices that there are): equal bits alone and together, no recompilation when a seed
stops. On an accelerator all seeds are one group under `vmap`.
"""

import copy as copylib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxrl_cb.learners import Learner
from jaxrl_cb.trainer import leaves
from jaxrl_cb.trainer.compaction import narrowed
from jaxrl_cb.trainer.groups import Group, Start
from jaxrl_cb.trainer.programs import ProgramPlan, Programs, compile_programs, metrics_of
from jaxrl_cb.types import ChunkMetrics, Evaluation, PyTree, TrainState

LOCKSTEP = ("num_updates", "update_credit")
"""Scalars of the state (beside the replay's own) that running seeds have in common."""


class Members:
    """All seeds of a run, in order; they begin with `init` or `restore`.

    Attributes:
        num_seeds: S.
        running: indices of the seeds that have not stopped.
    """

    def __init__(
        self,
        learner: Learner,
        num_seeds: int,
        *,
        vectorized: bool,
        chunk_lengths: tuple[int, ...],
        num_test_episodes: int,
    ):
        self.num_seeds = num_seeds
        self.running = list(range(num_seeds))
        self._learner = learner
        self._num_test_episodes = num_test_episodes
        self._axes = learner.state_axes()
        self._small_axes = self._axes.replace(buffer=None, rollout=None)
        self._parked: dict[int, TrainState] = {}
        self._width = num_seeds if vectorized else 1
        self._chunk_lengths = chunk_lengths
        self._make_groups()

    def _make_groups(self) -> None:
        """Groups of all seeds, without states."""
        self.groups, width, devices = [], self._width, jax.local_devices()
        for first in range(0, self.num_seeds, width):
            device = devices[first % len(devices)]
            plan = ProgramPlan(width, self._chunk_lengths, self._num_test_episodes, device)
            self.groups.append(Group(tuple(range(first, first + width)), plan))

    def init(self, starts: Sequence[Start]) -> None:
        """Gives every seed a fresh state; the programs are compiled."""
        for group in self.groups:
            seeds, *values = zip(*(starts[index] for index in group.indices), strict=True)
            values = [jax.tree.map(lambda *each: np.stack(each), *own) for own in values]
            inputs = jax.device_put((np.array(seeds, np.uint32), *values), group.plan.device)
            programs: Any = self.programs(group)
            group.state = programs.init(*inputs)

    def compile(self) -> None:
        """Compiles what is not compiled yet."""
        for group in self.groups:
            self.programs(group)

    def programs(self, group: Group) -> Programs:
        """A group's programs, compiled when first asked for."""
        if group.programs is None:
            group.programs = compile_programs(self._learner, group.plan)
        return group.programs

    @property
    def width(self) -> int:
        """Seeds that the widest programs are for."""
        return max(group.plan.width for group in self.groups)

    def compact(self, pays: Callable[[int, int], bool]) -> None:
        """Puts seeds that run into narrower groups, where many of their group have stopped.

        Args:
            pays: whether it is worth while, given the old width and the new one, for which programs
                may have to be compiled.
        """
        if self._width <= 2:
            return
        for position, group in enumerate(self.groups):
            width, live = group.plan.width, [i for i in group.indices if i in self.running]
            narrow = narrowed(width, len(live))
            if live and narrow < width and pays(width, narrow):
                self.groups[position] = group.narrow(self._learner, self._axes, live, narrow)

    def widen(self) -> None:
        """Makes groups as wide as at the beginning again; their states are to be restored."""
        if any(group.plan.width < self._width for group in self.groups):
            self._make_groups()

    def run_chunk(self, length: int) -> ChunkMetrics:
        """Runs `length` iterations of every running seed; returns its metrics as NumPy arrays.

        Those of stopped seeds are NaN, -1 or True.
        """
        words = []
        for group in self._running_groups():
            group.state, result = self.programs(group).chunks[length](group.as_set)
            words.append(result)
        return self._gather(words, self.running, metrics_of)

    def _gather(
        self, per_group: Sequence[PyTree], chosen: Sequence[int], read: Callable | None = None
    ) -> PyTree:
        """Results of the running groups that have chosen seeds, as NumPy arrays [S, ...].

        Seeds that are not chosen or have stopped get NaN, -1 or True.

        Args:
            per_group: the results.
            chosen: the seeds.
            read: what is made of each group's result, one array, on the host.
        """
        jax.block_until_ready(per_group)  # lets signals in, which reading the arrays does not
        if read:
            per_group = [read(np.asarray(result)) for result in per_group]
        else:
            per_group = jax.device_get(per_group)  # all at once: each wait takes a while
            # History keeps them, and on CPU they are views, each of which holds a device's buffer.
            per_group = jax.tree.map(np.copy, per_group)
        indices = [i for group in self._running_groups(chosen) for i in group.indices]
        absent = [i for i in range(self.num_seeds) if i not in self.running or i not in chosen]
        if len(per_group) == 1 and not absent:
            return per_group[0]

        def join(*parts):
            joined = np.concatenate(parts)
            fill = {"f": np.nan, "b": True}.get(joined.dtype.kind, -1)
            result = np.full((self.num_seeds, *joined.shape[1:]), fill, joined.dtype)
            result[indices] = joined
            result[absent] = fill
            return result

        return jax.tree.map(join, *per_group)

    def evaluate(self, phases: np.ndarray, indices: Sequence[int]) -> Callable[[], Evaluation]:
        """Begins to test some of the running seeds once.

        Args:
            phases: [S, 2], the epoch and the number of the evaluation, of each seed.
            indices: the seeds; those that have stopped are left out.

        Returns:
            What waits for the test, before any seed stops, and gives NumPy arrays [S, N]; returns
            are NaN and lengths -1 where not tested.
        """
        results = []
        for group in self._running_groups(indices):
            state, phase = group.as_set, phases[list(group.indices)].astype(np.uint32)
            inputs = (state.params, state.epsilon.inference, state.test_key)
            env_params = state.hyperparams.env_params
            results.append(self.programs(group).evaluate(*inputs, phase, env_params))
        return lambda: self._gather(results, indices) if results else self._not_tested()

    def num_nonfinite(self) -> np.ndarray:
        """[S] int32, `Rollout.num_nonfinite` of the running seeds; -1 for the others."""
        counts = [group.state.rollout.num_nonfinite for group in self._running_groups()]
        return self._gather(counts, self.running)

    def state(self, indices: Sequence[int]) -> TrainState:
        """The state of some seeds, with a leading axis of them; direct where it is one group's.

        For more than one seed, replay and rollout are those of the seeds that still run (None
        if there are none).
        """
        group = self._exactly(indices)
        if group:
            return group.state
        members = [self._member(i) for i in indices]
        whole = [m for m in members if m.buffer is not None]
        small = self.small_state(indices)
        if not whole:
            return small
        running = leaves.stacked(whole, self._axes)
        return small.replace(buffer=running.buffer, rollout=running.rollout)

    def small_state(self, indices: Sequence[int]) -> TrainState:
        """`state(indices)` without replay and rollout, which are not copied for it.

        What was set may be NumPy's.
        """
        group = self._exactly(indices)
        if group:
            return group.as_set.replace(buffer=None, rollout=None)
        return leaves.stacked([self._small_member(i) for i in indices], self._small_axes)

    def params_of(self, index: int) -> PyTree:
        """A copy of a seed's parameters as NumPy arrays, with a leading [1]."""
        parked, row = self._parked.get(index), 0
        if parked is None:
            group = self._group(index)
            row, params = group.indices.index(index), group.as_set.params
        else:
            params = parked.params
        return jax.tree.map(lambda x: x[row : row + 1].copy(), jax.device_get(params))

    def held(self, *, copy: bool) -> "Members":
        """The seeds as they are now, only to ask for their `state` later.

        Args:
            copy: whether chunks will go on, which consume the states that they are given.
        """
        nothing: Any = None  # neither programs nor devices can be pickled
        held = copylib.copy(self)
        held.running, held._parked = list(self.running), dict(self._parked)
        held._learner = nothing
        held.groups = [Group(group.indices, nothing, group.state) for group in self.groups]
        for group in held.groups if copy else []:
            group.state = leaves.copied(group.state)
        return held

    def replace_state(self, indices: Sequence[int], new: TrainState) -> None:
        """Puts a state in place of that of some seeds, leaf by leaf (see `leaves.replaced`)."""
        group = self._exactly(indices)
        if group:
            group.state = leaves.replaced(group.state, new)
            return
        small, whole = (
            new.replace(buffer=None, rollout=None),
            [i for i in indices if i in self.running],
        )
        for index in whole:
            part = leaves.rows(small, self._small_axes, [indices.index(index)])
            large = leaves.rows(new, self._axes, [whole.index(index)])
            part = part.replace(buffer=large.buffer, rollout=large.rollout)
            group = self._group(index)
            parts = [part if i == index else self._row(group, i) for i in group.indices]
            group.state = leaves.replaced(group.state, leaves.stacked(parts, self._axes))

    def set_field(self, indices: Sequence[int], name: tuple[str, str], values: PyTree) -> None:
        """Sets a field of a field of the state for those of some seeds that run.

        Args:
            indices: the seeds.
            name: of both fields, for example ("epsilon", "inference").
            values: leaves are [] or [number of these seeds].
        """
        for group in self._running_groups(indices):
            chosen = self._places(group, indices)
            is_own = chosen >= 0

            def in_group(value: Any, old: Any, is_own=is_own, own=chosen[is_own]) -> np.ndarray:
                new = np.empty(old.shape, old.dtype) if is_own.all() else np.array(old)
                new[is_own] = value[own] if np.ndim(value) else value
                return new

            group.set_field(name, lambda old, f=in_group: jax.tree.map(f, values, old))

    def replace_params(self, index: int, new: PyTree) -> None:
        """Gives the networks of a running seed other parameters, with a leading [1]."""
        names = ("params", "target_params")
        old = self._group(index).state
        self._replace_fields(index, {n: new for n in names if getattr(old, n) is not None})

    def copy_learned(self, source: int, target: int) -> None:
        """Gives a running seed the networks and the optimiser of another seed."""
        own = self.small_state((source,))
        names = ("params", "target_params", "opt_state")
        self._replace_fields(target, {name: getattr(own, name) for name in names})

    def _replace_fields(self, index: int, new: dict[str, PyTree]) -> None:
        """Replaces fields of the state of a running seed, given with a leading [1]."""
        [group] = self._running_groups((index,))
        places = self._places(group, (index,))

        def put(old, own):
            is_own = (places >= 0).reshape(-1, *[1] * (old.ndim - 1))
            return np.where(is_own, np.asarray(own), np.asarray(old))

        state = group.state
        changed = {n: jax.tree.map(put, getattr(state, n), own) for n, own in new.items()}
        group.state = leaves.replaced(state, state.replace(**changed))

    def park(self, index: int) -> None:
        """Stops a seed: its state stays as it is now, without replay and rollout if S > 1."""
        self.running.remove(index)
        if self.num_seeds == 1:
            return
        group = self._group(index)
        small = group.state.replace(buffer=None, rollout=None)
        if len(group.indices) == 1:
            group.state = small
        else:
            position = group.indices.index(index)
            small = leaves.rows(leaves.copied(small), self._small_axes, [position])
        self._parked[index] = small

    def release(self) -> None:
        """Lets go of replay and rollout of all seeds."""
        for group in self.groups:
            group.state = group.as_set.replace(buffer=None, rollout=None)

    def snapshot(
        self, into: TrainState | None = None, *, copy: bool = True
    ) -> tuple[TrainState, dict[str, np.ndarray]]:
        """All that the seeds are.

        Args:
            into: of an earlier one that nobody needs any more, see `leaves.to_host`.
            copy: on the host, whatever happens to the seeds later; else where it is now, valid
                until their next epoch.

        Returns:
            `state` of all seeds, as NumPy arrays if copied (keys stay typed), and by name the
            lockstep scalars of each seed [S], in which stopped seeds differ from those that run.
        """
        state = self.state(tuple(range(self.num_seeds)))
        each = [
            self._parked[i] if i in self._parked else self._group(i).state
            for i in range(self.num_seeds)
        ]
        lockstep = {name: np.array([getattr(s, name) for s in each]) for name in LOCKSTEP}
        return leaves.to_host(state, into) if copy else state, lockstep

    def restore(
        self, state: TrainState, lockstep: dict[str, np.ndarray], running: Sequence[int]
    ) -> None:
        """Puts back what `snapshot` gave while these seeds were running."""
        self.running, self._parked = list(running), {}
        small = state.replace(buffer=None, rollout=None)

        def of(indices: Sequence[int], like: int) -> TrainState:
            """Some seeds, without replay, in lockstep with one of them."""
            own = {name: values[like] for name, values in lockstep.items()}
            return leaves.rows(small, self._small_axes, indices).replace(**own)

        for group in self.groups:
            live = [i for i in group.indices if i in self.running]
            group_state = of(group.indices, (live or group.indices)[0])
            if self.num_seeds == 1:
                group_state = group_state.replace(buffer=state.buffer, rollout=state.rollout)
            elif live:  # the place of a stopped seed is taken by any that runs
                places = [self.running.index(i if i in live else live[0]) for i in group.indices]
                whole = leaves.rows(state, self._axes, places)
                group_state = group_state.replace(buffer=whole.buffer, rollout=whole.rollout)
            group.state = leaves.put(group_state, group.plan.device)
            if self.num_seeds > 1:
                stopped = [i for i in group.indices if i not in live]
                self._parked |= {i: leaves.put(of([i], i), group.plan.device) for i in stopped}

    def _not_tested(self) -> Evaluation:
        shape = (self.num_seeds, self._num_test_episodes)
        returns, lengths = np.full(shape, np.nan, np.float32), np.full(shape, -1, np.int32)
        return Evaluation(returns, lengths, is_complete=np.ones(shape, bool))

    def _running_groups(self, chosen: Sequence[int] | None = None) -> list[Group]:
        wanted = set(self.running) if chosen is None else set(self.running) & set(chosen)
        return [group for group in self.groups if wanted & set(group.indices)]

    def _exactly(self, indices: Sequence[int]) -> Group | None:
        """The group of just these seeds, none of them parked."""
        if indices[0] in self._parked:
            return None
        whole = self._group(indices[0])
        is_whole = whole.indices == tuple(indices) and not set(indices) & set(self._parked)
        return whole if is_whole else None

    def _places(self, group: Group, indices: Sequence[int]) -> np.ndarray:
        """Where each of a group's seeds is among `indices`; -1 where it is not."""
        return np.array([indices.index(i) if i in indices else -1 for i in group.indices])

    def _group(self, index: int) -> Group:
        return next(group for group in self.groups if index in group.indices)

    def _member(self, index: int) -> TrainState:
        parked = self._parked.get(index)
        return self._row(self._group(index), index) if parked is None else parked

    def _small_member(self, index: int) -> TrainState:
        if index in self._parked:
            return self._parked[index]
        group = self._group(index)
        small = group.as_set.replace(buffer=None, rollout=None)
        if len(group.indices) == 1:
            return small
        return leaves.rows(small, self._small_axes, [group.indices.index(index)])

    def _row(self, group: Group, index: int) -> TrainState:
        if len(group.indices) == 1:
            return group.state
        return leaves.rows(group.state, self._axes, [group.indices.index(index)])
