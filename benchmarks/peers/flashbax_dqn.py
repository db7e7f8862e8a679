"""A plain DQN of flax, `lax.conv` and flashbax's item buffer, on the work of `against_peers.py`.

What one writes with these libraries: transitions with both observations in the item buffer, one
compiled scan over vector steps, seeds under `vmap`. With a hidden network only where the work has
no convolution. Needs jax, flax, optax, flashbax and gymnax < 1.
"""

from typing import Any, NamedTuple

import flashbax
import gymnax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax
from serving import serve


class Network(nn.Module):
    """A 3 x 3 convolution of 16 features where there is one, and hidden layers."""

    num_actions: int
    hidden_sizes: tuple[int, ...]
    has_conv: bool

    @nn.compact
    def __call__(self, obs):
        x = obs.astype(jnp.float32)
        if self.has_conv:
            x = nn.relu(nn.Conv(16, (3, 3), padding="VALID")(x))
        x = x.reshape((x.shape[0], -1))
        for size in self.hidden_sizes:
            x = nn.relu(nn.Dense(size)(x))
        return nn.Dense(self.num_actions)(x)


class State(NamedTuple):
    """All that a vector step changes."""

    params: Any
    target_params: Any
    opt_state: Any
    buffer: Any
    env_state: Any
    obs: Any
    key: Any
    env_steps: Any
    updates: Any


def build(work):
    """See `serve`."""
    env, env_params = gymnax.make(work["env"])
    num_envs, batch_size = work["num_envs"], work["batch_size"]
    network = Network(work["num_actions"], tuple(work["hidden_sizes"]), work["network"] == "cnn")
    optimizer = optax.adam(2.5e-4)
    replay = flashbax.make_item_buffer(
        work["buffer_size"], batch_size, batch_size, add_sequences=False, add_batches=True
    )
    reset_all = jax.vmap(env.reset, in_axes=(0, None))
    step_all = jax.vmap(env.step, in_axes=(0, 0, 0, None))
    updates_per_step = round(work["updates_per_env_step"] * num_envs)

    def init(key):
        key, key_params, key_reset = jax.random.split(key, 3)
        obs, env_state = reset_all(jax.random.split(key_reset, num_envs), env_params)
        params = network.init(key_params, obs[:1])
        item = (obs[0], jnp.int32(0), jnp.float32(0), jnp.bool_(False), obs[0])
        zero = jnp.int32(0)
        return State(
            *(params, params, optimizer.init(params), replay.init(item)),
            *(env_state, obs, key, zero, zero),
        )

    def act(state, epsilon, key):
        key_coin, key_action, key_step = jax.random.split(key, 3)
        greedy = jnp.argmax(network.apply(state.params, state.obs), axis=-1)
        random = jax.random.randint(key_action, (num_envs,), 0, work["num_actions"])
        action = jnp.where(jax.random.uniform(key_coin, (num_envs,)) < epsilon, random, greedy)
        keys = jax.random.split(key_step, num_envs)
        obs, env_state, reward, done, _ = step_all(keys, state.env_state, action, env_params)
        items = (state.obs, action, reward.astype(jnp.float32), done, obs)
        buffer = replay.add(state.buffer, items)
        steps = state.env_steps + num_envs
        return state._replace(buffer=buffer, env_state=env_state, obs=obs, env_steps=steps)

    def update(state, key):
        obs, action, reward, done, next_obs = replay.sample(state.buffer, key).experience
        q_next = jnp.max(network.apply(state.target_params, next_obs), axis=-1)
        target = reward + 0.99 * (1 - done) * q_next

        def loss_fn(params):
            q = jnp.take_along_axis(network.apply(params, obs), action[:, None], axis=-1)[:, 0]
            return jnp.mean((q - target) ** 2)

        gradient = jax.grad(loss_fn)(state.params)
        change, opt_state = optimizer.update(gradient, state.opt_state)
        params = optax.apply_updates(state.params, change)
        updates = state.updates + 1
        is_due = updates % work["target_update_period"] == 0
        target_params = jax.tree.map(
            lambda new, old: jnp.where(is_due, new, old), params, state.target_params
        )
        return state._replace(
            params=params, target_params=target_params, opt_state=opt_state, updates=updates
        )

    def vector_step(state, _):
        key, key_act, key_sample = jax.random.split(state.key, 3)
        done = (state.env_steps - work["start_timesteps"]) / work["epsilon_decay_steps"]
        epsilon = jnp.clip(1.0 - 0.95 * done, 0.05, 1.0)
        state = act(state._replace(key=key), epsilon, key_act)
        for number in range(updates_per_step):
            state = update(state, jax.random.fold_in(key_sample, number))
        return state, None

    def fill(state, _):
        key, key_act = jax.random.split(state.key)
        return act(state._replace(key=key), 1.0, key_act), None

    def train(key):
        state, num_fill = init(key), work["start_timesteps"] // num_envs
        state, _ = lax.scan(fill, state, length=num_fill)
        state, _ = lax.scan(vector_step, state, length=work["env_steps"] // num_envs - num_fill)
        return state._replace(buffer=())

    def keys(seed):
        return jax.random.split(jax.random.key(seed), work["num_seeds"])

    is_one = work["num_seeds"] == 1
    all_seeds = (lambda keys: jax.tree.map(lambda x: x[None], train(keys[0]))) if is_one else None
    compiled = jax.jit(all_seeds or jax.vmap(train)).lower(keys(0)).compile()

    def run(seed):
        state = jax.block_until_ready(compiled(keys(seed)))
        return {
            "env_steps": int(state.env_steps[0]),
            "updates": int(state.updates[0]),
            "batch_size": batch_size,
            "hidden_sizes": list(network.hidden_sizes),
            "num_seeds": work["num_seeds"],
        }

    return run


if __name__ == "__main__":
    serve(build, "jax", "gymnax", "flashbax")
