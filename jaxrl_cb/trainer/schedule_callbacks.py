"""More schedules of epsilon and of the learning rate."""

from collections.abc import Sequence

import numpy as np

from jaxrl_cb.checks import check_float, check_int
from jaxrl_cb.errors import CallbackTypeError, CallbackValueError, shown
from jaxrl_cb.ops.segments import linear_decay
from jaxrl_cb.trainer.callbacks import EpochTrainCallback
from jaxrl_cb.trainer.context import TrainingContext


class EpochTrainCallbackDQNEpsExponentialDecay(EpochTrainCallback):
    """Lets the training epsilon approach its final value, half of the way in every half-life.

    It is exact at the beginning of each epoch; within, a straight line leads to the value at its
    end (the epsilon between differs by less than an eighth of (epoch / half-life)^2 of the way).
    """

    def __init__(self, eps_train: float, eps_train_final: float, half_life: int):
        """Args:
        eps_train: epsilon at environment step 0, in [0, 1].
        eps_train_final: epsilon that is approached, in [0, 1].
        half_life: environment steps, 1 or more.
        """
        check_float("eps_train", eps_train, 0, 1)
        check_float("eps_train_final", eps_train_final, 0, 1)
        check_int("half_life", half_life, 1, 2**62)
        self.eps_train = eps_train
        self.eps_train_final = eps_train_final
        self.half_life = half_life

    def value(self, env_step: int) -> float:
        """Epsilon after so many environment steps."""
        left = 0.5 ** (env_step / self.half_life)
        return self.eps_train_final + (self.eps_train - self.eps_train_final) * left

    def callback(self, epoch: int, env_step: int, context: TrainingContext) -> None:
        """Sets the epsilon of this epoch and logs that of now."""
        length = getattr(context, "epoch_num_steps", 0)
        now = self.value(env_step)
        context.policy.set_eps_schedule(now, self.value(env_step + length), length, 0)
        context.logger.write("train/env_step", env_step, {"train/eps": now})


class EpochTrainCallbackDQNEpsPiecewise(EpochTrainCallback):
    """Lets the training epsilon follow straight lines between points.

    It is exact at every step, but where a corner lies within an epoch and the line beyond it is
    not flat: there a straight line leads to the value at the epoch's end.
    """

    def __init__(self, points: Sequence[tuple[int, float]]):
        """Args:
        points: pairs (environment step, epsilon in [0, 1]), steps increasing; the first and the
            last epsilon hold before and after them.
        """
        try:
            self.points = [[step, eps] for step, eps in points]  # lists, as JSON gives them back
        except (TypeError, ValueError) as error:
            raise CallbackTypeError(
                f"{type(self).__name__}: points={shown(points)}; expected a list of pairs "
                "(environment step, epsilon)"
            ) from error
        if not self.points:
            raise CallbackValueError(
                f"{type(self).__name__}: points={shown(points)} holds none; give one at least"
            )
        for step, eps in self.points:
            check_int("step", step, 0, 2**62)
            check_float("epsilon", eps, 0, 1)
        for (before, _), (after, _) in zip(self.points, self.points[1:], strict=False):
            if before >= after:
                raise CallbackValueError(
                    f"{type(self).__name__}: step {after} does not come after step {before}; list "
                    "the points in order"
                )

    def value(self, env_step: int) -> float:
        """Epsilon after so many environment steps."""
        steps, eps = zip(*self.points, strict=True)
        return float(np.interp(env_step, steps, eps))

    def callback(self, epoch: int, env_step: int, context: TrainingContext) -> None:
        """Sets the epsilon of this epoch and logs that of now."""
        end = env_step + getattr(context, "epoch_num_steps", 0)
        corner = next((step for step, _ in self.points if step > env_step), end)
        is_flat = self.value(corner) == self.value(end)
        until = corner if is_flat or corner > end else end
        now = self.value(env_step)
        context.policy.set_eps_schedule(now, self.value(until), until - env_step, 0)
        context.logger.write("train/env_step", env_step, {"train/eps": now})


class EpochTrainCallbackLearningRateDecay(EpochTrainCallback):
    """Lets the learning rate fall linearly, a step at the start of each epoch.

    (``learning_rate_schedule="linear"`` in the settings falls at every gradient step; it multiplies
    what is set here.)
    """

    def __init__(self, learning_rate: float, learning_rate_final: float, decay_steps: int):
        """Args:
        learning_rate: at environment step 0, 0 or more.
        learning_rate_final: at and after `decay_steps`, 0 or more.
        decay_steps: environment steps, 0 or more.
        """
        check_float("learning_rate", learning_rate, 0)
        check_float("learning_rate_final", learning_rate_final, 0)
        check_int("decay_steps", decay_steps, 0, 2**62)
        self.learning_rate = learning_rate
        self.learning_rate_final = learning_rate_final
        self.decay_steps = decay_steps

    def callback(self, epoch: int, env_step: int, context: TrainingContext) -> None:
        """Sets the learning rate of this epoch and logs it."""
        settings = (self.learning_rate, self.learning_rate_final, self.decay_steps)
        now = float(linear_decay(*settings, env_step))
        context.policy.set_learning_rate(now)
        context.logger.write("train/env_step", env_step, {"train/learning_rate": now})
