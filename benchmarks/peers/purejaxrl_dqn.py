"""purejaxrl's DQN on the work of `against_peers.py`; for what it needs see `peer_file.py`."""

import jax
from peer_file import purejaxrl
from serving import serve


def build(work):
    """See `serve`."""
    module = purejaxrl(work["purejaxrl"])
    num_envs, num_seeds = work["num_envs"], work.get("num_seeds", 1)
    config = {
        "NUM_ENVS": num_envs,
        "BUFFER_SIZE": work["buffer_size"],
        "BUFFER_BATCH_SIZE": work["batch_size"],
        "TOTAL_TIMESTEPS": work["env_steps"],
        "EPSILON_START": 1.0,
        "EPSILON_FINISH": 0.05,
        "EPSILON_ANNEAL_TIME": work["epsilon_decay_steps"],
        "TARGET_UPDATE_INTERVAL": work["target_update_period"] * num_envs,
        "LR": 2.5e-4,
        "LEARNING_STARTS": work["start_timesteps"],
        "TRAINING_INTERVAL": round(1 / work["updates_per_env_step"]),
        "LR_LINEAR_DECAY": False,
        "GAMMA": 0.99,
        "TAU": 1.0,
        "ENV_NAME": work["env"],
    }

    def keys(seed):
        return jax.random.split(jax.random.PRNGKey(seed), num_seeds)

    train = jax.jit(jax.vmap(module.make_train(config))).lower(keys(0)).compile()

    def run(seed):
        state, *_ = jax.block_until_ready(train(keys(seed)))["runner_state"]
        kernels = [layer["kernel"] for layer in state.params["params"].values()]
        return {
            "env_steps": int(state.timesteps[0]),
            "updates": int(state.n_updates[0]),
            "batch_size": config["BUFFER_BATCH_SIZE"],
            "hidden_sizes": [kernel.shape[-1] for kernel in kernels[:-1]],
            "num_seeds": num_seeds,
        }

    return run


if __name__ == "__main__":
    serve(build, "jax", "gymnax", "flashbax")
