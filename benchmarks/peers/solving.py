"""What a contender of `time_to_solve.py` tells its parent; only the standard library at the top.

Each run is a new process. It trains with its own settings and notes, as training goes on, seconds
since the process was started, environment steps and the mean return of 100 greedy episodes. Where
a library does not test itself, tests are made of copies of its parameters while the clock stands.
"""

import importlib.metadata
import json
import os
import sys
import time

EPISODES = 100


class Clock:
    """Seconds since the parent started this process, without those in which it stood."""

    def __init__(self):
        self._started = float(os.environ["STARTED"])
        self._stood = 0.0

    def seconds(self):
        return time.time() - self._started - self._stood

    def stands_while(self, work):
        """Does some work that is not counted; gives its result."""
        began = time.time()
        result = work()
        self._stood += time.time() - began
        return result


def begin():
    """The contender's work, and a clock; what libraries print goes to stderr."""
    out, sys.stdout = sys.stdout, sys.stderr
    return json.loads(sys.argv[1]), Clock(), out


def report(out, seconds, env_steps, scores, *names, **more):
    """Tells the parent; `names` are packages whose versions are of interest."""
    versions = {name: importlib.metadata.version(name) for name in names}
    tests = {"seconds": seconds, "env_steps": env_steps, "scores": scores}
    print(json.dumps({**tests, "versions": versions, **more}), file=out, flush=True)


def greedy_scores(act, params, seed, num_snapshots):
    """Mean returns of 100 greedy CartPole episodes in gymnax, of stacked parameters.

    Args:
        act: ``act(params, obs [100, 4])`` gives actions [100].
        params: with a leading axis of snapshots.
        seed: of the episodes.
        num_snapshots: length of that axis.
    """
    import gymnax
    import jax
    import jax.numpy as jnp

    env, env_params = gymnax.make("CartPole-v1")

    def score(params, key):
        key, key_reset = jax.random.split(key)
        reset = jax.vmap(env.reset, in_axes=(0, None))
        obs, state = reset(jax.random.split(key_reset, EPISODES), env_params)

        def step(carry, key):
            obs, state, alive, total = carry
            keys = jax.random.split(key, EPISODES)
            move = jax.vmap(env.step, in_axes=(0, 0, 0, None))
            obs, state, reward, done, _ = move(keys, state, act(params, obs), env_params)
            return (obs, state, alive & ~done, total + alive * reward), None

        start = (obs, state, jnp.ones(EPISODES, bool), jnp.zeros(EPISODES))
        (_, _, _, total), _ = jax.lax.scan(step, start, jax.random.split(key, 500))
        return total.mean()

    keys = jax.random.split(jax.random.key(1_000_000 + seed), num_snapshots)
    one_by_one = jax.jit(lambda params, keys: jax.lax.map(lambda x: score(*x), (params, keys)))
    return [float(score) for score in one_by_one(params, keys)]
