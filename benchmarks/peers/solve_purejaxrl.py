"""purejaxrl's DQN with the settings of its file, for `time_to_solve.py`.

Its one scan over all steps is split into 50, which give their parameters as well; the numbers are
those of the file as it is. The parameters are there only when all is done: seconds of a snapshot
are its share of the run.
"""

from solving import begin, greedy_scores, report

SNAPSHOTS = 50
CONFIG = {
    "NUM_ENVS": 10,
    "BUFFER_SIZE": 10_000,
    "BUFFER_BATCH_SIZE": 128,
    "TOTAL_TIMESTEPS": 5e5,
    "EPSILON_START": 1.0,
    "EPSILON_FINISH": 0.05,
    "EPSILON_ANNEAL_TIME": 25e4,
    "TARGET_UPDATE_INTERVAL": 500,
    "LR": 2.5e-4,
    "LEARNING_STARTS": 10_000,
    "TRAINING_INTERVAL": 10,
    "LR_LINEAR_DECAY": False,
    "GAMMA": 0.99,
    "TAU": 1.0,
    "ENV_NAME": "CartPole-v1",
}


def main():
    """Trains once."""
    work, clock, out = begin()
    import jax
    from peer_file import purejaxrl

    module = purejaxrl(work["purejaxrl"])
    scan, imported = jax.lax.scan, clock.seconds()

    def split_scan(step, carry, xs, length=None):
        if length != CONFIG["NUM_UPDATES"]:
            return scan(step, carry, xs, length)

        def part(carry, _):
            carry, metrics = scan(step, carry, None, length // SNAPSHOTS)
            return carry, (metrics["returns"], carry[0].params)

        return scan(part, carry, None, SNAPSHOTS)

    train = module.make_train(CONFIG)
    jax.lax.scan = split_scan
    keys = jax.random.split(jax.random.PRNGKey(work["seed"]), 1)
    compiled = jax.jit(jax.vmap(train)).lower(keys).compile()
    jax.lax.scan = scan
    began = clock.seconds()
    params = jax.block_until_ready(compiled(keys))["metrics"][1]
    ended = clock.seconds()
    steps = int(CONFIG["TOTAL_TIMESTEPS"])
    shares = [(number + 1) / SNAPSHOTS for number in range(SNAPSHOTS)]
    network = module.QNetwork(action_dim=2)
    scores = greedy_scores(
        lambda params, obs: network.apply(params, obs).argmax(-1),
        *(jax.tree.map(lambda x: x[0], params), work["seed"], SNAPSHOTS),
    )
    report(
        *(out, [began + share * (ended - began) for share in shares]),
        *([round(share * steps) for share in shares], scores, "jax", "gymnax", "flashbax"),
        **{"import": imported, "compile": began - imported, "total": ended},
    )


if __name__ == "__main__":
    main()
