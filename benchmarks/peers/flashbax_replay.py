"""flashbax's buffers, on the work of `replay.py`; needs jax and flashbax.

"item" keeps transitions with both observations; "flat" and "prioritised" keep steps and give pairs
of them. New transitions of the prioritised one get its highest priority, and those drawn another.
"""

import flashbax
import jax
import jax.numpy as jnp
from replay_loop import filled_and_timed
from serving import serve


def build(work):
    """See `serve`."""
    num_envs, batch_size, capacity = work["num_envs"], work["batch_size"], work["capacity"]
    is_item = work["buffer"] == "item"
    if is_item:
        replay = flashbax.make_item_buffer(
            capacity, batch_size, batch_size, add_sequences=False, add_batches=True
        )
    else:
        names = {"flat": "make_flat_buffer", "prioritised": "make_prioritised_flat_buffer"}
        replay = getattr(flashbax, names[work["buffer"]])(
            capacity, batch_size, batch_size, add_sequences=False, add_batch_size=num_envs
        )

    def add(buffer, obs, next_obs, action, reward):
        step = {"obs": obs, "action": action, "reward": reward, "done": reward < 0}
        return replay.add(buffer, step | ({"next_obs": next_obs} if is_item else {}))

    def sample(buffer, newest, key):
        drawn = replay.sample(buffer, key)
        if work["buffer"] != "prioritised":
            return drawn.experience, None
        weight = drawn.probabilities**-0.5  # as a learner makes it
        return (drawn.experience, weight / jnp.max(weight)), drawn.indices

    def learn(buffer, indices, errors):
        return replay.set_priorities(buffer, indices, errors + 1e-6)

    obs = jnp.zeros(work["obs_shape"], work["dtype"])
    step = {"obs": obs, "action": jnp.int32(0), "reward": jnp.float32(0), "done": jnp.bool_(False)}
    item = step | ({"next_obs": obs} if is_item else {})
    change = learn if work["buffer"] == "prioritised" else None
    return filled_and_timed(work, jax.jit(replay.init)(item), add, sample, change)


if __name__ == "__main__":
    serve(build, "jax", "flashbax")
