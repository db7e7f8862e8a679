"""Tianshou's high-level DQN with the settings of its README, for `time_to_solve.py`.

Its own tests, of 100 episodes after each epoch, count, and it stops at 475 of them. Needs
`tianshou[eval]`.
"""

from solving import begin, report

THRESHOLD = 475


def main():
    """Trains once."""
    work, clock, out = begin()
    from tianshou.highlevel.config import OffPolicyTrainingConfig
    from tianshou.highlevel.env import EnvFactoryRegistered, VectorEnvType
    from tianshou.highlevel.experiment import DQNExperimentBuilder, ExperimentConfig
    from tianshou.highlevel.params.algorithm_params import DQNParams
    from tianshou.highlevel.trainer import EpochStopCallback

    imported = clock.seconds()
    tests = []

    class Stop(EpochStopCallback):
        """Keeps each test and stops at the threshold."""

        def should_stop(self, mean_rewards, context):
            """Takes the best mean return so far; the first test comes before training."""
            tests.append((clock.seconds(), len(tests) * 10_000, float(mean_rewards)))
            return mean_rewards >= THRESHOLD

    builder = DQNExperimentBuilder(
        EnvFactoryRegistered(task="CartPole-v1", venv_type=VectorEnvType.DUMMY),
        ExperimentConfig(persistence_enabled=False, watch=False, seed=work["seed"]),
        OffPolicyTrainingConfig(
            max_epochs=10,
            epoch_num_steps=10_000,
            batch_size=64,
            num_training_envs=10,
            num_test_envs=100,
            buffer_size=20_000,
            collection_step_num_env_steps=10,
            update_step_num_gradient_steps_per_sample=1 / 10,
        ),
    )
    params = DQNParams(
        lr=1e-3,
        gamma=0.9,
        n_step_return_horizon=3,
        target_update_freq=320,
        eps_training=0.3,
        eps_inference=0.0,
    )
    builder = builder.with_dqn_params(params).with_model_factory_default(hidden_sizes=(64, 64))
    experiment = builder.with_epoch_stop_callback(Stop()).build()
    built = clock.seconds()
    experiment.run()
    parts = {"import": imported, "compile": built - imported, "total": clock.seconds()}
    tests = tests or [(clock.seconds(), 0, 0.0)]
    report(out, *map(list, zip(*tests, strict=True)), "tianshou", "torch", "gymnasium", **parts)


if __name__ == "__main__":
    main()
