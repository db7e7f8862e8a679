"""Priorities on the device: sum trees of several widths, and without a tree, by their time.

Each vector step gives 64 new leaves a weight, draws 128 by weight and changes their weights, in one
compiled loop. "cumulative sums" is the alternative without a tree: all sums are made anew for each
draw, and searched. They take turns; figures are medians.

    python benchmarks/sum_trees.py --json benchmarks/results/sum_trees.json
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxrl_cb.buffers import priorities
from jaxrl_cb.buffers.priorities import SumTree
from jaxrl_cb.ops.randomness import uniform
from jaxrl_cb.versions import versions

NUM_ENVS, BATCH = 64, 128
WIDTHS = (2, 4, 8, 16, 32, 64)


def tree_loop(size: int, steps: int) -> tuple[Callable[[Any, Any], Any], Any]:
    """A loop over a tree of the width that is set now."""
    tree = SumTree(size)

    def step(carry: Any, _: Any) -> tuple[Any, None]:
        levels, row, key = carry
        key, own = jax.random.split(key)
        levels = tree.filled(levels, NUM_ENVS, (row * NUM_ENVS, jnp.float32(1.0)))
        words = jax.random.bits(own, (len(levels) + 1, BATCH))
        drawn = lax.cond(
            row >= 0, lambda: tree.draw(levels, words[1:]), lambda: jnp.zeros((BATCH,), jnp.int32)
        )
        levels = tree.changed(levels, drawn, uniform(words[0]) + 0.1)
        return (levels, (row + 1) % (size // NUM_ENVS), key), None

    def run(levels: Any, key: Any) -> Any:
        return lax.scan(step, (levels, jnp.int32(0), key), length=steps)[0][0]

    full = tree.changed(tree.init(), jnp.arange(size, dtype=jnp.int32), jnp.ones((size,)))
    return run, full


def sums_loop(size: int, steps: int) -> tuple[Callable[[Any, Any], Any], Any]:
    """The same without a tree."""

    def step(carry: Any, _: Any) -> tuple[Any, None]:
        weights, row, key = carry
        key, own = jax.random.split(key)
        weights = lax.dynamic_update_slice(weights, jnp.ones((NUM_ENVS,)), (row * NUM_ENVS,))
        words = jax.random.bits(own, (2, BATCH))
        sums = jnp.cumsum(weights)
        drawn = jnp.searchsorted(sums, uniform(words[1]) * sums[-1])
        weights = weights.at[drawn].set(uniform(words[0]) + 0.1)
        return (weights, (row + 1) % (size // NUM_ENVS), key), None

    def run(weights: Any, key: Any) -> Any:
        return lax.scan(step, (weights, jnp.int32(0), key), length=steps)[0][0]

    return run, jnp.ones((size,))


def measured(size: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each contender."""
    programs = {}
    for name in (*WIDTHS, "cumulative sums"):
        steps = 2_000 if isinstance(name, int) else 20
        if isinstance(name, int):
            priorities.BRANCHES = name
            run, state = tree_loop(size, steps)
        else:
            run, state = sums_loop(size, steps)
        key = jax.random.key(0)
        compiled = jax.jit(run, donate_argnums=0).lower(state, key).compile()
        programs[name] = [compiled, state, steps, []]
    for number in range(rounds + 1):
        for program in programs.values():
            compiled, state, steps, times = program
            started = time.perf_counter()
            program[1] = jax.block_until_ready(compiled(state, jax.random.key(number)))
            times.append((time.perf_counter() - started) / steps * 1e6)
    return [
        {"leaves": size, "branches": name, "us_per_step": statistics.median(program[3][1:])}
        for name, program in programs.items()
    ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--leaves", type=int, nargs="+", default=[10_240, 102_400, 1_024_000])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for size in arguments.leaves:
        own = measured(size, arguments.rounds)
        rows += own
        cells = " | ".join(f"{row['us_per_step']:,.0f}" for row in own)
        print(f"| {size:,} | {cells} |", flush=True)
    if arguments.json:
        about = {"command": sys.argv, "versions": versions()}
        arguments.json.write_text(json.dumps(about | {"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
