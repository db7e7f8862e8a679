"""What can be done with many seeds between two epochs: dropping trials, copying better seeds."""

import math
from typing import Any

import numpy as np

from jaxrl_cb.checks import check_float, check_int
from jaxrl_cb.errors import CallbackValueError, shown
from jaxrl_cb.trainer.callbacks import EpochTrainCallback
from jaxrl_cb.trainer.context import TrainingContext


class EpochTrainCallbackSuccessiveHalving(EpochTrainCallback):
    """Goes on with the best trials only: after some epochs with a third, later with a third of it.

    (Jamieson and Talwalkar 2016; rungs as in ASHA, Li et al. 2020, but all trials reach one before
    it is decided.) What a dropped trial would have cost is saved. In a run by itself every seed is
    a trial; in a sweep the seeds of a trial go on or are dropped together.
    """

    def __init__(self, first_rung: int, factor: int = 3):
        """Args:
        first_rung: epochs before the first decision, 1 or more; later ones come after `factor`
            times as many, and so on.
        factor: of so many trials one goes on (rounded up), 2 or more.
        """
        check_int("first_rung", first_rung, 1)
        check_int("factor", factor, 2)
        self.first_rung = first_rung
        self.factor = factor

    def is_rung(self, epochs: int) -> bool:
        """Whether it is decided after so many epochs."""
        rung = self.first_rung
        while rung < epochs:
            rung *= self.factor
        return rung == epochs

    def callback(self, epoch: int, env_step: int, context: TrainingContext) -> None:
        """Drops the worst trials if the epoch before was a rung."""
        if not self.is_rung(epoch - 1):
            return
        scores = context.population.scores(epoch - 1)
        # A tie goes to the trial that comes first.
        ranked = sorted(scores, key=lambda trial: (-scores[trial], trial))
        kept = set(ranked[: math.ceil(len(ranked) / self.factor)])
        trials = context.population.trials
        worse = [i for i in context.running if trials[i] in scores and trials[i] not in kept]
        context.drop(worse)
        names = {"sweep/trials": len(scores), "sweep/kept": len(kept), "sweep/dropped": worse}
        context.logger.write("train/env_step", env_step, names)


class EpochTrainCallbackPopulationBasedTraining(EpochTrainCallback):
    """Lets the worst seeds go on from the best ones, with another learning rate.

    (Jaderberg et al. 2017: truncation selection, and perturbation by a factor.) Parameters, target
    network and optimiser are copied, and the learning rate; each seed keeps its replay, its
    environments and its random numbers.
    """

    def __init__(
        self,
        every: int,
        fraction: float = 0.25,
        factors: tuple[float, ...] = (0.8, 1.25),
        seed: int = 0,
    ):
        """Args:
        every: epochs from one selection to the next, 1 or more.
        fraction: of the running seeds that are replaced, and of those that replace them, in
            (0, 0.5].
        factors: one of them multiplies the learning rate of a seed that was replaced.
        seed: of these choices.
        """
        check_int("every", every, 1)
        check_float("fraction", fraction, 0, 0.5, open_low=True)
        check_int("seed", seed, 0)
        self.every = every
        self.fraction = fraction
        self.factors = list(factors)
        if not self.factors:
            raise CallbackValueError(f"{type(self).__name__}: factors={shown(factors)} holds none")
        for factor in self.factors:
            check_float("factors", factor, 0, open_low=True)
        self.random = np.random.default_rng(seed)

    def _tostring_excludes(self) -> list[str]:
        return ["random"]

    def callback(self, epoch: int, env_step: int, context: TrainingContext) -> None:
        """Replaces the worst seeds if it is time to."""
        running = context.running
        count = math.floor(self.fraction * len(running))
        if epoch == 1 or (epoch - 1) % self.every or not count:
            return
        means = context.history[-1].mean
        ranked = sorted(running, key=lambda index: (-means[index], index))
        rates: Any = np.array(context.policy.learning_rate)
        sources = self.random.choice(ranked[:count], count).tolist()
        for source, target in zip(sources, ranked[-count:], strict=True):
            context.policy.copy_learned(source, target)
            rates[target] = rates[source] * self.random.choice(self.factors)
        context.policy.set_learning_rate(rates)
        pairs = [list(pair) for pair in zip(sources, ranked[-count:], strict=True)]
        facts = {"pbt/from_to": pairs, "train/learning_rate": rates.tolist()}
        context.logger.write("train/env_step", env_step, facts)
