"""Epsilon callbacks of DQN (Tianshou's ``highlevel.params.dqn_callbacks``-style names, v1.2)."""

from typing import Any

import numpy as np

from jaxrl_cb.errors import CallbackTypeError, CallbackValueError, shown
from jaxrl_cb.ops.segments import linear_decay
from jaxrl_cb.trainer.callbacks import Callback, EpochTestCallback, EpochTrainCallback
from jaxrl_cb.trainer.context import TrainingContext


class _SetsEps(Callback):
    def __init__(self, eps_test: Any):
        """Args:
        eps_test: epsilon, in [0, 1]; a number, or an array with one per seed. (The name is
            Tianshou's, also where it is the training epsilon.)
        """
        self.eps_test = _epsilon(self, "eps_test", eps_test)

    @property
    def eps(self) -> Any:
        """The epsilon, by its name in Tianshou 2."""
        return self.eps_test


class EpochTrainCallbackDQNSetEps(_SetsEps, EpochTrainCallback):
    """Sets the training epsilon at the start of each epoch."""

    def callback(self, epoch: int, env_step: int, context: TrainingContext) -> None:
        """Sets it."""
        context.policy.set_eps_training(self.eps_test)


class EpochTestCallbackDQNSetEps(_SetsEps, EpochTestCallback):
    """Sets the test epsilon at the start of each test phase."""

    def callback(self, epoch: int, env_step: int | None, context: TrainingContext) -> None:
        """Sets it."""
        context.policy.set_eps_inference(self.eps_test)


class EpochTrainCallbackDQNEpsLinearDecay(EpochTrainCallback):
    """Lets the training epsilon fall linearly with the environment steps, within epochs as well.

    A callback that only set a number would hold it for a whole epoch. This one sets a schedule,
    which the compiled epoch follows step by step.
    """

    def __init__(self, eps_train: float, eps_train_final: float, decay_steps: int = 1000000):
        """Args:
        eps_train: epsilon at environment step 0, in [0, 1].
        eps_train_final: epsilon at and after `decay_steps`, in [0, 1]; it may be the larger one.
        decay_steps: environment steps, 0 or more.
        """
        self.eps_train = _epsilon(self, "eps_train", eps_train)
        self.eps_train_final = _epsilon(self, "eps_train_final", eps_train_final)
        array = _array(self, "decay_steps", decay_steps, "iuf")
        if not np.all((array >= 0) & (array == np.floor(array)) & (array < np.inf)):
            raise CallbackValueError(
                f"{type(self).__name__}: decay_steps={shown(decay_steps)} is out of range; it must "
                "be whole and 0 or more"
            )
        self.decay_steps = decay_steps

    def callback(self, epoch: int, env_step: int, context: TrainingContext) -> None:
        """Sets the rest of the schedule and logs the epsilon of now, once."""
        start, final, decay_steps = self.eps_train, self.eps_train_final, self.decay_steps
        context.policy.set_eps_schedule(start, final, decay_steps, env_step)
        eps = linear_decay(start, final, decay_steps, env_step).tolist()
        context.logger.write("train/env_step", env_step, {"train/eps": eps})


def _epsilon(callback: Any, name: str, value: Any) -> Any:
    array = _array(callback, name, value, "biuf")
    if not np.all((array >= 0) & (array <= 1)):
        raise CallbackValueError(
            f"{type(callback).__name__}: {name}={shown(value)} is out of range; it must be in "
            "[0, 1]"
        )
    return value


def _array(callback: Any, name: str, value: Any, kinds: str) -> np.ndarray:
    """The value as an array of one of these NumPy kinds of dtype."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        array = np.asarray(None)
    if array.dtype.kind not in kinds:
        raise CallbackTypeError(f"{type(callback).__name__}: {name}={shown(value)} is not a number")
    return array
