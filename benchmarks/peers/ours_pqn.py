"""This library's PQN, on the work of `pqn.py`, through its trainer."""

from serving import serve


def build(work):
    """See `serve`."""
    import jax

    from jaxrl_cb.config import resolve
    from jaxrl_cb.envs import make
    from jaxrl_cb.machine import use_all_cores
    from jaxrl_cb.trainer import Trainer

    use_all_cores(work["seeds"])
    unit = work["num_envs"] * work["rollout_length"]
    iterations = work["env_steps"] // unit
    epochs = max(work["tests"], 1)
    settings = {
        **{name: work[name] for name in ("num_envs", "rollout_length", "num_minibatches")},
        **{"update_epochs": work["update_epochs"], "network": "cnn", "hidden_sizes": (128,)},
        **{"epsilon_decay_steps": work["decay_steps"] // 10, "learning_rate": 5e-4},
        **{"epoch_num_steps": iterations // epochs * unit, "max_epochs": epochs},
        **{"num_test_episodes": 128 if work["tests"] else 1, "num_seeds": work["seeds"]},
    }
    config = resolve(None, "pqn", settings)
    environment = make(work["env"])
    learner = config.build_learner(environment)

    def trainer(seed):
        resolved = resolve(None, "pqn", settings | {"seed": seed})
        return Trainer(learner, resolved.trainer)

    trainer(0).init()  # compiles everything

    def run(seed):
        result = trainer(seed).run()
        params = jax.tree.leaves(result.policy.params)
        record = result.history[-1]
        return {
            "seeds": len(record.mean),
            "env_steps": record.env_step,
            "updates": record.num_updates,
            "num_params": sum(leaf[0].size for leaf in params),
            "features": [leaf.shape[-1] for leaf in params if leaf.ndim > 2][:-1],
            "curve": [float(record.mean[0]) for record in result.history],
            "final": float(record.mean[0]),
        }

    return run


if __name__ == "__main__":
    serve(build, "jaxrl-cb", "jax", "gymnax")
