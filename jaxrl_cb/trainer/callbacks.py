"""The callback interface (Tianshou's ``highlevel.trainer``, v1.2 names and signatures)."""

import dataclasses
import functools
import inspect
import re
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Any, Self

import numpy as np
from sensai.util.string import ToStringMixin

from jaxrl_cb.errors import CallbackTypeError, kind, looks_secret
from jaxrl_cb.trainer.context import TrainingContext
from jaxrl_cb.trainer.plain import is_plain, with_secrets, without_secrets


class Callback(ToStringMixin, ABC):
    """What all callbacks share: a string form, a check before the run, and a state.

    ``str(callback)`` is ``ClassName[attribute=value, ...]``, the same in every process.
    """

    def __repr__(self) -> str:
        return str(self)

    def _tostring_properties(self, exclude: Any = None, *settings: Any, **named: Any) -> str:
        secrets = [name for name in vars(self) if looks_secret(name)]
        # Text is made of a stand-in, whose dicts are without secrets too.
        shown = object.__new__(type(self))
        vars(shown).update({n: without_secrets(value) for n, value in vars(self).items()})
        named.setdefault("converter", self._StringConverterAvoidToStringMixinRecursion(self))
        make = super(Callback, shown)._tostring_properties
        text = make([*(exclude or []), *secrets], *settings, **named)
        return re.sub(r" at 0x[0-9a-f]+", "", text)  # of objects without a text of their own

    def validate(self, context: TrainingContext) -> None:
        """Called once before anything runs; raises if the callback cannot work there."""

    def state_dict(self) -> dict[str, Any]:
        """The callback's state: by default all attributes that a checkpoint can keep.

        Those are numbers, text, lists, tuples, sets, deques, dicts and arrays, what is made of
        them, and generators (`numpy.random.default_rng`, `random.Random`). Overrides return such
        values as well. Attributes that are named like secrets (``api_key``), and such entries of
        dicts, are left out, here and in the text.
        """
        values = vars(self).items()
        saved = {n: value for n, value in values if is_plain(value) and not looks_secret(n)}
        return {n: without_secrets(value) for n, value in saved.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts back what `state_dict` gave; entries of dicts that it left out stay as they are."""
        own = vars(self)
        own.update({n: with_secrets(value, own.get(n)) for n, value in state.items()})

    def unsaved(self, saved: Collection[str]) -> list[str]:
        """Names of attributes that the default `state_dict` leaves out and a resumed run lacks.

        Args:
            saved: names that it gave. Of the others, functions and classes have no state.
        """
        if type(self).state_dict is not Callback.state_dict:
            return []
        return [
            n
            for n, value in vars(self).items()
            if n not in saved and not (looks_secret(n) or has_no_state(value, self))
        ]


def has_no_state(value: Any, callback: Any = None) -> bool:
    """Whether a value is a function or a class, or only wraps one, as `jax.jit` does.

    A method of an object has its state, unless the object is the callback itself.
    """
    while isinstance(value, functools.partial) or hasattr(value, "__wrapped__"):
        value = value.func if isinstance(value, functools.partial) else value.__wrapped__
    owner = getattr(value, "__self__", None)
    is_free = owner is None or owner is callback or isinstance(owner, type | types.ModuleType)
    return isinstance(value, type | np.ufunc) or (inspect.isroutine(value) and is_free)


class EpochTrainCallback(Callback):
    """Called at the start of each epoch, before it collects anything."""

    @abstractmethod
    def callback(self, epoch: int, env_step: int, context: TrainingContext) -> None:
        """Does what is to be done before an epoch.

        Args:
            epoch: from 1.
            env_step: environment steps of one seed before this epoch, over all its environments.
            context: access to the run.
        """

    def get_trainer_fn(self, context: TrainingContext) -> Callable[[int, int], None]:
        """A plain function (epoch, env_step) bound to a context."""

        def fn(epoch: int, env_step: int) -> None:
            return self.callback(epoch, env_step, context)

        return fn


class EpochTestCallback(Callback):
    """Called at the start of each test phase; the first one, (0, 0), is before training."""

    @abstractmethod
    def callback(self, epoch: int, env_step: int | None, context: TrainingContext) -> None:
        """Does what is to be done before a test.

        Args:
            epoch: 0 before training, then from 1.
            env_step: environment steps of one seed so far; None only where called by hand.
            context: access to the run.
        """

    def get_trainer_fn(self, context: TrainingContext) -> Callable[[int, int | None], None]:
        """A plain function (epoch, env_step) bound to a context."""

        def fn(epoch: int, env_step: int | None) -> None:
            return self.callback(epoch, env_step, context)

        return fn


class EpochStopCallback(Callback):
    """Asked after each test from epoch 1 on, once per running seed."""

    @abstractmethod
    def should_stop(self, mean_rewards: float, context: TrainingContext) -> bool:
        """Whether the seed that is asked about should stop.

        Args:
            mean_rewards: mean undiscounted return of this test (``context.best_score`` has the
                highest so far).
            context: this seed's view of the run.
        """

    def get_trainer_fn(self, context: TrainingContext) -> Callable[[float], bool]:
        """A plain function (mean_rewards) bound to a context."""

        def fn(mean_rewards: float) -> bool:
            return self.should_stop(mean_rewards, context)

        return fn


class _Function:
    """A plain function in a callback's place. It is shared by all seeds, as it has no copies."""

    parameters = ("epoch", "env_step", "context")

    def __init__(self, function: Callable[..., Any]):
        self._function = function
        self.name = getattr(function, "__qualname__", type(function).__name__)
        try:
            inspect.signature(function).bind(*self.parameters)
        except TypeError as error:
            raise CallbackTypeError(
                f"{self.name} is called as {self.name}({', '.join(self.parameters)}), but: {error}"
            ) from error
        except ValueError:  # it has no signature to look at
            pass

    def _tostring_excludes(self) -> list[str]:
        return ["_function"]  # its text holds an address

    def unsaved(self, saved: Collection[str]) -> list[str]:
        return [] if has_no_state(self._function) else ["_function"]

    def callback(self, epoch: int, env_step: Any, context: TrainingContext) -> None:
        self._function(epoch, env_step, context)

    def should_stop(self, mean_rewards: float, context: TrainingContext) -> bool:
        return self._function(mean_rewards, context)


class EpochTrainCallbackFunction(_Function, EpochTrainCallback):
    """Calls ``function(epoch, env_step, context)`` at the start of each epoch."""


class EpochTestCallbackFunction(_Function, EpochTestCallback):
    """Calls ``function(epoch, env_step, context)`` at the start of each test phase."""


class EpochStopCallbackFunction(_Function, EpochStopCallback):
    """Asks ``function(mean_rewards, context)`` after each test."""

    parameters = ("mean_rewards", "context")


FUNCTIONS = (EpochTrainCallbackFunction, EpochTestCallbackFunction, EpochStopCallbackFunction)


@dataclasses.dataclass(repr=False)
class TrainerCallbacks:
    """The callbacks of a run; each field takes one callback or a list of them.

    A plain function is a callback as well: ``(epoch, env_step, context)`` in the first two fields,
    ``(mean_rewards, context) -> bool`` in the third.
    """

    epoch_train_callback: Any = None
    epoch_test_callback: Any = None
    epoch_stop_callback: Any = None

    def __post_init__(self):
        self.lists()

    def __repr__(self) -> str:
        names = [field.name for field in dataclasses.fields(self)]
        return f"TrainerCallbacks({', '.join(map('{}={}'.format, names, self.lists()))})"

    def lists(
        self,
    ) -> tuple[list[EpochTrainCallback], list[EpochTestCallback], list[EpochStopCallback]]:
        """The train, test and stop callbacks as three lists.

        Raises:
            CallbackTypeError: something in a field is not a callback of its kind.
        """
        return (
            _as_list("epoch_train_callback", self.epoch_train_callback, EpochTrainCallbackFunction),
            _as_list("epoch_test_callback", self.epoch_test_callback, EpochTestCallbackFunction),
            _as_list("epoch_stop_callback", self.epoch_stop_callback, EpochStopCallbackFunction),
        )

    @classmethod
    def of(cls, callbacks: Self | None) -> Self:
        """The callbacks themselves, or an empty set for None."""
        if callbacks is None:
            return cls()
        if not isinstance(callbacks, TrainerCallbacks):
            raise CallbackTypeError(
                f"callbacks is {kind(callbacks)}; expected TrainerCallbacks("
                "epoch_train_callback=..., epoch_test_callback=..., epoch_stop_callback=...)"
            )
        return callbacks


def _as_list(field: str, value: Any, function_kind: type) -> list[Any]:
    entries = [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
    base = function_kind.__bases__[1]
    for index, entry in enumerate(entries):
        if inspect.isroutine(entry) or isinstance(entry, functools.partial):
            entries[index] = entry = function_kind(entry)
        if isinstance(entry, type):
            raise CallbackTypeError(
                f"{field} is the class {entry.__name__}, not an instance of it; write "
                f"{entry.__name__}(...)"
            )
        if not isinstance(entry, base):
            raise CallbackTypeError(
                f"{field} is {kind(entry)}; expected an {base.__name__}, a function "
                "or a list of them"
            )
    return entries
