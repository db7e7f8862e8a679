"""Ten thousand epochs: the host's memory does not grow beyond what history itself takes."""

import gc
import re
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_cb.algorithms import DQN
from jaxrl_cb.envs import functional
from jaxrl_cb.learners import ReplayConfig, ReplayLearner
from jaxrl_cb.networks import MLP
from jaxrl_cb.trainer import (
    EpochStopCallbackRewardThreshold,
    EpochTrainCallbackDQNEpsLinearDecay,
    Trainer,
    TrainerCallbacks,
    TrainerParams,
)
from jaxrl_cb.trainer.checkpointer import Checkpointer


def resident():
    """Bytes of this process's memory."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE).group(1)) * 1024


def tiny():
    """Episodes of three steps."""

    def reset(key):
        return jnp.int32(0), jnp.zeros(2)

    def step(key, state, action):
        return state + 1, jnp.zeros(2), 1.0, False, state >= 2

    return functional(reset, step, num_actions=2, time_limit=3)


def learner():
    """A network of a few numbers, on those episodes."""
    sizes = ReplayConfig(num_envs=2, buffer_size=16, batch_size=4, start_timesteps=4)
    return ReplayLearner(tiny(), DQN(MLP(2, (4,))), sizes)


def grown_from_two_to_ten_thousand_epochs(folder):
    """Trains with checkpoints; gives by how many bytes an epoch this process has grown."""
    callbacks = TrainerCallbacks(
        EpochTrainCallbackDQNEpsLinearDecay(1.0, 0.1, 10_000),
        epoch_stop_callback=EpochStopCallbackRewardThreshold(100.0),
    )
    run = Trainer(
        learner(),
        TrainerParams(max_epochs=10_000, epoch_num_steps=2, num_test_episodes=2),
        callbacks,
    )
    saver = Checkpointer(folder, run, every=500)
    before = 0
    for record in run.epochs():
        saver.after_epoch(0.0)
        if record.epoch == 2_000:
            gc.collect()
            before = resident()
    saver.finish()
    gc.collect()
    assert len(run.context.history) == 10_001
    return (resident() - before) / 8_000


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_stays_flat_over_ten_thousand_epochs(tmp_path):
    # In a process of its own: one that has run other tests has room left to grow unseen.
    command = [sys.executable, __file__, str(tmp_path / "checkpoints")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # A record has seven small arrays: 2,400 bytes; with device buffers held by two, 6,000.
    assert float(done.stdout) < 4_000


def test_a_record_holds_no_buffer_of_the_device():
    params = TrainerParams(max_epochs=1, epoch_num_steps=2, num_test_episodes=2)
    for record in Trainer(learner(), params).epochs():
        arrays = {name: x for name, x in vars(record).items() if isinstance(x, np.ndarray)}
        for name, array in arrays.items():
            holder = array if array.base is None else array.base
            assert holder.flags.owndata, name
        assert arrays


if __name__ == "__main__":
    print(grown_from_two_to_ten_thousand_epochs(Path(sys.argv[1])))
