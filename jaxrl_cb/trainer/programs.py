"""The compiled programs of a learner, each built once per process for equal learners."""

import dataclasses
import functools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import SingleDeviceSharding

from jaxrl_cb.envs.environment import Environment
from jaxrl_cb.learners import Learner
from jaxrl_cb.ops.counters import NEVER
from jaxrl_cb.ops.finite import all_finite
from jaxrl_cb.trainer.leaves import per_seed_leaves, with_leading
from jaxrl_cb.types import Array, ChunkMetrics, Epsilon, Hyperparams, PyTree, TrainState

SMALL_NETWORK = 100_000
"""Parameters of one seed, below which a network is small."""

SHORT_PREFILL = 10_000
"""Environment steps of a prefill that is sooner compiled and done when it is not optimised."""

OPTIMIZATION = "xla_backend_optimization_level"


@dataclasses.dataclass(frozen=True)
class ProgramPlan:
    """What, besides the learner, a program is compiled for.

    Attributes:
        width: W, seeds held together in one state. 1 runs unbatched, more under `vmap`.
        chunk_lengths: iterations per call, of each chunk program.
        num_test_episodes: N.
        device: where it runs.
    """

    width: int
    chunk_lengths: tuple[int, ...]
    num_test_episodes: int
    device: Any


@dataclasses.dataclass(frozen=True)
class Chunk:
    """``chunk(state) -> (state, words)``, the words for `metrics_of`.

    The given state is consumed, but for what callbacks set between chunks (epsilon and
    hyperparameters), which may therefore be NumPy's: that is faster than to put it on the device.
    """

    compiled: Any

    def __call__(self, state: TrainState) -> tuple[TrainState, Any]:
        return self.compiled(*_apart(state))


class Programs(NamedTuple):
    """Compiled functions; per-seed leaves carry a leading [W].

    Attributes:
        init: ``init(seed, hyperparams, epsilon) -> TrainState``; None where states come from
            elsewhere.
        chunks: by length.
        evaluate: ``evaluate(params, epsilon, test_key, phase [W, 2], env_params) -> Evaluation``.
    """

    init: Callable[..., TrainState] | None
    chunks: dict[int, Chunk]
    evaluate: Callable[..., Any]


def over_seeds(function: Callable, width: int, in_axes: Any, out_axes: Any) -> Callable:
    """Maps a function of one seed over a leading axis of `width` seeds.

    One seed runs the very program of the unbatched function, with the axis taken off and put back
    (which moves no data), so that its numbers do not depend on how other seeds are run.
    """
    if width > 1:
        return jax.vmap(function, in_axes=in_axes, out_axes=out_axes)

    def single(*arguments):
        result = function(*per_seed_leaves(lambda x: x[0], tuple(in_axes), arguments))
        return per_seed_leaves(lambda x: x[None], out_axes, result)

    return single


def compile_programs(learner: Learner, plan: ProgramPlan, *, with_init: bool = True) -> Programs:
    """Compiles what a run needs, in parallel, but for what equal learners needed before."""
    where = (learner, plan.width, plan.device)
    # What is traced soonest comes first: it compiles while the others are traced.
    init = _init_program(*where) if with_init else None
    chunks = {length: _chunk_program(*where, length) for length in plan.chunk_lengths}
    evaluate = _evaluate_program(*where, plan.num_test_episodes)
    with ThreadPoolExecutor() as pool:
        for program in (*([init] if init else []), *chunks.values(), evaluate):
            program.begin(pool)
    return Programs(
        init=init.compiled() if init else None,
        chunks={length: Chunk(program.compiled()) for length, program in chunks.items()},
        evaluate=evaluate.compiled(),
    )


class _Program:
    """A function that is compiled once, when it is first wanted."""

    def __init__(self, jitted: Any, inputs: tuple[Any, ...], options: Any):
        """Traces and compiles nothing; `inputs` are shapes."""
        self._jitted, self._inputs, self._options = jitted, inputs, options
        self._future: Any = None

    def begin(self, pool: ThreadPoolExecutor) -> None:
        """Traces it here and has it compiled there, unless that was done before."""
        done = self._future
        if done is None or (done.done() and done.exception()):
            lowered = self._jitted.lower(*self._inputs)
            self._future = pool.submit(lowered.compile, compiler_options=self._options)

    def compiled(self) -> Any:
        """What came of `begin`."""
        return self._future.result()


def forget() -> None:
    """Drops what is kept for learners to come; programs of trainers that there are stay."""
    programs = (_init_program, _chunk_program, _evaluate_program)
    for kept in (*programs, state_shapes, _traced_once, _stepped_by_call):
        kept.cache_clear()


@functools.lru_cache(maxsize=32)
def _init_program(learner: Learner, width: int, device: Any) -> _Program:
    options = _options(learner, device)
    if options and width * learner.prefill_steps <= SHORT_PREFILL:
        options = {**options, OPTIMIZATION: 0}
    init = over_seeds(_traced_once(learner)[1], width, (0, 0, 0), learner.state_axes())
    inputs = _abstract((np.uint32(0), *learner.initial_values(0)), device, width)
    return _Program(jax.jit(init), inputs, options)


@functools.lru_cache(maxsize=64)
def _chunk_program(learner: Learner, width: int, device: Any, length: int) -> _Program:
    one, axes = _traced_once(learner)[0], learner.state_axes()

    def chunk(rest: TrainState, epsilon: Epsilon, hyperparams: Hyperparams):
        state = rest.replace(epsilon=epsilon, hyperparams=hyperparams)

        def step(carry, _):
            state, metrics = one.step(carry[0])
            return (state, _together(carry[1], metrics)), None

        (state, metrics), _ = lax.scan(step, (state, _no_metrics()), length=length)
        return state, _words(metrics._replace(is_params_finite=all_finite(state.params)))

    mapped = over_seeds(chunk, width, _apart(axes), (axes, 0))
    inputs = _apart(_abstract_state(learner, width, device))
    return _Program(jax.jit(mapped, donate_argnums=0), inputs, _options(learner, device))


@functools.lru_cache(maxsize=32)
def _evaluate_program(learner: Learner, width: int, device: Any, num: int) -> _Program:
    one = functools.partial(_traced_once(learner)[0].evaluate, num_episodes=num)
    evaluate = over_seeds(one, width, (0, 0, 0, 0, 0), 0)
    state = _abstract_state(learner, width, device)
    phase = _abstract(np.zeros(2, np.uint32), device, width)
    env_params = state.hyperparams.env_params
    inputs = (state.params, state.epsilon.inference, state.test_key, phase, env_params)
    return _Program(jax.jit(evaluate), inputs, _options(learner, device))


def _abstract_state(learner: Learner, width: int, device: Any) -> TrainState:
    """Shapes and dtypes of the state of `width` seeds on a device."""
    return _abstract(with_leading(width, learner.state_axes(), state_shapes(learner)), device)


@functools.lru_cache(maxsize=32)
def state_shapes(learner: Learner) -> TrainState:
    """Shapes and dtypes of one seed's state; kept, as finding them takes a while."""
    init = _traced_once(learner)[1]
    return init.eval_shape(jax.ShapeDtypeStruct((), jnp.uint32), *learner.initial_values(0))


@functools.lru_cache(maxsize=32)
def _traced_once(learner: Learner) -> tuple[Learner, Any]:
    """The learner and its `init`, so that what several programs do is traced for the first alone.

    Inside a program a jitted function is a call, which the compiler puts in place; its Python is
    run once, as is its batching over environments or seeds. The numbers are the same.
    """
    learner = dataclasses.replace(learner, environment=_stepped_by_call(learner.environment))
    return learner, jax.jit(learner.init)


@functools.lru_cache(maxsize=32)
def _stepped_by_call(environment: Environment) -> Environment:
    return dataclasses.replace(environment, step=jax.jit(environment.step))


def _apart(state: TrainState) -> tuple[TrainState, Epsilon, Hyperparams]:
    """The state without what callbacks set between chunks, and that."""
    return state.replace(epsilon=None, hyperparams=None), state.epsilon, state.hyperparams


def _words(metrics: ChunkMetrics) -> Array:
    """The bits of all metrics, [8] uint32: one array is fetched in the time of one number."""
    wide = [x.astype(jnp.uint32) if x.dtype == bool else x for x in metrics]
    return jnp.stack([lax.bitcast_convert_type(x, jnp.uint32) for x in wide])


def metrics_of(words: np.ndarray) -> ChunkMetrics:
    """What the words [W, 8] of a chunk stand for, NumPy arrays [W]."""
    rows = zip(np.ascontiguousarray(words.T), _metrics_dtypes(), strict=True)
    return ChunkMetrics(*(x.astype(bool) if d.kind == "b" else x.view(d) for x, d in rows))


@functools.cache
def _metrics_dtypes() -> list[np.dtype]:
    return [leaf.dtype for leaf in jax.eval_shape(_no_metrics)]


def _no_metrics() -> ChunkMetrics:
    """Of no step."""
    zero, none = jnp.float32(0.0), jnp.int32(0)
    return ChunkMetrics(
        loss_sum=zero,
        return_sum=zero,
        num_episodes=none,
        num_masked=none,
        num_lossy=none,
        num_sound_steps=none,
        first_bad_update=jnp.int32(NEVER),
        is_params_finite=jnp.bool_(True),
    )


def _together(sums: ChunkMetrics, step: ChunkMetrics) -> ChunkMetrics:
    """The metrics after one step more. They are carried: kept for each step, they would be written
    one by one at every step, and summed in another order by every chunk length.
    """
    added = ("loss_sum", "return_sum", "num_episodes", "num_sound_steps")
    first_bad_update = jnp.minimum(sums.first_bad_update, step.first_bad_update)
    return step._replace(
        first_bad_update=first_bad_update,
        **{name: getattr(sums, name) + getattr(step, name) for name in added},
    )


def _options(learner: Learner, device: Any) -> Any:
    """Compiler options. On CPU, LLVM's third level took longer and ran no faster when measured.

    Operations of a small network take less than handing them to another thread does: scheduled to
    run one after another, CartPole's ran 1.1 times as fast. Those of large ones run side by side.
    """
    if device.platform != "cpu":
        return None
    num_params = sum(math.prod(x.shape) for x in jax.tree.leaves(state_shapes(learner).params))
    one_by_one = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    small = one_by_one if num_params < SMALL_NETWORK else {}
    return {OPTIMIZATION: 2, **small}


def _abstract(tree: PyTree, device: Any, *leading: int) -> PyTree:
    """Shapes (with leading axes before them) and dtypes of a tree on a device."""
    sharding = SingleDeviceSharding(device)

    def leaf(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*leading, *x.shape), x.dtype, sharding=sharding)

    return jax.tree.map(leaf, tree)
