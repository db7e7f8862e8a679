"""Settings tuned for a pair of environment and algorithm. Data only.

Each is a mapping of setting names to values; whatever a user names overrides them.
"""

from typing import Any

PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    ("CartPole-v1", "dqn"): {
        "num_envs": 32,
        "epoch_num_steps": 3_200,
        "max_epochs": 30,
        "batch_size": 128,
        "buffer_size": 100_000,
        "start_timesteps": 640,
        "samples_per_insert": 32.0,
        "n_step": 5,
        "double": False,
        "loss": "huber",
        "tau": 1.0,
        "target_update_period": 50,
        "learning_rate": 4e-3,
        "learning_rate_schedule": "linear",
        "hidden_sizes": (128, 128),
        "epsilon_final": 0.02,
        "epsilon_decay_steps": 10_000,
    },
}
