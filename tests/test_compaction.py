"""Seeds of one batched program: when many have stopped, the others get a narrower one."""

import jax
import numpy as np
import pytest
import tiny

import jaxrl_cb
from jaxrl_cb.config import resolve
from jaxrl_cb.envs import make
from jaxrl_cb.trainer import (
    EpochStopCallback,
    EpochTrainCallback,
    Trainer,
    TrainerCallbacks,
    leaves,
)
from jaxrl_cb.trainer.compaction import Compaction, narrowed

SETTINGS = tiny.TINY | tiny.SHORT | {"epsilon_decay_steps": 200, "vectorize_seeds": True}
SETTINGS |= {"learning_rate_schedule": "constant"}  # nothing follows from max_epochs


class StopsAfter(EpochStopCallback):
    """Stops each seed after its own number of epochs."""

    def __init__(self, epochs):
        self.epochs = epochs

    def should_stop(self, mean_rewards, context):
        return context.epoch >= self.epochs[context.seed]


class Widths(EpochTrainCallback):
    """Notes how many seeds the programs of an epoch are for."""

    def __init__(self):
        self.widths = []

    def callback(self, epoch, env_step, context):
        members = context.policy._members
        self.widths.append(sum(len(group.indices) for group in members.groups))

    def state_dict(self):
        return {}

    def _tostring_excludes(self):
        return ["widths"]


def small_trainer(stop, **settings):
    own = {name: value for name, value in SETTINGS.items() if name != "verbose"}
    config = resolve("CartPole-v1", "dqn", own | {"max_epochs": 4} | settings)
    learner = config.build_learner(make("CartPole-v1", config.env.env_kwargs))
    return Trainer(learner, config.trainer, TrainerCallbacks(epoch_stop_callback=stop))


def train(epochs, *, max_epochs=6, **settings):
    widths = Widths()
    callbacks = TrainerCallbacks(widths, None, StopsAfter(epochs))
    own = {"num_seeds": len(epochs), "max_epochs": max_epochs, "callbacks": callbacks}
    result = jaxrl_cb.train("CartPole-v1", **(SETTINGS | own | settings))
    return result, widths.widths


EPOCHS = [9, 1, 2, 9, 2, 1, 4, 2]


def test_widths_are_halved_as_often_as_the_running_seeds_fit():
    widths = [narrowed(8, running) for running in range(1, 9)]
    assert widths == [2, 2, 4, 4, 8, 8, 8, 8]
    assert [narrowed(7, running) for running in range(1, 8)] == [2, 2, 4, 4, 7, 7, 7]
    assert [narrowed(width, 1) for width in (1, 2, 3, 1_000)] == [1, 2, 2, 2]


def test_narrower_programs_take_over_when_half_of_the_seeds_have_stopped():
    wide, wide_widths = train(EPOCHS, compact_seeds=False)
    narrow, widths = train(EPOCHS, compact_seeds=True)
    assert wide_widths == [8] * 6
    # The callback looks before the epoch's own narrowing: of 8 seeds 6, 3, 3, 2, 2, 2 go on.
    assert widths == [8, 8, 8, 4, 4, 2]
    assert narrow.epoch.tolist() == wide.epoch.tolist() == [6, 1, 2, 6, 2, 1, 4, 2]
    for ours, theirs in zip(narrow.history, wide.history, strict=True):
        assert ours.env_step == theirs.env_step
        assert ours.num_updates == theirs.num_updates
        np.testing.assert_array_equal(np.isnan(ours.returns), np.isnan(theirs.returns))
        np.testing.assert_array_equal(ours.eps_training, theirs.eps_training)
        if ours.epoch <= 2:  # later another number of seeds may round otherwise
            np.testing.assert_array_equal(ours.returns, theirs.returns)
            np.testing.assert_array_equal(ours.train_loss, theirs.train_loss)
    assert len(narrow.state.buffer.obs) == 2  # of the seeds that ran to the end
    assert np.isfinite(narrow.history[-1].mean[[0, 3]]).all()


def test_narrowing_moves_states_and_changes_none():
    trainer = small_trainer(StopsAfter([9, 1, 1, 9, 1, 9, 1, 1]), num_seeds=8, compact_seeds=False)
    trainer.init()
    trainer.execute_epoch()
    members = trainer._members
    assert members.running == [0, 3, 5]
    trainer.context.policy.set_eps_training(np.arange(8) / 10)  # on the host until it is looked at
    before = {i: leaves.to_host(members.state((i,))) for i in range(8)}
    members.compact(lambda width, narrow: (width, narrow) == (8, 4))
    assert [group.indices for group in members.groups] == [(0, 1, 3, 5)]
    for index, state in before.items():
        after = leaves.to_host(members.state((index,)))
        assert jax.tree.structure(after) == jax.tree.structure(state)
        for ours, theirs in zip(*map(jax.tree.leaves, (after, state)), strict=True):
            if not leaves.is_key(ours):
                np.testing.assert_array_equal(ours, theirs)
            else:
                np.testing.assert_array_equal(*map(jax.random.key_data, (ours, theirs)))


def test_a_set_of_programs_is_compiled_once_for_each_width(compiles):
    train(EPOCHS, compact_seeds=True)
    compiles()
    train(EPOCHS, compact_seeds=True)
    assert compiles() == 0
    train([9, 9, 9, 9, 1, 1, 9, 9], compact_seeds=True)  # nothing narrower fits
    assert compiles() == 0


def test_it_is_not_done_where_compiling_takes_longer_than_it_saves(monkeypatch, compiles):
    train(EPOCHS, compact_seeds=False)
    compiles()
    _, widths = train(EPOCHS)  # epochs of milliseconds
    assert set(widths) == {8}
    assert compiles() == 0
    # whatever the epochs took: what follows from times is tested by itself
    monkeypatch.setattr(Compaction, "saved", lambda self, width, narrow: np.inf)
    _, widths = train(EPOCHS)
    assert widths == [8, 8, 8, 4, 4, 2]


def test_what_is_saved_follows_the_times_that_were_seen():
    compaction = Compaction(None)
    assert compaction.saved(64, 32) == 0  # nothing is known
    compaction.note(64, 9.0)
    compaction.note(64, 8.0)  # the quickest: the first one of all may have waited for something
    assert compaction.saved(64, 32) == 4
    assert compaction.pays(64, 32, epochs=2, compile_seconds=7.9)
    assert not compaction.pays(64, 32, epochs=2, compile_seconds=8.1)
    assert not compaction.pays(64, 32, epochs=1, compile_seconds=0.0)  # five seconds at least
    compaction.note(32, 7.0)  # a second less for 32 seeds less
    assert compaction.saved(32, 16) == 0.5
    compaction.note(16, 7.5)  # no quicker at all
    assert compaction.saved(16, 8) == 0
    assert Compaction(True).pays(2, 1, 0, 1e9)
    assert not Compaction(False).pays(64, 2, 1_000, 0.0)


@pytest.mark.parametrize("cut", [2, 3, 5])
def test_a_run_of_narrower_programs_resumes_exactly(tmp_path, cut):
    options = {"compact_seeds": True, "run_dir": tmp_path / "run", "checkpoint_every": 1}
    whole, _ = train(EPOCHS, compact_seeds=True)
    train(EPOCHS, max_epochs=cut, **options)
    resumed, widths = train(EPOCHS, resume="must", **options)
    assert widths[0] == 8  # and narrower after the first epoch's callbacks
    for ours, theirs in zip(resumed.history, whole.history, strict=True):
        np.testing.assert_array_equal(ours.returns, theirs.returns)
        np.testing.assert_array_equal(ours.train_loss, theirs.train_loss)


def test_a_trainer_goes_back_to_a_snapshot_of_wider_programs():
    stop = StopsAfter([9, 1, 1, 1, 1, 9])
    trainer = small_trainer(stop, num_seeds=6, compact_seeds=True)
    trainer.init()
    snapshot = trainer.snapshot()
    first = [trainer.execute_epoch() for _ in range(4)]
    assert [len(group.indices) for group in trainer._members.groups] == [2]
    trainer.restore(snapshot)
    again = [trainer.execute_epoch() for _ in range(4)]
    for ours, theirs in zip(first, again, strict=True):
        np.testing.assert_array_equal(ours.returns, theirs.returns)


def test_setters_and_states_after_narrowing():
    seen = {}

    def look(epoch, env_step, context):
        if epoch == 5:
            context.policy.set_eps_training(np.arange(8) / 10)
            seen["eps"] = context.policy.eps_training
            seen["member"] = np.array(context.member(3).params["params"]["head"]["bias"])
            seen["parked"] = np.array(context.member(1).params["params"]["head"]["bias"])
            seen["stacked"] = np.array(context.state.params["params"]["head"]["bias"])
            context.policy.copy_learned(0, 3)
            seen["copied"] = np.array(context.member(3).params["params"]["head"]["bias"])

    callbacks = TrainerCallbacks(look, None, StopsAfter(EPOCHS))
    own = {"num_seeds": 8, "max_epochs": 6, "callbacks": callbacks, "compact_seeds": True}
    jaxrl_cb.train("CartPole-v1", **(SETTINGS | own))
    np.testing.assert_allclose(seen["eps"][[0, 3]], [0.0, 0.3], rtol=1e-6)
    np.testing.assert_array_equal(seen["stacked"][3], seen["member"][0])
    np.testing.assert_array_equal(seen["stacked"][1], seen["parked"][0])
    np.testing.assert_array_equal(seen["copied"][0], seen["stacked"][0])
