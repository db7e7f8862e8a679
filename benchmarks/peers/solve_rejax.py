"""rejax's PQN or DQN with its published settings, for `time_to_solve.py`; needs gymnax < 1.

The settings are those of `configs/gymnax/cartpole.yaml` of its repository. In place of its own
evaluation, as often, the parameters are kept; seconds of a snapshot are its share of the run.
"""

from solving import begin, greedy_scores, report

SETTINGS = {
    "pqn": {
        "num_envs": 16,
        "num_steps": 128,
        "num_minibatches": 16,
        "max_grad_norm": 10,
        "learning_rate": 3e-4,
        "num_epochs": 5,
        "total_timesteps": 524_288,
        "eval_freq": 16_384,
        "eps_start": 1,
        "eps_end": 0.05,
        "exploration_fraction": 0.5,
        "gamma": 0.99,
        "td_lambda": 0.9,
    },
    "dqn": {
        "agent": "DuelingQNetwork",
        "agent_kwargs": {"activation": "swish"},
        "num_envs": 10,
        "buffer_size": 50_000,
        "fill_buffer": 5_000,
        "batch_size": 100,
        "max_grad_norm": 10,
        "learning_rate": 1e-3,
        "num_epochs": 5,
        "total_timesteps": 100_000,
        "eval_freq": 2_500,
        "polyak": 0.98,
        "eps_start": 1,
        "eps_end": 0.05,
        "exploration_fraction": 0.5,
        "gamma": 0.99,
        "ddqn": True,
    },
}


def main():
    """Trains once."""
    work, clock, out = begin()
    import jax
    import rejax

    settings = SETTINGS[work["algorithm"]]
    algorithm = rejax.get_algo(work["algorithm"]).create(
        env="CartPole-v1", skip_initial_evaluation=True, **settings
    )
    algorithm = algorithm.replace(eval_callback=lambda _, state, key: state.q_ts.params)
    imported = clock.seconds()
    key = jax.random.PRNGKey(work["seed"])
    compiled = jax.jit(algorithm.train).lower(key).compile()
    began = clock.seconds()
    _, params = jax.block_until_ready(compiled(key))
    ended = clock.seconds()
    count = settings["total_timesteps"] // settings["eval_freq"]
    shares = [(number + 1) / count for number in range(count)]
    scores = greedy_scores(
        lambda params, obs: algorithm.agent.apply(params, obs).argmax(-1),
        *(params, work["seed"], count),
    )
    steps = [round(share * settings["total_timesteps"]) for share in shares]
    report(
        *(out, [began + share * (ended - began) for share in shares], steps, scores),
        *("rejax", "jax", "gymnax"),
        **{"import": imported, "compile": began - imported, "total": ended},
    )


if __name__ == "__main__":
    main()
