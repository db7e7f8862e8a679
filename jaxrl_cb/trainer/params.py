"""Length of a run, its tests and its seeds."""

import dataclasses
import functools
from typing import Annotated, Any

import jax

from jaxrl_cb.algorithms.base import Algorithm
from jaxrl_cb.checks import Choice, Range, check_fields, check_multiple
from jaxrl_cb.envs.environment import EnvSpec
from jaxrl_cb.errors import ConfigError, shown
from jaxrl_cb.learners import Learner

MAX_CHUNKS = 1_000_000
ON_NAN = ("stop", "raise", "warn")


@dataclasses.dataclass(frozen=True)
class TrainerParams:
    """Parameters of the trainer (names of Tianshou 2 where it has them).

    Attributes:
        max_epochs: epochs at most; 0 only tests.
        epoch_num_steps: environment steps of one seed per epoch, over all its environments;
            a multiple of the number of environments.
        num_test_episodes: complete test episodes per epoch and seed, one per test environment.
        seed: seed of the first run, 0 to 2^32 - 1; run i has ``seed + i``.
        num_seeds: S, independent runs trained together; at most 10,000.
        vectorize_seeds: whether all seeds run in one batched program. None: yes on accelerators, no
            on CPU, where one after another is faster, and each is bit for bit the run alone.
        compact_seeds: whether seeds that still run get narrower programs when half of a batched
            program's seeds have stopped. None: when that saves more time than compiling takes.
        chunk_num_steps: environment steps of one compiled call at most; the epoch is cut up evenly.
        on_nan: what NaN or infinity in a loss, a reward, an observation or a parameter does, found
            at the end of a compiled call: "stop" ends that seed and warns, "raise" raises
            NonFiniteError, "warn" warns once for each seed and goes on.
        debug: whether a compiled call with NaN or infinity is run again, step by step, to say which
            operation made it; a copy of the state is kept for that, and each call copies it.
    """

    max_epochs: Annotated[int, Range(0)] = 100
    epoch_num_steps: Annotated[int, Range(1)] = 10_000
    num_test_episodes: Annotated[int, Range(1)] = 20
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    num_seeds: Annotated[int, Range(1, 10_000)] = 1
    vectorize_seeds: bool | None = None
    compact_seeds: bool | None = None
    chunk_num_steps: Annotated[int, Range(1)] = 1_000_000
    on_nan: Annotated[str, Choice(ON_NAN)] = "stop"
    debug: bool = False

    def __post_init__(self):
        check_fields(self)
        if self.seed + self.num_seeds > 2**32:
            raise ConfigError(
                f"seed={self.seed} with num_seeds={self.num_seeds} goes beyond 2**32 - 1; "
                "lower the seed"
            )

    @property
    def total_env_steps(self) -> int:
        """Environment steps of one seed in all, if nothing stops it."""
        return self.max_epochs * self.epoch_num_steps

    @property
    def seeds_together(self) -> int:
        """W, seeds that one program runs: all of them, or one."""
        vectorize = self.vectorize_seeds
        vectorize = jax.default_backend() != "cpu" if vectorize is None else vectorize
        return self.num_seeds if vectorize else 1

    def check_with(self, learner: Learner) -> None:
        """Checks what the trainer and the learner must agree on.

        Raises:
            ConfigError: with a value that works.
        """
        check_multiple(
            *("epoch_num_steps", self.epoch_num_steps, learner.iteration_steps),
            f"num_envs {learner.num_envs}"
            + (f" x rollout_length {length}" if (length := learner.rollout_length) > 1 else ""),
        )
        spec = learner.environment.spec
        if spec.time_limit is None:
            raise ConfigError(
                f"environment {spec.id!r} has no time limit, so a test might never end; give it "
                "one (time_limit=... of jaxrl_cb.envs.functional, or max_steps_in_episode of its "
                "params)"
            )
        if self.epoch_num_steps // max(self.chunk_num_steps, learner.iteration_steps) > MAX_CHUNKS:
            raise ConfigError(
                f"chunk_num_steps={self.chunk_num_steps} cuts an epoch into more than "
                f"{MAX_CHUNKS:,} chunks; use at least {-(-self.epoch_num_steps // MAX_CHUNKS)}"
            )
        _check_network(learner)
        updates = learner.num_updates(self.total_env_steps // learner.iteration_steps)
        if updates >= 2**31:
            raise ConfigError(
                f"max_epochs={self.max_epochs} takes {updates} gradient steps, more than the "
                "2**31 - 1 that are counted; lower max_epochs"
            )

    def chunk_lengths(self, iteration_steps: int) -> list[int]:
        """Iterations of the chunks of one epoch, in order; at most two different lengths.

        Args:
            iteration_steps: environment steps of one iteration of the learner.
        """
        total = self.epoch_num_steps // iteration_steps
        longest = max(self.chunk_num_steps // iteration_steps, 1)
        count = -(-total // longest)
        base, longer = divmod(total, count)
        return [base + 1] * longer + [base] * (count - longer)


def _check_network(learner: Learner) -> None:
    """Raises ConfigError unless the network gives one value per action, by its shapes alone."""
    spec = learner.environment.spec
    values = _values(learner.algorithm, spec)
    if getattr(values, "shape", None) != (spec.num_actions,):
        raise ConfigError(
            f"the network's values have the shape {shown(getattr(values, 'shape', values))}; "
            f"{spec.id!r} has {spec.num_actions} actions, so that it must be ({spec.num_actions},)"
        )


@functools.lru_cache(maxsize=32)
def _values(algorithm: Algorithm, spec: EnvSpec) -> Any:
    """The shape of what the network gives; kept, as finding it takes a while."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    obs = jax.ShapeDtypeStruct(spec.obs_shape, spec.obs_dtype)
    params = jax.eval_shape(algorithm.init, key, obs)
    return jax.eval_shape(algorithm.q_values, params, obs, key)
