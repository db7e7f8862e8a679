"""Callbacks that set parameters of the environment: a curriculum, and those of the tests."""

import math
from collections.abc import Mapping
from typing import Any

from jaxrl_cb.checks import check_float, check_int
from jaxrl_cb.errors import CallbackTypeError, CallbackValueError, kind, shown
from jaxrl_cb.ops.segments import linear_decay
from jaxrl_cb.trainer.callbacks import EpochTestCallback, EpochTrainCallback
from jaxrl_cb.trainer.context import TrainingContext


class EpochTrainCallbackCurriculum(EpochTrainCallback):
    """Lets parameters of the environment go from easy to hard, a step at the start of each epoch.

    They have to be among the run's `env_params`. Tests are played with those of their epoch,
    unless an `EpochTestCallbackSetEnvParams` sets others for them.
    """

    def __init__(self, params: Mapping[str, tuple[float, float]], steps: int):
        """Args:
        params: by name, the value at environment step 0 and the one at and after `steps`.
        steps: environment steps, 0 or more.
        """
        _check_dict(self, params)
        check_int("steps", steps, 0, 2**62)
        self.params: dict[str, list[float]] = {}
        for name, ends in params.items():
            if not isinstance(ends, tuple | list) or len(ends) != 2:
                raise CallbackValueError(
                    f"{type(self).__name__}: {name}={shown(ends)}; expected a pair, the first "
                    "value and the last"
                )
            for value in ends:
                check_float(name, value, -math.inf)
            self.params[name] = list(ends)
        self.steps = steps

    def validate(self, context: TrainingContext) -> None:
        """Raises CallbackValueError if the environment has no such `env_params`."""
        _check_known(self, self.params, context)

    def callback(self, epoch: int, env_step: int, context: TrainingContext) -> None:
        """Sets the values of this epoch and logs them."""
        now = {
            name: float(linear_decay(first, last, self.steps, env_step))
            for name, (first, last) in self.params.items()
        }
        context.policy.set_env_params(**now)
        names = {f"env/{name}": value for name, value in now.items()}
        context.logger.write("train/env_step", env_step, names)


class EpochTestCallbackSetEnvParams(EpochTestCallback):
    """Sets parameters of the environment for the tests, for example those of the real task."""

    def __init__(self, params: Mapping[str, float]):
        """Args:
        params: values by name.
        """
        _check_dict(self, params)
        for name, value in params.items():
            check_float(name, value, -math.inf)
        self.params = dict(params)

    def validate(self, context: TrainingContext) -> None:
        """Raises CallbackValueError if the environment has no such `env_params`."""
        _check_known(self, self.params, context)

    def callback(self, epoch: int, env_step: int | None, context: TrainingContext) -> None:
        """Sets them."""
        context.policy.set_env_params(**self.params)


def _check_dict(callback: Any, params: Any) -> None:
    if not isinstance(params, Mapping) or not params:
        raise CallbackTypeError(
            f"{type(callback).__name__}: params={shown(params)} is {kind(params)}; expected a dict "
            "by name of a parameter"
        )


def _check_known(callback: Any, params: Mapping[str, Any], context: TrainingContext) -> None:
    known = getattr(context.envs.env, "env_params", {})
    for name in params:
        if name not in known:
            raise CallbackValueError(
                f"{type(callback).__name__}: {shown(name)} is none of the run's env_params, which "
                f"are {', '.join(known) or 'none'}; say env_params={{{name!r}: ...}} to train"
            )
