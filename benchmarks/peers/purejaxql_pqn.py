"""purejaxql's PQN for MinAtar, its file unchanged, on the work of `pqn.py`.

Needs jax, flax, optax, chex and gymnax < 1.
"""

from pathlib import Path

import jax
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
        return jax.random.split(jax.random.PRNGKey(seed), 1)

    train = jax.jit(jax.vmap(module.make_train(config))).lower(keys(0)).compile()

    def run(seed):
        out = jax.block_until_ready(train(keys(seed)))
        state, metrics = out["runner_state"][0], out["metrics"]
        kernels = [leaf for leaf in jax.tree.leaves(state.params) if leaf.ndim > 2]
        curve = np.asarray(metrics.get("test/returned_episode_returns", np.zeros((1, 0))))[0]
        changes = [i for i in range(len(curve)) if i == 0 or curve[i] != curve[i - 1]]
        return {
            "env_steps": int(state.timesteps[0]),
            "updates": int(state.grad_steps[0]),
            "num_params": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
            "features": [int(kernel.shape[-1]) for kernel in kernels[:-1]],
            "curve": [float(curve[i]) for i in changes],
            "final": float(curve[-1]) if len(curve) else None,
        }

    return run


if __name__ == "__main__":
    serve(build, "jax", "flax", "gymnax")
