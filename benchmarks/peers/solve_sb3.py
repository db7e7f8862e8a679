"""Stable-Baselines3's or SBX's DQN with RL Zoo's settings for CartPole, for `time_to_solve.py`."""

import gymnasium
from solving import EPISODES, begin, report

SETTINGS = {
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1_000,
    "gamma": 0.99,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
    "policy_kwargs": {"net_arch": [256, 256]},
}
TOTAL_STEPS = 50_000
EVERY = 2_500


def main():
    """Trains once."""
    work, clock, out = begin()
    from stable_baselines3.common.callbacks import BaseCallback

    if work["library"] == "sbx":
        from sbx import DQN

        names = ("sbx-rl", "jax", "stable-baselines3", "gymnasium")
    else:
        from stable_baselines3 import DQN

        names = ("stable-baselines3", "torch", "gymnasium")
    imported = clock.seconds()
    tests = []
    test_env = gymnasium.make_vec(
        "CartPole-v1", num_envs=EPISODES, vectorization_mode="vector_entry_point"
    )

    def score(model):
        obs, _ = test_env.reset(seed=1_000_000 + work["seed"] + len(tests))
        alive, total = [True] * EPISODES, 0
        while any(alive):
            obs, _, terminated, truncated, _ = test_env.step(
                model.predict(obs, deterministic=True)[0]
            )
            total += sum(alive)
            ended = terminated | truncated
            alive = [a and not e for a, e in zip(alive, ended, strict=True)]
        return total / EPISODES

    class Tests(BaseCallback):
        """Every so many steps, and at the end."""

        def _on_step(self):
            if self.num_timesteps % EVERY == 0:
                seconds = clock.seconds()
                found = clock.stands_while(lambda: score(self.model))
                tests.append((seconds, self.num_timesteps, found))
            return True

    model = DQN("MlpPolicy", gymnasium.make("CartPole-v1"), seed=work["seed"], **SETTINGS)
    built = clock.seconds()
    model.learn(TOTAL_STEPS, callback=Tests())
    total = clock.seconds()
    parts = {"import": imported, "compile": built - imported, "total": total}
    report(out, *map(list, zip(*tests, strict=True)), *names, **parts)


if __name__ == "__main__":
    main()
