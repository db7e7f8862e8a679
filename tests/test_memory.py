"""Memory: what a run needs, what is there, and that nothing large is copied by the way."""

import numpy as np
import pytest

from jaxrl_cb.algorithms import DQN
from jaxrl_cb.envs import make
from jaxrl_cb.learners import ReplayConfig, ReplayLearner
from jaxrl_cb.networks import MLP
from jaxrl_cb.trainer import EpochTrainCallback, Trainer, TrainerCallbacks, TrainerParams, leaves


def learner(**sizes):
    small = {"num_envs": 4, "buffer_size": 400, "batch_size": 16, "start_timesteps": 40}
    environment = make("CartPole-v1", {"max_steps_in_episode": 50})
    return ReplayLearner(environment, DQN(MLP(2, (16,))), ReplayConfig(**{**small, **sizes}))


def params(**changes):
    small = {"max_epochs": 2, "epoch_num_steps": 80, "num_test_episodes": 3, "num_seeds": 3}
    return TrainerParams(**{**small, **changes})


# --- nothing large is copied on the way ---


class Reads(EpochTrainCallback):
    """Reads all that a callback may read of a policy without asking for the whole state."""

    def callback(self, epoch, env_step, context):
        policy = context.policy
        self.read = (policy.eps_training, policy.eps_inference, policy.learning_rate)
        self.read = (*self.read, policy.epsilon, policy.params)


@pytest.mark.parametrize("vectorized", [False, True])
def test_no_replay_is_copied_by_a_run_of_several_seeds(vectorized, monkeypatch):
    """Reading a number of all seeds must not put their states together, of which it is part."""
    copied = []
    for name, states in (("stacked", lambda first: first), ("rows", lambda first: [first])):
        original = getattr(leaves, name)

        def watching(first, *rest, original=original, states=states):
            copied.extend(state.buffer is not None for state in states(first))
            return original(first, *rest)

        monkeypatch.setattr(leaves, name, watching)
    reads = Reads()
    result = Trainer(
        learner(), params(vectorize_seeds=vectorized), TrainerCallbacks(epoch_train_callback=reads)
    ).run()
    assert copied
    assert not any(copied)
    assert [np.shape(x) for x in reads.read[:4]] == [(3,)] * 4
    assert result.state.buffer.obs.shape == (3, 100, 4, 4)  # asked for, it is put together
    assert result.state is result.state


def test_a_result_stays_what_it_was_when_training_goes_on():
    run = Trainer(learner(), params())
    run.init()
    result = run.result()
    run.execute_epoch()
    state = result.state  # put together only now
    assert state.num_updates.tolist() == 0
    assert state.buffer.cursor.size.tolist() == 10  # the prefill: 40 steps of 4 environments
    assert run.result().state.buffer.cursor.size.tolist() == 30
