"""The compiled programs of a learner, built once per process for equal learners and plans."""

import dataclasses
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import SingleDeviceSharding

from jaxrl_cb.learners.replay import ReplayLearner
from jaxrl_cb.ops.finite import all_finite
from jaxrl_cb.trainer.leaves import per_seed_leaves
from jaxrl_cb.types import ChunkMetrics, PyTree, TrainState


@dataclasses.dataclass(frozen=True)
class ProgramPlan:
    """What, besides the learner, a program is compiled for.

    Attributes:
        width: W, seeds held together in one state. 1 runs unbatched, more under `vmap`.
        chunk_lengths: vector steps per call, of each chunk program.
        num_test_episodes: N.
        device: where it runs.
    """

    width: int
    chunk_lengths: tuple[int, ...]
    num_test_episodes: int
    device: Any


class Programs(NamedTuple):
    """Compiled functions; per-seed leaves carry a leading [W].

    Attributes:
        init: ``init(seed, hyperparams, epsilon) -> TrainState``.
        chunks: by length, ``chunk(state) -> (state, ChunkMetrics)``; the given state is consumed.
        evaluate: ``evaluate(params, epsilon, test_key, phase [W, 2]) -> Evaluation``.
    """

    init: Callable[..., TrainState]
    chunks: dict[int, Callable[[TrainState], tuple[TrainState, ChunkMetrics]]]
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


@functools.lru_cache(maxsize=32)
def compile_programs(learner: ReplayLearner, plan: ProgramPlan) -> Programs:
    """Compiles what a run needs, in parallel; the result is kept for equal arguments."""
    axes, width = learner.state_axes(), plan.width

    def chunk(state: TrainState, length: int):
        state, metrics = lax.scan(lambda s, _: learner.step(s), state, length=length)
        sums = jax.tree.map(lambda x: jnp.sum(x, axis=0, dtype=x.dtype), metrics)
        totals = {name: getattr(metrics, name)[-1] for name in ("num_masked", "num_lossy")}
        first_bad_update = jnp.min(metrics.first_bad_update)
        is_finite = all_finite(state.params)
        sums = sums._replace(first_bad_update=first_bad_update, is_params_finite=is_finite)
        return state, sums._replace(**totals)

    init = over_seeds(learner.init, width, (0, 0, 0), axes)
    evaluate = over_seeds(
        functools.partial(learner.evaluate, num_episodes=plan.num_test_episodes),
        *(width, (0, 0, 0, 0), 0),
    )
    initial = _abstract((np.uint32(0), *learner.initial_values(0)), plan.device, width)
    state = _abstract(jax.eval_shape(init, *initial), plan.device)
    phase = _abstract(np.zeros(2, np.uint32), plan.device, width)
    options = _options(plan.device)
    with ThreadPoolExecutor() as pool:
        chunks = {}
        for length in plan.chunk_lengths:
            mapped = over_seeds(functools.partial(chunk, length=length), width, (axes,), (axes, 0))
            lowered = jax.jit(mapped, donate_argnums=0).lower(state)
            chunks[length] = pool.submit(lowered.compile, compiler_options=options)
        lowered = jax.jit(init).lower(*initial)
        compiled_init = pool.submit(lowered.compile, compiler_options=options)
        inputs = (state.params, state.epsilon.inference, state.test_key, phase)
        lowered = jax.jit(evaluate).lower(*inputs)
        compiled_evaluate = pool.submit(lowered.compile, compiler_options=options)
        return Programs(
            init=compiled_init.result(),
            chunks={length: future.result() for length, future in chunks.items()},
            evaluate=compiled_evaluate.result(),
        )


def _options(device: Any) -> Any:
    """Compiler options: on CPU, LLVM's third level took longer and ran no faster when measured."""
    return {"xla_backend_optimization_level": 2} if device.platform == "cpu" else None


def _abstract(tree: PyTree, device: Any, *leading: int) -> PyTree:
    """Shapes (with leading axes before them) and dtypes of a tree on a device."""
    sharding = SingleDeviceSharding(device)

    def leaf(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*leading, *x.shape), x.dtype, sharding=sharding)

    return jax.tree.map(leaf, tree)
