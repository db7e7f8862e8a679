"""Stable-Baselines3's DQN on the work of `against_peers.py`.

Its environments are Gymnasium's, stepped one after another in one process, as is its default. (SBX
has hidden layers of one width, so that it cannot do the same work.)
"""

from serving import serve


def build(work):
    """See `serve`."""
    from stable_baselines3 import DQN
    from stable_baselines3.common.env_util import make_vec_env

    num_envs = work["num_envs"]
    settings = {
        "learning_rate": 2.5e-4,
        "buffer_size": work["buffer_size"],
        "learning_starts": work["start_timesteps"],
        "batch_size": work["batch_size"],
        "gamma": 0.99,
        "target_update_interval": work["target_update_period"] * num_envs,
        "train_freq": 1,
        "gradient_steps": round(work["updates_per_env_step"] * num_envs),
        "exploration_fraction": work["epsilon_decay_steps"] / work["env_steps"],
        "exploration_final_eps": 0.05,
        "policy_kwargs": {"net_arch": work["hidden_sizes"]},
        "device": "cpu",
    }

    def run(seed):
        model = DQN("MlpPolicy", make_vec_env(work["env"], num_envs), seed=seed, **settings)
        model.learn(work["env_steps"])
        layers = [m for m in model.q_net.modules() if hasattr(m, "out_features")]
        return {
            "env_steps": model.num_timesteps,
            "updates": model._n_updates,
            "batch_size": model.batch_size,
            "hidden_sizes": [layer.out_features for layer in layers][:-1],
            "num_seeds": 1,
        }

    return run


if __name__ == "__main__":
    serve(build, "stable-baselines3", "torch", "gymnasium")
