"""What a compiled loop executes, counted in its text."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax import lax

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import profile as profiling

assert hasattr(profiling, "executed"), "this is the standard library's"

TRIPS, LARGE = 37, 10_000


def compiled(step):
    def chunk(state):
        return lax.scan(lambda s, _: (step(s), None), state, length=TRIPS)[0]

    state = (jnp.zeros(LARGE), jnp.float32(0))
    return jax.jit(chunk, donate_argnums=0).lower(state).compile().as_text()


def test_a_branch_that_passes_on_an_array_copies_it():
    def step(state):
        large, number = state
        new = lax.cond(number > 3, lambda x: x.at[3].set(1.0), lambda x: x, large)
        return new + large[0], number + new[0] + large[5]

    counts, copies = profiling.executed(compiled(step), TRIPS)
    assert counts["conditional"] == 1
    assert max(copies, default=0) >= 4 * LARGE


def test_a_row_is_written_in_place():
    def step(state):
        large, number = state
        return lax.dynamic_update_index_in_dim(large, number, 7, axis=0), number + 1

    _, copies = profiling.executed(compiled(step), TRIPS)
    assert max(copies, default=0) < 4 * LARGE


def test_an_inner_loop_counts_with_its_trips():
    def step(state):
        large, number = state
        inner = lax.fori_loop(0, 5, lambda _, x: lax.dot(x, x), jnp.full((8, 8), number))
        return large, jnp.sum(inner)

    counts, _ = profiling.executed(compiled(step), TRIPS)
    products = counts["dot"] + counts["fusion"] + counts["custom-call"]
    assert counts["while"] == 1
    assert products >= 5


def test_a_loop_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="no loop of 5 trips"):
        profiling.executed(compiled(lambda state: state), 5)
