"""This library, on the work of `against_peers.py`, through its trainer."""

from serving import serve


def build(work):
    """See `serve`."""
    from jaxrl_cb.algorithms import DQN
    from jaxrl_cb.envs import make
    from jaxrl_cb.learners import (
        Exploration,
        OptimizerConfig,
        ReplayConfig,
        ReplayLearner,
        TargetConfig,
    )
    from jaxrl_cb.machine import use_all_cores
    from jaxrl_cb.networks import NETWORKS
    from jaxrl_cb.trainer import Trainer, TrainerParams

    use_all_cores(work.get("num_seeds", 1))  # as the command line does
    environment = make(work["env"])
    num_actions = environment.spec.num_actions
    network = NETWORKS[work["network"]](num_actions, tuple(work["hidden_sizes"]), layer_norm=False)
    steps = work["env_steps"] - work["start_timesteps"]
    learner = ReplayLearner(
        environment,
        DQN(network, double=False),
        ReplayConfig(
            num_envs=work["num_envs"],
            buffer_size=work["buffer_size"],
            batch_size=work["batch_size"],
            samples_per_insert=work["batch_size"] * work["updates_per_env_step"],
            start_timesteps=work["start_timesteps"],
        ),
        TargetConfig(gamma=0.99, tau=1.0, target_update_period=work["target_update_period"]),
        optimizer=OptimizerConfig(learning_rate=2.5e-4, max_grad_norm=None),
        exploration=Exploration(1.0, 0.05, work["epsilon_decay_steps"]),
    )
    num_seeds = work.get("num_seeds", 1)

    def trainer(seed):
        params = TrainerParams(
            max_epochs=1,
            epoch_num_steps=steps,
            num_test_episodes=1,
            seed=seed,
            num_seeds=num_seeds,
        )
        return Trainer(learner, params)

    trainer(0).init()  # compiles everything

    def run(seed):
        trained = trainer(seed * num_seeds)
        trained.init()
        record = trained.execute_epoch()  # its losses are on the host: all is done
        return {
            "env_steps": work["start_timesteps"] + record.env_step,
            "updates": record.num_updates,
            "batch_size": learner.replay.batch_size,
            "hidden_sizes": list(network.hidden_sizes),
            "num_seeds": num_seeds,
        }

    return run


if __name__ == "__main__":
    serve(build, "jaxrl-cb", "jax", "gymnax")
