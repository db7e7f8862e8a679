"""This library's replay ring, on the work of `replay.py`."""

from serving import serve


def build(work):
    """See `serve`."""
    import jax
    import jax.numpy as jnp
    from replay_loop import filled_and_timed

    from jaxrl_cb.buffers import PrioritizedRing, ReplayRing
    from jaxrl_cb.envs import make
    from jaxrl_cb.types import Experience, Rollout

    spec = make("Breakout-MinAtar").spec
    num_envs, rows = work["num_envs"], work["capacity"] // work["num_envs"]
    sizes = (rows, num_envs, spec.time_limit, spec.packing)
    is_prioritised = work["buffer"] == "jaxrl_cb_prioritised"
    ring = PrioritizedRing(*sizes, alpha=0.5) if is_prioritised else ReplayRing(*sizes)
    flags = jnp.zeros((num_envs,), bool)

    def add(buffer, obs, next_obs, action, reward):
        experience = Experience(obs, action, reward, flags, flags, final_obs=next_obs)
        return ring.add(buffer, experience)

    def sample(buffer, newest, key):
        words = jax.random.bits(key, (ring.num_words, 1, work["batch_size"]))
        zeros = jnp.zeros((num_envs,), jnp.int32)
        rollout = Rollout(None, newest, zeros, zeros, zeros)
        draw = ring.sample_behind_branch(words, buffer, rollout, n=1, gamma=jnp.float32(0.99))
        own = draw.transition
        weight = ring.weighted(draw, jnp.float32(0.5)).weight if is_prioritised else ()
        return (own.obs, own.next_obs, own.action, own.reward, own.discount, weight), draw

    def learn(buffer, draw, errors):
        return ring.learned(buffer, ring.surprises(draw, errors[None]))

    obs = jnp.zeros(work["obs_shape"], work["dtype"])
    change = learn if is_prioritised else None
    return filled_and_timed(work, ring.init(obs, spec.num_actions), add, sample, change)


if __name__ == "__main__":
    serve(build, "jaxrl-cb", "jax")
