"""Settings tuned for a pair of environment and algorithm. Data only.

Each is a mapping of setting names to values; whatever a user names overrides them.
"""

from typing import Any

PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    ("CartPole-v1", "dqn"): {
        "num_envs": 16,
        "epoch_num_steps": 10_000,
        "max_epochs": 50,
    },
}
