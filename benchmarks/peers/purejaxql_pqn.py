"""purejaxql's PQN for MinAtar, its file unchanged, on the work of `pqn.py`.

Needs jax, flax, optax, chex and gymnax < 1. Its own tests average what ends within so many steps of
128 environments, where short episodes count more often; "final" is the mean of the last policy's
first episodes, as this library tests.
"""

from pathlib import Path

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from peer_file import load
from serving import serve


def build(work):
    """See `serve`."""
    path = Path(work["purejaxql"]) / "purejaxql" / "pqn_minatar.py"
    module = load(path, "wandb", "hydra", "omegaconf")
    config = {
        **{"TOTAL_TIMESTEPS": work["env_steps"], "TOTAL_TIMESTEPS_DECAY": work["decay_steps"]},
        **{"NUM_ENVS": work["num_envs"], "NUM_STEPS": work["rollout_length"]},
        **{"EPS_START": 1.0, "EPS_FINISH": 0.05, "EPS_DECAY": 0.1},
        **{"NUM_MINIBATCHES": work["num_minibatches"], "NUM_EPOCHS": work["update_epochs"]},
        **{"NORM_TYPE": "layer_norm", "LR": 5e-4, "MAX_GRAD_NORM": 10, "LR_LINEAR_DECAY": True},
        **{"GAMMA": 0.99, "LAMBDA": 0.65, "ENV_NAME": work["env"], "WANDB_MODE": "disabled"},
        **{"TEST_DURING_TRAINING": work["tests"] > 0, "TEST_INTERVAL": 1 / max(work["tests"], 1)},
        **{"TEST_NUM_ENVS": 128, "EPS_TEST": 0.0},
    }

    def keys(seed):
        return jax.random.split(jax.random.PRNGKey(seed), work["seeds"])

    env, env_params = gymnax.make(work["env"])
    network = module.QNetwork(env.action_space(env_params).n, norm_type=config["NORM_TYPE"])

    def play(variables, key):
        """The mean return of greedy episodes, one for each of the environments of a test."""

        def step(carry, key):
            obs, state, going, total = carry
            actions = jnp.argmax(network.apply(variables, obs, train=False), axis=-1)
            split = jax.random.split(key, len(going))
            obs, state, reward, done, _ = jax.vmap(env.step)(split, state, actions)
            return (obs, state, going & ~done, total + going * reward), None

        key, reset = jax.random.split(key)
        obs, state = jax.vmap(env.reset)(jax.random.split(reset, config["TEST_NUM_ENVS"]))
        going = jnp.ones(config["TEST_NUM_ENVS"], bool)
        steps = jax.random.split(key, env_params.max_steps_in_episode)
        carry, _ = jax.lax.scan(step, (obs, state, going, jnp.zeros(len(going))), steps)
        return carry[3].mean(), carry[2].any()

    def train_and_play(keys):
        out = jax.vmap(module.make_train(config))(keys)
        state = out["runner_state"][0]
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        return out, jax.vmap(play)(variables, keys) if work["tests"] else None

    train = jax.jit(train_and_play).lower(keys(0)).compile()

    def run(seed):
        out, played = jax.block_until_ready(train(keys(seed)))
        if played is not None and played[1][0]:
            raise RuntimeError("an episode of the last policy has not ended")
        state, metrics = out["runner_state"][0], out["metrics"]
        kernels = [leaf for leaf in jax.tree.leaves(state.params) if leaf.ndim > 2]
        curve = np.asarray(metrics.get("test/returned_episode_returns", np.zeros((1, 0))))[0]
        changes = [i for i in range(len(curve)) if i == 0 or curve[i] != curve[i - 1]]
        return {
            "seeds": len(state.timesteps),
            "env_steps": int(state.timesteps[0]),
            "updates": int(state.grad_steps[0]),
            "num_params": sum(leaf[0].size for leaf in jax.tree.leaves(state.params)),
            "features": [int(kernel.shape[-1]) for kernel in kernels[:-1]],
            "curve": [float(curve[i]) for i in changes],
            "final": float(played[0][0]) if played is not None else None,
        }

    return run


if __name__ == "__main__":
    serve(build, "jax", "flax", "gymnax")
