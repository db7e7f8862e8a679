"""NaN and infinity in a run: which seed, since when, and in which words it is told."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from jaxrl_cb.learners import Learner
from jaxrl_cb.ops.counters import NEVER
from jaxrl_cb.types import ChunkMetrics


@dataclasses.dataclass(frozen=True)
class NonFinite:
    """What was found in one seed.

    Attributes:
        index: of the seed in the run.
        what: words for it.
        length: iterations of the chunk it was found in; 0 for the prefill.
    """

    index: int
    what: str
    length: int

    def message(self, seed: int, epoch: int, learning_rate: float, explanation: str) -> str:
        """The words of the error or the warning.

        Args:
            seed: the seed itself.
            epoch: in which it was found.
            learning_rate: that the seed had.
            explanation: what running it again showed, or an empty string.
        """
        ways = [
            f"lower learning_rate={learning_rate:g}",
            "look for faults with jaxrl_cb.check_environment(env)",
        ]
        ways += [] if explanation else ["find the operation that made it with debug=True"]
        found = f"seed {seed}, epoch {epoch}: {self.what}"
        found += f"; {explanation}" if explanation else ""
        return f"{found}; {', '.join(ways[:-1])} or {ways[-1]}"


def in_prefill(counts: np.ndarray) -> list[NonFinite]:
    """What the prefill, which takes no gradient steps, left behind.

    Args:
        counts: [S] `Rollout.num_nonfinite`; -1 where stopped.
    """
    what = "a reward or an observation is NaN or infinite in the prefill"
    return [NonFinite(index, what, 0) for index in np.flatnonzero(counts > 0).tolist()]


def in_chunk(
    metrics: ChunkMetrics, running: Iterable[int], length: int, env_step: int, learner: Learner
) -> list[NonFinite]:
    """What a chunk's metrics show, for each seed that has something.

    Args:
        metrics: NumPy arrays [S].
        running: seeds that ran it.
        length: iterations of the chunk.
        env_step: environment steps of a seed before it, over its environments.
        learner: that ran it.
    """
    found, num_envs = [], learner.num_envs
    for index in running:
        own, words = ChunkMetrics(*(x[index].item() for x in metrics)), []
        if own.num_sound_steps < length * learner.rollout_length:
            step = env_step // num_envs + own.num_sound_steps + 1
            words.append(
                "a reward or an observation is NaN or infinite, first at environment step "
                f"{step * num_envs} (vector step {step} of {num_envs} environments)"
            )
        if own.first_bad_update != NEVER:
            words.append(
                f"the loss is NaN or infinite, first at gradient update {own.first_bad_update}"
            )
        elif not own.is_params_finite:
            end = env_step + length * learner.iteration_steps
            words.append(f"parameters are NaN or infinite at environment step {end}")
        if words:
            found.append(NonFinite(index, ", and ".join(words), length))
    return found
