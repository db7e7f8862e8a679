"""The loop that every replay is measured in: the same data is added, the same number drawn."""

import jax
import jax.numpy as jnp
from jax import lax

NUM_DIFFERENT = 16
"""Vector steps of observations that are added in turn."""


def filled_and_timed(work, buffer, add, sample, learn=None):
    """``run(seed)`` adds a vector step and draws a minibatch, so many times; see `serve`.

    The buffer is full before anything is measured, so that draws go all over it.

    Args:
        work: sizes.
        buffer: an empty one.
        add: ``add(buffer, obs, next_obs, action, reward) -> buffer``, [E, ...] each.
        sample: ``sample(buffer, newest_obs, key)`` gives arrays, of which all is read, and what
            `learn` wants of them.
        learn: ``learn(buffer, wanted, errors [B]) -> buffer``, where a draw changes priorities.
    """
    num_envs, shape = work["num_envs"], tuple(work["obs_shape"])
    key = jax.random.key(0)
    bits = jax.random.bernoulli(key, 0.1, (NUM_DIFFERENT + 1, num_envs, *shape))
    data = bits.astype(work["dtype"])
    action = jnp.zeros((num_envs,), jnp.int32)
    reward = jnp.ones((num_envs,), jnp.float32)

    def added(buffer, number):
        obs = data[number % NUM_DIFFERENT]
        newest = data[number % NUM_DIFFERENT + 1]
        return add(buffer, obs, newest, action, reward), newest

    def fill(buffer):
        count = work["capacity"] // num_envs
        return lax.fori_loop(0, count, lambda i, b: added(b, i)[0], buffer)

    def timed(buffer, seed):
        def step(carry, number):
            buffer, total = carry
            buffer, newest = added(buffer, number)
            key = jax.random.fold_in(jax.random.key(seed), number)
            drawn, wanted = sample(buffer, newest, key)
            if learn:
                errors = jax.random.uniform(jax.random.fold_in(key, 1), (work["batch_size"],))
                buffer = learn(buffer, wanted, errors)
            total += sum(jnp.sum(x, dtype=jnp.float32) for x in jax.tree.leaves(drawn))
            return (buffer, total), None

        start = (buffer, jnp.float32(0))
        return lax.scan(step, start, jnp.arange(work["steps"]))[0]

    size = sum(leaf.nbytes for leaf in jax.tree.leaves(buffer))
    buffer = jax.jit(fill, donate_argnums=0)(buffer)
    loop = jax.jit(timed, donate_argnums=0).lower(buffer, jnp.uint32(0)).compile()
    state = [buffer]

    def run(seed):
        state[0], total = jax.block_until_ready(loop(state[0], jnp.uint32(seed)))
        return {"steps": work["steps"], "bytes": size, "total": float(total)}

    return run
