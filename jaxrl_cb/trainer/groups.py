"""Seeds that are held together: one state with a leading axis of them, one set of programs."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxrl_cb.learners import Learner
from jaxrl_cb.trainer import leaves
from jaxrl_cb.trainer.programs import ProgramPlan, Programs, compile_programs
from jaxrl_cb.types import Epsilon, Hyperparams, PyTree, TrainState


class Start(NamedTuple):
    """What a seed begins with."""

    seed: int
    hyperparams: Hyperparams
    epsilon: Epsilon


class Group:
    """Seeds that are held together, by their index in the run.

    Attributes:
        indices: of its seeds.
        plan: what its programs are compiled for.
        programs: found once, as looking them up hashes the learner.
    """

    def __init__(self, indices: tuple[int, ...], plan: ProgramPlan, state: Any = None):
        self.indices, self.plan = indices, plan
        self.programs: Programs | None = None
        self._state = state
        self._set: dict[tuple[str, str], PyTree] = {}  # on the host until somebody looks
        self._as_set: Any = None  # once it was asked for

    @property
    def state(self) -> Any:
        """A TrainState, from `Members.init` or `restore` on."""
        if self._set:
            self.state = leaves.with_fields(self._state, leaves.put_like(self._state, self._set))
        return self._state

    @property
    def as_set(self) -> Any:
        """The same, where what was set may still be on the host; to read it, and for programs."""
        if self._as_set is None:
            self._as_set = leaves.with_fields(self._state, self._set)
        return self._as_set

    @state.setter
    def state(self, state: Any) -> None:
        self._state, self._set, self._as_set = state, {}, None

    def set_field(self, name: tuple[str, str], values_of: Callable[[PyTree], PyTree]) -> None:
        """Sets a field of a field of the state.

        It goes to the device with the next chunk, or when `state` is looked at.

        Args:
            name: of both.
            values_of: gives NumPy leaves for the old ones, of their shapes and dtypes.
        """
        old = self._set[name] if name in self._set else leaves.field(self._state, name)
        self._set[name], self._as_set = values_of(old), None

    def narrow(self, learner: Learner, axes: TrainState, live: list[int], width: int) -> "Group":
        """The seeds that run, and as many others as a narrower width wants; this group is used up.

        Args:
            learner: of the programs.
            axes: of the state's leaves that differ from seed to seed.
            live: the seeds that run.
            width: of the new group.
        """
        stopped = [i for i in self.indices if i not in live]
        kept = tuple(sorted([*live, *stopped[: width - len(live)]]))
        new = Group(kept, dataclasses.replace(self.plan, width=width))
        new.programs = compile_programs(learner, new.plan, with_init=False)
        state = leaves.rows(self.state, axes, [self.indices.index(i) for i in kept])
        self.state = None  # its memory is free for the new one
        new.state = leaves.put(state, new.plan.device)
        return new
