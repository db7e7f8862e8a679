"""The matrix products of a gradient step, and nothing else: what no program can be faster than.

One network of the target on the next observations, one of the online parameters on the
observations, and the gradient of the latter: for each layer three products (the first needs no
gradient of its input, so two) and the target's. Their operands change from step to step, so that
none can be taken out of the loop.
"""

import itertools

import jax
import jax.numpy as jnp
from jax import lax
from serving import serve


def build(work):
    """See `serve`."""
    sizes = [work["obs_size"], *work["hidden_sizes"], work["num_actions"]]
    batch = work["batch_size"]
    updates = round((work["env_steps"] - work["start_timesteps"]) * work["updates_per_env_step"])
    keys = jax.random.split(jax.random.key(0), len(sizes))
    weights = [
        jax.random.normal(key, shape) / shape[0] ** 0.5
        for key, shape in zip(keys, itertools.pairwise(sizes), strict=False)
    ]
    x = jax.random.normal(keys[-1], (batch, sizes[0]))

    def forward(weights, x):
        inputs = [x]
        for w in weights:
            inputs.append(inputs[-1] @ w)
        return inputs

    def step(carry, _):
        weights, targets, x = carry
        next_q = forward(targets, x)[-1]
        *inputs, q = forward(weights, x)
        error, gradients = q - next_q, []
        for w, layer in zip(weights[::-1], inputs[::-1], strict=True):
            gradients.insert(0, layer.T @ error)
            error = error @ w.T if layer is not x else error
        # All that is computed is used; adding it makes every step need the one before. The inputs
        # change too, or the target's products would be taken out of the loop.
        scale = jnp.float32(1e-12)
        weights = [w + scale * g for w, g in zip(weights, gradients, strict=True)]
        return (weights, targets, x + scale * error[:, :1]), None

    @jax.jit
    def run_all(weights, x):
        return lax.scan(step, (weights, weights, x), length=updates)[0]

    compiled = run_all.lower(weights, x).compile()

    def run(seed):
        jax.block_until_ready(compiled(weights, x))
        return {
            "env_steps": work["env_steps"],
            "updates": updates,
            "batch_size": batch,
            "hidden_sizes": sizes[1:-1],
            "num_seeds": 1,
        }

    return run


if __name__ == "__main__":
    serve(build, "jax")
