"""Ten thousand epochs: the host's memory does not grow beyond what history itself takes."""

import gc
import re
from pathlib import Path

import jax.numpy as jnp
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


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_stays_flat_over_ten_thousand_epochs(tmp_path):
    sizes = ReplayConfig(num_envs=2, buffer_size=16, batch_size=4, start_timesteps=4)
    callbacks = TrainerCallbacks(
        EpochTrainCallbackDQNEpsLinearDecay(1.0, 0.1, 10_000),
        epoch_stop_callback=EpochStopCallbackRewardThreshold(100.0),
    )
    run = Trainer(
        ReplayLearner(tiny(), DQN(MLP(2, (4,))), sizes),
        TrainerParams(max_epochs=10_000, epoch_num_steps=2, num_test_episodes=2),
        callbacks,
    )
    saver = Checkpointer(tmp_path / "checkpoints", run, every=500)
    before = 0
    for record in run.epochs():
        saver.after_epoch(0.0)
        if record.epoch == 2_000:
            gc.collect()
            before = resident()
    saver.finish()
    gc.collect()
    grown = resident() - before
    # A record has seven small arrays; with its own fields it was 1,500 bytes by `tracemalloc`, and
    # 2,900 bytes of the process's memory.
    assert len(run.context.history) == 10_001
    assert grown < 8_000 * 4_000, f"{grown / 8_000:.0f} bytes per epoch"
