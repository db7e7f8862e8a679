"""Calls callbacks: their order, their views of the run, and what may come back."""

import copy
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl_cb.errors import (
    CallbackTypeError,
    CheckpointMismatchError,
    CheckpointWarning,
    JaxrlError,
    shown,
)
from jaxrl_cb.trainer.callbacks import (
    FUNCTIONS,
    Callback,
    EpochStopCallback,
    TrainerCallbacks,
)
from jaxrl_cb.trainer.context import TrainingContext
from jaxrl_cb.trainer.plain import from_plain, to_plain


class Confirmation(NamedTuple):
    """What a stop callback found that tested again: the mean return, and whether it stops."""

    score: float
    stops: bool


class Hooks:
    """The callbacks of one run, bound to their contexts.

    Train and test callbacks are called once for all seeds. Stop callbacks are asked for each seed:
    of several seeds each has its own deep copies, so that patience counters do not mix.
    """

    def __init__(
        self, callbacks: TrainerCallbacks, context: TrainingContext, views: list[TrainingContext]
    ):
        train, test, stop = callbacks.lists()
        self.context = context
        self.views = views
        self.train = [(c, c.get_trainer_fn(context)) for c in train]
        self.test = [(c, c.get_trainer_fn(context)) for c in test]
        copies = [stop] if len(views) == 1 else [copy.deepcopy(stop) for _ in views]
        self.stop = [
            [(c, c.get_trainer_fn(view)) for c in own]
            for own, view in zip(copies, views, strict=True)
        ]
        self._told: set[str] = set()  # see `unsaved`
        self._texts = [str(callback) for callback in self._all()]
        everyone = [(context, [*train, *test]), *zip(views, copies, strict=True)]
        for own_context, own in everyone:
            for callback in own:
                callback.validate(own_context)

    def on_train(self, epoch: int, env_step: int) -> None:
        """Calls the train callbacks."""
        for callback, function in self.train:
            _call(callback, "callback", epoch, function, epoch, env_step)

    def on_test(self, epoch: int, env_step: int) -> None:
        """Calls the test callbacks."""
        for callback, function in self.test:
            _call(callback, "callback", epoch, function, epoch, env_step)

    def ask(self, index: int, epoch: int, mean_reward: float) -> tuple[bool, list[Confirmation]]:
        """Asks every stop callback of one seed, once each; any True stops it.

        Returns:
            Whether the seed stops, and what callbacks found that tested again.
        """
        view, stop, confirmations = self.views[index], False, []
        for callback, function in self.stop[index]:
            view.confirmed_score = None
            answer = _as_bool(
                callback, epoch, _call(callback, "should_stop", epoch, function, mean_reward)
            )
            if view.confirmed_score is not None:
                confirmations.append(Confirmation(float(view.confirmed_score), answer))
            stop = stop or answer
        return stop, confirmations

    def stop_callbacks(self) -> list[Any]:
        """The stop callbacks of each seed, as they were given: one, a list, or None."""

        def like_given(own: list[EpochStopCallback]) -> Any:
            return None if not own else own[0] if len(own) == 1 else own

        return [like_given([c for c, _ in own]) for own in self.stop]

    def state_dict(self) -> list[dict[str, Any]]:
        """Class, text before the run, and state of every callback in order, as JSON.

        Raises:
            CallbackTypeError: a `state_dict` has something that JSON cannot bring back.
        """
        return [
            {"class": _class(callback), "text": text, "state": _plain_state(callback)}
            for callback, text in zip(self._all(), self._texts, strict=True)
        ]

    def check(self, states: list[dict[str, Any]]) -> None:
        """Checks that what `state_dict` gave was of the same callbacks.

        Raises:
            CheckpointMismatchError: it was of other ones.
        """
        given, now = [s["class"] for s in states], [_class(c) for c in self._all()]
        if given != now:
            raise CheckpointMismatchError(
                f"the run had the callbacks {', '.join(given) or 'none'}, now there are "
                f"{', '.join(now) or 'none'}; give it the same ones"
            )

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Puts back what `check` has taken, with a warning where that changes what was given."""
        for callback, text, state in zip(self._all(), self._texts, states, strict=True):
            callback.load_state_dict(from_plain(state["state"]))
            if text not in (state["text"], str(callback)):
                warnings.warn(
                    f"{callback}, by the state that was saved, was given as {text}",
                    *(CheckpointWarning, 2),
                )

    def unsaved(self, states: list[dict[str, Any]]) -> list[str]:
        """What `state_dict` left out and was not told of before, each with the way out."""
        texts = [
            _unsaved_text(callback, name)
            for callback, state in zip(self._all(), states, strict=True)
            for name in callback.unsaved(state["state"])
        ]
        new = [text for text in dict.fromkeys(texts) if text not in self._told]
        self._told.update(new)
        return new

    def _all(self) -> list[Callback]:
        return [callback for own in (self.train, self.test, *self.stop) for callback, _ in own]


def _call(callback: Any, hook: str, epoch: int, function: Callable, *arguments: Any) -> Any:
    where = f"{_name(callback)}.{hook}, epoch {epoch}"
    try:
        return function(*arguments)
    except JaxrlError as error:  # ours: where it happened belongs to its one line
        error.args = (f"{where}: {error}",)
        raise
    except BaseException as error:  # the user's own, which stays as it is
        error.add_note(where)
        if "has been deleted" in str(error):
            error.add_note("a state is valid until its callback returns; keep context.snapshot()")
        raise


def _as_bool(callback: Any, epoch: int, answer: Any) -> bool:
    is_array = isinstance(answer, bool | int | np.ndarray | np.generic | jax.Array)
    scalar = np.asarray(answer) if is_array else None
    if scalar is None or scalar.ndim or scalar.dtype.kind not in "biu":
        raise CallbackTypeError(
            f"{_name(callback)}.should_stop, epoch {epoch}: it returned {shown(answer)}; expected "
            "True or False"
        )
    return bool(scalar)


def _class(callback: Any) -> str:
    """What tells one callback from another: the name of its class, or of its function.

    The module is left out, as it is ``__main__`` where the same file is run as a script.
    """
    return callback.name if isinstance(callback, FUNCTIONS) else type(callback).__qualname__


def _plain_state(callback: Any) -> Any:
    state = callback.state_dict()
    if not isinstance(state, dict):
        raise CallbackTypeError(
            f"{_name(callback)}.state_dict() returned {shown(state)}; return a dict"
        )
    try:
        return to_plain(state)
    except TypeError as error:
        raise CallbackTypeError(
            f"{_name(callback)}.state_dict() holds {error}, which a checkpoint cannot keep; return "
            "numbers, text, lists, tuples, sets, deques, dicts and arrays"
        ) from error


def _unsaved_text(callback: Any, attribute: str) -> str:
    name = _name(callback)
    if isinstance(callback, FUNCTIONS):
        return (
            f"the state of the object whose method {name} is a callback is not saved; make its "
            "class a callback, with a state_dict and a load_state_dict"
        )
    return (
        f"{name}.{attribute} ({type(vars(callback)[attribute]).__name__}) is not saved; give "
        f"{name} a state_dict and a load_state_dict that bring it back"
    )


def _name(callback: Any) -> str:
    """The class, or the function that stands in a callback's place."""
    is_function = isinstance(callback, FUNCTIONS)
    return callback.name if is_function else type(callback).__name__
