"""rejax's DQN, without evaluations, on the work of `against_peers.py`; it needs gymnax < 1."""

import jax
import jax.numpy as jnp
from serving import serve


def build(work):
    """See `serve`."""
    import rejax
    from flax import linen as nn
    from rejax.networks import DiscreteQNetwork, EpsilonGreedyPolicy

    num_envs, num_seeds = work["num_envs"], work["num_seeds"]
    algorithm = rejax.get_algo("dqn").create(
        env=work["env"],
        num_envs=num_envs,
        buffer_size=work["buffer_size"],
        batch_size=work["batch_size"],
        num_epochs=round(work["updates_per_env_step"] * num_envs),
        fill_buffer=work["start_timesteps"] - num_envs,  # it looks before it steps
        total_timesteps=work["env_steps"],
        eval_freq=work["env_steps"],
        skip_initial_evaluation=True,
        learning_rate=2.5e-4,
        gamma=0.99,
        ddqn=False,
        target_update_freq=work["target_update_period"] * num_envs,
        polyak=0.0,
        eps_start=1.0,
        eps_end=0.05,
        exploration_fraction=work["epsilon_decay_steps"] / work["env_steps"],
    )
    sizes = tuple(work["hidden_sizes"])
    agent = EpsilonGreedyPolicy(DiscreteQNetwork)(
        hidden_layer_sizes=sizes, action_dim=work["num_actions"], activation=nn.relu
    )
    algorithm = algorithm.replace(agent=agent, eval_callback=lambda *_: jnp.float32(0.0))

    def keys(seed):
        return jax.random.split(jax.random.PRNGKey(seed), num_seeds)

    train = jax.jit(jax.vmap(algorithm.train)).lower(keys(0)).compile()

    def run(seed):
        state, _ = jax.block_until_ready(train(keys(seed)))
        return {
            "env_steps": int(state.global_step[0]),
            "updates": int(state.q_ts.step[0]),
            "batch_size": algorithm.batch_size,
            "hidden_sizes": list(algorithm.agent.hidden_layer_sizes),
            "num_seeds": num_seeds,
        }

    return run


if __name__ == "__main__":
    serve(build, "rejax", "jax", "gymnax")
