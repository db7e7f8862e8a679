"""Tianshou's high-level DQN on the work of `against_peers.py`; needs `tianshou[eval]`.

Its environments are stepped in one process; of its tests only one episode before and one after
training are played, which it cannot leave out.
"""

from serving import serve


def build(work):
    """See `serve`."""
    from tianshou.highlevel.config import OffPolicyTrainingConfig
    from tianshou.highlevel.env import EnvFactoryRegistered, VectorEnvType
    from tianshou.highlevel.experiment import DQNExperimentBuilder, ExperimentConfig
    from tianshou.highlevel.params.algorithm_params import DQNParams

    num_envs, start = work["num_envs"], work["start_timesteps"]
    training = OffPolicyTrainingConfig(
        max_epochs=1,
        epoch_num_steps=work["env_steps"] - start,
        num_training_envs=num_envs,
        num_test_envs=1,
        buffer_size=work["buffer_size"],
        start_timesteps=start,
        start_timesteps_random=True,
        batch_size=work["batch_size"],
        collection_step_num_env_steps=num_envs,
        update_step_num_gradient_steps_per_sample=work["updates_per_env_step"],
    )
    params = DQNParams(
        lr=2.5e-4,
        gamma=0.99,
        n_step_return_horizon=1,
        target_update_freq=work["target_update_period"],
        is_double=False,
        eps_training=0.5,
        eps_inference=0.0,
    )

    def run(seed):
        builder = DQNExperimentBuilder(
            EnvFactoryRegistered(task=work["env"], venv_type=VectorEnvType.DUMMY),
            ExperimentConfig(persistence_enabled=False, watch=False, seed=seed),
            training,
        )
        builder = builder.with_dqn_params(params)
        experiment = builder.with_model_factory_default(hidden_sizes=work["hidden_sizes"]).build()
        result = experiment.run()
        steps = result.trainer_result.train_step
        layers = [m for m in result.world.algorithm.modules() if hasattr(m, "out_features")]
        widths = [layer.out_features for layer in layers[: len(work["hidden_sizes"])]]
        return {
            "env_steps": steps + start,
            "updates": result.trainer_result.update_step,
            "batch_size": training.batch_size,
            "hidden_sizes": widths,
            "num_seeds": 1,
        }

    return run


if __name__ == "__main__":
    serve(build, "tianshou", "torch", "gymnasium")
