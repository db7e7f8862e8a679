"""What docs/determinism.md promises to be equal bit for bit, as far as no other test shows it.

The digests in golden_digests.json are of some runs on some processors: a change of JAX, of the
compiler or of ours that changes a run's numbers shows there. Where the processor or the version of
JAX is another one they say nothing. After a change that is meant:

    python tests/test_determinism.py --write
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxrl_cb
from jaxrl_cb.trainer import TrainerCallbacks
from jaxrl_cb.versions import cpu_model

GOLDEN = Path(__file__).with_name("golden_digests.json")
SMALL = {"num_envs": 8, "batch_size": 32, "num_test_episodes": 4, "verbose": False}
RUNS = {
    "CartPole, three seeds": (
        "CartPole-v1",
        {"num_seeds": 3, "epoch_num_steps": 800, "max_epochs": 2, "hidden_sizes": (32,)},
    ),
    "Acrobot, 3-step, dueling": (
        "Acrobot-v1",
        {"n_step": 3, "dueling": True, "epoch_num_steps": 800, "max_epochs": 2}
        | {"env_kwargs": {"max_steps_in_episode": 100}},
    ),
    "Breakout, normalised": (
        "Breakout-MinAtar",
        {"normalize_obs": True, "epoch_num_steps": 400, "max_epochs": 2, "hidden_sizes": (32,)}
        | {"env_kwargs": {"max_steps_in_episode": 100}},
    ),
    "Breakout, CNN": (
        "Breakout-MinAtar",
        {"network": "cnn", "epoch_num_steps": 400, "max_epochs": 2, "hidden_sizes": (32,)}
        | {"env_kwargs": {"max_steps_in_episode": 100}},
    ),
}


def run(name, **changes):
    env, settings = RUNS[name]
    return jaxrl_cb.train(env, callbacks=TrainerCallbacks(), **(SMALL | settings | changes))


def digest(result, seed=None):
    """SHA-256 of the whole last state (of one seed: its parameters) and of all test returns."""
    tree = result.state if seed is None else jax.tree.map(lambda x: x[seed], result.policy.params)
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        found.update(np.asarray(jax.random.key_data(leaf) if is_key else leaf).tobytes())
    for record in result.history:
        found.update(record.returns[[seed] if seed is not None else slice(None)].tobytes())
    return found.hexdigest()


def place():
    return f"{cpu_model()}, jax {jax.__version__}"


@pytest.fixture(scope="module")
def digests():
    """Of the golden runs, as this process finds them."""
    return {name: digest(run(name)) for name in RUNS}


def test_runs_have_the_digests_that_are_known_for_this_processor(digests):
    known = json.loads(GOLDEN.read_text()).get(place())
    if known is None:
        pytest.skip(f"no digests are known for {place()}")
    found = {name: digests[name] for name in known}
    assert found == known, "python tests/test_determinism.py --write, if that is meant"


def test_another_process_finds_the_same_bits(digests):
    """With one CPU device, of which this one has two, each with a thread pool of its own."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, __file__, "--print"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == digests


def test_a_cached_executable_gives_the_same_bits(digests, tmp_path):
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    for round_number in range(2):  # the second takes its programs from the cache of the first
        done = subprocess.run(
            [sys.executable, __file__, "--print", "Acrobot, 3-step, dueling"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        name = "Acrobot, 3-step, dueling"
        assert json.loads(done.stdout) == {name: digests[name]}, round_number
        assert list(tmp_path.glob("*-cache"))


@pytest.mark.parametrize("name", ["CartPole, three seeds", "Breakout, CNN"])
def test_a_seed_does_not_depend_on_how_many_are_held_together(name):
    """One after another; vectorised it does, as the compiler takes other instructions."""
    results = [run(name, num_seeds=count, max_epochs=1) for count in (1, 2, 3)]
    assert len({digest(result, seed=0) for result in results}) == 1


@pytest.mark.parametrize("changes", [{"debug": True}, {"on_nan": "raise"}, {"chunk_num_steps": 56}])
def test_what_does_not_change_a_bit(digests, changes):
    name = "Breakout, normalised"
    assert digest(run(name, **changes)) == digests[name]


def main():
    if sys.argv[1] == "--print":
        print(json.dumps({name: digest(run(name)) for name in sys.argv[2:] or RUNS}))
    elif sys.argv[1] == "--write":
        known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        known[place()] = {name: digest(run(name)) for name in RUNS}
        GOLDEN.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
