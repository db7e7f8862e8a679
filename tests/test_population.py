"""Seeds that are dropped, copied and compared by train callbacks."""

import numpy as np
import pytest
import tiny

import jaxrl_cb
from jaxrl_cb.errors import CallbackValueError, ConfigError, JaxrlError, SeedIndexError
from jaxrl_cb.trainer import (
    EpochStopCallback,
    EpochTrainCallback,
    EpochTrainCallbackPopulationBasedTraining,
    EpochTrainCallbackSuccessiveHalving,
    MemoryLogger,
    TrainerCallbacks,
)

SETTINGS = tiny.TINY | tiny.SHORT | {"epsilon_decay_steps": 200}
SETTINGS |= {"learning_rate_schedule": "constant"}  # nothing follows from max_epochs


def train(callback=None, stop=None, **settings):
    callbacks = TrainerCallbacks(callback, None, stop)
    return jaxrl_cb.train("CartPole-v1", callbacks=callbacks, **(SETTINGS | settings))


class DropAt(EpochTrainCallback):
    """Drops seeds before the epochs that are named."""

    def __init__(self, seeds_by_epoch):
        self.seeds_by_epoch = seeds_by_epoch

    def callback(self, epoch, env_step, context):
        if epoch in self.seeds_by_epoch:
            context.drop(self.seeds_by_epoch[epoch])
            self.running = list(context.running)


@pytest.mark.parametrize("vectorize_seeds", [False, True])
def test_dropped_seeds_end_and_the_others_do_not_notice(vectorize_seeds):
    settings = {"num_seeds": 4, "max_epochs": 4, "vectorize_seeds": vectorize_seeds}
    plain, result = train(**settings), train(DropAt({2: 1, 4: [0, 3]}), **settings)
    assert result.dropped.tolist() == [True, True, False, True]
    assert not result.stopped.any()
    assert not result.diverged.any()
    assert result.epoch.tolist() == [3, 1, 4, 3]
    assert result.env_step.tolist() == [240, 80, 320, 240]
    for epoch, (ours, theirs) in enumerate(zip(result.history, plain.history, strict=True)):
        for seed, last in enumerate([3, 1, 4, 3]):
            expected = theirs.returns[seed] if epoch <= last else np.full(3, np.nan)
            np.testing.assert_array_equal(ours.returns[seed], expected)
    short = train(**(settings | {"max_epochs": 1}))  # what seed 1 was when it was dropped
    for seed, other in ((2, plain), (1, short)):
        kept, whole = (r.policy[seed].params["params"] for r in (result, other))
        np.testing.assert_array_equal(kept["head"]["kernel"], whole["head"]["kernel"])


def test_a_run_whose_seeds_are_all_dropped_is_over():
    records = []
    result = train(DropAt({3: [0, 1]}), num_seeds=2, max_epochs=5, on_epoch=records.append)
    assert [record.epoch for record in records] == [0, 1, 2]
    assert [record.epoch for record in result.history] == [0, 1, 2]
    assert result.epoch.tolist() == [2, 2]
    alone = train(DropAt({1: 0}), max_epochs=5)
    assert (alone.dropped, alone.stopped, alone.epoch) == (True, False, 0)


def test_dropping_is_for_train_callbacks_and_for_seeds_that_there_are():
    class DropsWhenAsked(EpochStopCallback):
        def should_stop(self, mean_rewards, context):
            context.drop(0)

    with pytest.raises(JaxrlError, match="train callbacks only"):
        train(stop=DropsWhenAsked(), max_epochs=1)
    with pytest.raises(JaxrlError, match="seed=2"):
        train(DropAt({1: [0, 2]}), num_seeds=2, max_epochs=1)


def test_a_context_says_which_seeds_run():
    seen = []

    def look(epoch, env_step, context):
        seen.append(list(context.running))

    stop = [lambda mean, context: context.seed == 1 and context.epoch == 1]
    callbacks = TrainerCallbacks([look, DropAt({3: 0})], None, stop)
    jaxrl_cb.train("CartPole-v1", callbacks=callbacks, num_seeds=3, max_epochs=4, **SETTINGS)
    assert seen == [[0, 1, 2], [0, 2], [0, 2], [2]]


class Scores:
    """Context of so many trials of two seeds with scores by hand."""

    def __init__(self, scores, running):
        self.population, self.running, self.dropped = self, running, []
        self.trials = [trial for trial in range(9) for _ in range(2)]
        self._scores = scores
        self.logger = MemoryLogger()

    def scores(self, epoch):
        assert epoch == 2
        return self._scores

    def drop(self, seeds):
        self.dropped = seeds


def test_halving_keeps_the_best_trials_with_all_their_seeds():
    halving = EpochTrainCallbackSuccessiveHalving(first_rung=2, factor=3)
    assert [epochs for epochs in range(60) if halving.is_rung(epochs)] == [2, 6, 18, 54]
    scores = dict(enumerate([5.0, 9.0, 1.0, 9.0, -np.inf, 7.0, 2.0]))
    context = Scores(scores, running=list(range(14)))
    halving.callback(3, 0, context)  # of seven trials three go on: 1, 3 and 5
    assert context.dropped == [0, 1, 4, 5, 8, 9, 12, 13]
    context = Scores({0: 1.0, 1: 1.0, 2: 1.0}, running=[0, 1, 2, 5])
    halving.callback(3, 0, context)  # a tie goes to the first; seed 3 and 4 have ended
    assert context.dropped == [2, 5]
    halving.callback(4, 0, context)  # no rung: the scores are not asked for
    assert context.dropped == [2, 5]


def test_halving_of_the_seeds_of_a_run():
    halving = EpochTrainCallbackSuccessiveHalving(first_rung=1, factor=2)
    result = train(halving, num_seeds=5, max_epochs=5)
    plain = train(num_seeds=5, max_epochs=5)
    left, expected = set(range(5)), np.full(5, 5)
    for rung, kept in ((1, 3), (2, 2), (4, 1)):
        means = plain.history[rung].mean
        ranked = sorted(left, key=lambda seed: (-means[seed], seed))
        expected[ranked[kept:]] = rung
        left = set(ranked[:kept])
    assert result.epoch.tolist() == expected.tolist()
    assert result.dropped.tolist() == (expected < 5).tolist()


def test_population_scores_by_hand():
    class Scored(EpochTrainCallback):
        scores = None

        def callback(self, epoch, env_step, context):
            if epoch == 2:
                context.drop(0)
            if epoch == 4:
                self.before = context.population.scores(1)
                self.scores = context.population.scores(3)

    callback = Scored()
    stop = [lambda mean, context: context.seed == 1 and context.epoch == 2]
    callbacks = TrainerCallbacks(callback, None, stop)
    settings = {"num_seeds": 3, "max_epochs": 4}
    result = jaxrl_cb.train("CartPole-v1", callbacks=callbacks, **(SETTINGS | settings))
    means = [record.mean for record in result.history]
    assert callback.before == {0: means[1][0], 1: means[1][1], 2: means[1][2]}
    assert callback.scores == {1: means[2][1], 2: means[3][2]}  # seed 1 stopped after epoch 2


class Watched(EpochTrainCallbackPopulationBasedTraining):
    """Keeps what it did."""

    def callback(self, epoch, env_step, context):
        before = [np.array(context.member(i).params["params"]["head"]["bias"]) for i in range(4)]
        rates = np.array(context.policy.learning_rate)
        super().callback(epoch, env_step, context)
        after = [np.array(context.member(i).params["params"]["head"]["bias"]) for i in range(4)]
        self.seen = getattr(self, "seen", [])
        means = context.history[-1].mean
        self.seen.append((epoch, means, before, rates, after, context.policy.learning_rate))

    def state_dict(self):
        return {}


@pytest.mark.parametrize("vectorize_seeds", [False, True])
def test_the_worst_seeds_go_on_from_the_best(vectorize_seeds):
    callback = Watched(every=2, fraction=0.5, factors=(0.5, 2.0))
    train(callback, num_seeds=4, max_epochs=4, vectorize_seeds=vectorize_seeds)
    for epoch, means, before, rates, after, new_rates in callback.seen:
        if epoch != 3:
            np.testing.assert_array_equal(before, after)
            np.testing.assert_array_equal(rates, new_rates)
            continue
        ranked = sorted(range(4), key=lambda seed: (-means[seed], seed))
        for seed in ranked[:2]:
            np.testing.assert_array_equal(before[seed], after[seed])
            assert new_rates[seed] == rates[seed]
        for seed in ranked[2:]:
            sources = [best for best in ranked[:2] if np.array_equal(after[seed], before[best])]
            assert sources
            assert new_rates[seed] / rates[sources[0]] in (0.5, 2.0)


def test_population_based_training_resumes_exactly(tmp_path):
    settings = {"num_seeds": 4, "max_epochs": 6, "checkpoint_every": 1}

    def callback():
        return EpochTrainCallbackPopulationBasedTraining(every=1, fraction=0.5)

    whole = train(callback(), run_dir=tmp_path / "whole", **settings)
    train(callback(), run_dir=tmp_path / "cut", **(settings | {"max_epochs": 3}))
    resumed = train(callback(), run_dir=tmp_path / "cut", resume="must", **settings)
    for ours, theirs in zip(resumed.history, whole.history, strict=True):
        np.testing.assert_array_equal(ours.returns, theirs.returns)
    rows = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut")]
    pairs = [[line for line in text.splitlines() if "pbt" in line] for text in rows]
    assert pairs[0] == pairs[1]
    assert len(pairs[0]) == 5


def test_dropped_seeds_stay_dropped_over_a_resume(tmp_path):
    settings = {"num_seeds": 3, "checkpoint_every": 1, "run_dir": tmp_path / "run"}
    train(DropAt({2: [0]}), max_epochs=3, **settings)
    resumed = train(DropAt({2: [0]}), max_epochs=5, resume="must", **settings)
    whole = train(DropAt({2: [0]}), max_epochs=5, num_seeds=3)
    assert resumed.dropped.tolist() == whole.dropped.tolist() == [True, False, False]
    assert resumed.epoch.tolist() == [1, 5, 5]
    np.testing.assert_array_equal(resumed.history[-1].returns, whole.history[-1].returns)


def test_nothing_is_compiled_when_seeds_are_dropped_or_copied(compiles):
    settings = {"num_seeds": 6, "max_epochs": 4}
    train(**settings)
    compiles()
    halving = EpochTrainCallbackSuccessiveHalving(first_rung=1, factor=2)
    train([halving, EpochTrainCallbackPopulationBasedTraining(every=1)], **settings)
    assert compiles() == 0


def test_wrong_settings_and_seeds():
    with pytest.raises(ConfigError, match="factor=1"):
        EpochTrainCallbackSuccessiveHalving(1, factor=1)
    with pytest.raises(ConfigError, match=r"fraction=0\.6"):
        EpochTrainCallbackPopulationBasedTraining(1, fraction=0.6)
    with pytest.raises(CallbackValueError, match="holds none"):
        EpochTrainCallbackPopulationBasedTraining(1, factors=())

    def copies_to_an_ended_seed(epoch, env_step, context):
        context.drop(1)
        context.policy.copy_learned(0, 1)

    with pytest.raises(SeedIndexError, match="target=1 has ended"):
        train(copies_to_an_ended_seed, num_seeds=2, max_epochs=1)
