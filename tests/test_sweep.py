"""Sweeps: their trials, groups, folders, and that each trial is the run by itself."""

import csv
import io
import json
import math
import shutil

import jax
import numpy as np
import pytest
import tiny

import jaxrl_cb
from jaxrl_cb import log_uniform, sweep, uniform
from jaxrl_cb.errors import (
    CheckpointMismatchError,
    ConfigError,
    ConfigTypeError,
    JaxrlError,
    MemoryEstimateError,
    RunFolderError,
)
from jaxrl_cb.report import read_trials
from jaxrl_cb.space import draw_trials, in_json, parse_space, space_from_json
from jaxrl_cb.sweep_result import SweepResult
from jaxrl_cb.trainer import (
    EpochStopCallbackNoImprovement,
    EpochTrainCallback,
    EpochTrainCallbackSuccessiveHalving,
    TrainerCallbacks,
)

SETTINGS = tiny.TINY | tiny.SHORT | {"max_epochs": 3}


def test_a_grid_is_every_combination_in_order():
    space = {"gamma": [0.9, 0.99], "n_step": [1, 2, 3]}
    trials = draw_trials(space, None)
    assert trials == [{"gamma": g, "n_step": n} for g in (0.9, 0.99) for n in (1, 2, 3)]


def test_arrays_are_lists_of_values():
    space = {"learning_rate": np.array([1e-3, 1e-2]), "n_step": np.arange(1, 3)}
    trials = draw_trials(space, None)
    assert trials == [{"learning_rate": r, "n_step": n} for r in (1e-3, 1e-2) for n in (1, 2)]
    assert isinstance(trials[0]["n_step"], int)


def test_spaces_come_back_from_json():
    space = {"gamma": uniform(0.9, 1), "n_step": uniform(1, 3), "batch_size": log_uniform(8, 64)}
    space |= {"learning_rate": log_uniform(1e-4, 1e-2), "hidden_sizes": [[64], [64, 64]]}
    text = json.dumps({name: in_json(values) for name, values in space.items()})
    assert space_from_json(json.loads(text)) == space


def test_random_search_draws_what_the_distributions_say():
    space = {"gamma": uniform(0.9, 1.0), "learning_rate": log_uniform(1e-5, 1e-1)}
    space |= {"n_step": uniform(1, 3), "double": [True, False]}
    trials = draw_trials(space, 4_000, seed=1)
    assert trials == draw_trials(space, 4_000, seed=1)
    assert trials != draw_trials(space, 4_000, seed=2)
    gamma, rate, n_step, double = (np.array([t[name] for t in trials]) for name in space)
    assert 0.9 <= gamma.min() < 0.901
    assert 0.999 < gamma.max() <= 1.0
    assert abs(gamma.mean() - 0.95) < 0.002
    assert abs(np.log10(rate).mean() + 3) < 0.08  # its deviation is 1.15
    assert abs(np.mean(rate < 1e-4) - 0.25) < 0.03
    counts = np.bincount(n_step)
    assert set(n_step.tolist()) == {1, 2, 3}
    assert all(abs(count / 4_000 - 1 / 3) < 0.03 for count in counts[1:])
    assert abs(double.mean() - 0.5) < 0.04
    assert isinstance(trials[0]["n_step"], int)


def test_every_seed_of_a_trial_is_the_run_by_itself():
    space = {"learning_rate": [1e-3, 1e-2], "gamma": [0.9, 0.99], "n_step": [1, 2]}
    found = sweep("CartPole-v1", space, num_seeds=2, seed=3, **SETTINGS)
    assert [sorted({trial for trial, _ in group}) for group in found.groups] == [
        [0, 2, 4, 6],
        [1, 3, 5, 7],
    ]
    assert found.groups[0][:3] == [(0, 0), (0, 1), (2, 0)]
    assert len(found.results) == 2
    rows = found.rows()
    assert [(row["trial"], row["seed"]) for row in rows[:4]] == [(0, 3), (0, 4), (1, 3), (1, 4)]
    for index in (0, 3, 6):
        settings = found.trials[index].settings
        for own in range(2):
            alone = jaxrl_cb.train("CartPole-v1", seed=3 + own, **(SETTINGS | settings))
            row = rows[2 * index + own]
            assert row["score"] == alone.history[-1].mean[0]
            assert row["best_score"] == alone.best_score
            assert (row["epoch"], row["env_step"]) == (3, 240)
            for which, theirs in (("last", alone.policy), ("best", alone.best_policy)):
                ours = found.policy(index, which)[own].params["params"]
                for layer in ("head", "Dense_0"):
                    ours_layer, layer_alone = (
                        _layer(p, layer) for p in (ours, theirs.params["params"])
                    )
                    np.testing.assert_array_equal(ours_layer, layer_alone)


def test_algorithms_are_compared_in_one_sweep(tmp_path):
    space = {"algorithm": ["dqn", "munchausen_dqn"], "learning_rate": [1e-3, 1e-2]}
    path = tmp_path / "sweep"
    found = sweep("CartPole-v1", space, num_seeds=2, run_dir=path, **SETTINGS)
    assert [len(members) for members in found.groups] == [4, 4]
    names = [type(found.policy(index).algorithm.munchausen).__name__ for index in range(4)]
    assert names == ["NoneType", "NoneType", "Munchausen", "Munchausen"]
    alone = jaxrl_cb.train(
        "CartPole-v1", "munchausen_dqn", num_seeds=2, learning_rate=1e-2, **SETTINGS
    )
    np.testing.assert_array_equal(found.scores(3), alone.history[-1].mean)
    assert {run.algorithm for run in read_trials(path, "sweep")} == set(space["algorithm"])
    loaded = jaxrl_cb.load_policy(path / "group_1")
    assert loaded.algorithm == found.policy(2).algorithm
    with pytest.raises(ConfigError, match="algorithm='munch' is not one of"):
        sweep("CartPole-v1", {"algorithm": ["munch"]}, **SETTINGS)


def _layer(params, name):
    params = params if name in params else params["mlp"]
    return params[name]["kernel"]


def test_the_best_trial_is_that_of_the_highest_mean():
    found = sweep("CartPole-v1", {"learning_rate": [1e-5, 1e-2]}, num_seeds=3, **SETTINGS)
    means = [found.scores(index).mean() for index in range(2)]
    assert found.best.index == int(np.argmax(means))
    assert found.ranking == sorted(range(2), key=lambda index: -means[index])
    low, value, high = found.interval(0)
    assert low <= value <= high
    assert value == pytest.approx(means[0])
    assert f"trial {found.best.index}" in repr(found)


def test_numbers_of_the_state_share_programs_and_nothing_is_compiled_again(compiles):
    space = {"learning_rate": log_uniform(1e-4, 1e-2), "tau": uniform(0.01, 1.0)}
    space |= {"gamma": uniform(0.9, 0.99), "epsilon_final": [0.0, 0.1]}
    sweep("CartPole-v1", space, 2, **SETTINGS)
    compiles()
    found = sweep("CartPole-v1", space, 5, num_seeds=2, seed=9, **SETTINGS)
    assert compiles() == 0
    assert len(found.groups) == 1


def test_halving_compares_the_trials_of_all_groups():
    space = {"n_step": [1, 2, 3], "learning_rate": [1e-3, 1e-2]}
    plain = sweep("CartPole-v1", space, num_seeds=2, **SETTINGS)
    halving = EpochTrainCallbackSuccessiveHalving(first_rung=1, factor=3)
    found = sweep(
        "CartPole-v1", space, num_seeds=2, callbacks=TrainerCallbacks(halving), **SETTINGS
    )
    assert len(found.results) == 3

    def mean(index):  # after the first epoch
        return np.mean([plain.results[g].history[1].mean[row] for g, row in plain._places(index)])

    kept = set(sorted(range(6), key=lambda index: (-mean(index), index))[:2])
    for row in found.rows():
        expected = ("budget used", 3) if row["trial"] in kept else ("dropped", 1)
        assert (row["ended"], row["epoch"]) == expected
    kept_rows = [row for row in found.rows() if row["trial"] in kept]
    assert kept_rows == [row for row in plain.rows() if row["trial"] in kept]
    assert set(found.ranking[:2]) == kept


def test_each_seed_has_its_own_stop_callback():
    stop = EpochStopCallbackNoImprovement(patience=1)
    space = {"learning_rate": [1e-3, 1e-2], "n_step": [1, 2]}
    callbacks = TrainerCallbacks(epoch_stop_callback=stop)
    found = sweep("CartPole-v1", space, num_seeds=2, callbacks=callbacks, **SETTINGS)
    for row in found.rows():
        own = TrainerCallbacks(epoch_stop_callback=EpochStopCallbackNoImprovement(patience=1))
        settings = SETTINGS | {"learning_rate": row["learning_rate"], "n_step": row["n_step"]}
        alone = jaxrl_cb.train("CartPole-v1", seed=row["seed"], callbacks=own, **settings)
        assert (row["epoch"], row["ended"] == "stopped") == (alone.epoch, alone.stopped)


def test_a_folder_has_the_plan_the_table_and_a_run_folder_for_each_group(tmp_path):
    path = tmp_path / "sweep"
    space = {"learning_rate": log_uniform(1e-4, 1e-2), "n_step": [1, 2]}
    found = sweep("CartPole-v1", space, 4, num_seeds=2, run_dir=path, **SETTINGS)
    groups = {f"group_{g}" for g in range(len(found.results))}
    files = {"sweep.json", "trials.csv", "trials.png"}
    assert {entry.name for entry in path.iterdir()} == groups | files
    plan = json.loads((path / "sweep.json").read_text())
    assert space_from_json(plan["space"]) == space
    assert plan["trials"][1] == found.trials[1].settings
    rows = list(csv.DictReader(io.StringIO((path / "trials.csv").read_text())))
    assert len(rows) == 8
    for row, expected in zip(rows, found.rows(), strict=True):
        assert row == {name: str(value) for name, value in expected.items()}
    for number, members in enumerate(found.groups):
        assert jaxrl_cb.load_policy(path / f"group_{number}").num_seeds == len(members)
    with pytest.raises(RunFolderError, match="not an empty folder"):
        sweep("CartPole-v1", space, 4, num_seeds=2, run_dir=path, **SETTINGS)


class Fails(EpochTrainCallback):
    """Raises in the group and the epoch that are named, as a killed process would end there."""

    def __init__(self, num_members, epoch):
        self.num_members, self.epoch = num_members, epoch

    def callback(self, epoch, env_step, context):
        if epoch == self.epoch and len(context.population.trials) == self.num_members:
            raise RuntimeError("killed")

    def state_dict(self):
        return {}

    def _tostring_excludes(self):
        return ["num_members", "epoch"]


@pytest.mark.parametrize(("num_members", "epoch"), [(4, 2), (2, 2), (2, 3), (4, 1)])
def test_a_sweep_that_was_cut_off_goes_on_exactly(tmp_path, num_members, epoch):
    space = {"n_step": [1, 1, 2], "learning_rate": [1e-3]}
    options = {"num_seeds": 2, "checkpoint_every": 1}

    def callbacks(*more):
        return TrainerCallbacks([EpochTrainCallbackSuccessiveHalving(2, 2), *more])

    whole = sweep("CartPole-v1", space, callbacks=callbacks(Never()), num_seeds=2, **SETTINGS)
    path = tmp_path / "sweep"
    cut = callbacks(Fails(num_members, epoch))
    with pytest.raises(RuntimeError, match="killed"):
        sweep("CartPole-v1", space, callbacks=cut, run_dir=path, **(options | SETTINGS))
    resumed = sweep(
        *("CartPole-v1", space),
        callbacks=callbacks(Fails(num_members, -1)),
        run_dir=path,
        resume="must",
        **(options | SETTINGS),
    )
    assert resumed.rows() == whole.rows()
    for ours, theirs in zip(resumed.results, whole.results, strict=True):
        for a, b in zip(ours.history, theirs.history, strict=True):
            np.testing.assert_array_equal(a.returns, b.returns)


class DropsGroup(EpochTrainCallback):
    """Drops all seeds of the group of so many, before an epoch."""

    def callback(self, epoch, env_step, context):
        if epoch == 2 and len(context.population.trials) == 2:
            context.drop(context.running)


def test_a_group_that_is_dropped_where_it_was_just_saved_goes_on_exactly(tmp_path):
    space, options = {"n_step": [1, 1, 2]}, {"num_seeds": 2, "checkpoint_every": 1}
    options |= {"run_dir": tmp_path / "sweep", "callbacks": TrainerCallbacks(DropsGroup())}
    found = sweep("CartPole-v1", space, **options, **SETTINGS)
    ends = [(row["trial"], row["ended"], row["epoch"]) for row in found.rows()]
    assert ends == [
        (t, "dropped", 1) if t == 2 else (t, "budget used", 3) for t in (0, 0, 1, 1, 2, 2)
    ]
    again = sweep("CartPole-v1", space, resume="must", **options, **SETTINGS)
    assert again.rows() == found.rows()


class Never(EpochTrainCallback):
    """Does nothing."""

    def callback(self, epoch, env_step, context):
        pass


def test_only_the_same_sweep_goes_on_in_a_folder(tmp_path):
    path, space = tmp_path / "sweep", {"learning_rate": [1e-3, 1e-2]}
    with pytest.raises(RunFolderError, match="no sweep to resume"):
        sweep("CartPole-v1", space, run_dir=path, resume="must", **SETTINGS)
    sweep("CartPole-v1", space, run_dir=path, resume="auto", **SETTINGS)
    other = {"learning_rate": [1e-3, 2e-2]}
    with pytest.raises(CheckpointMismatchError, match="differs in space, trials"):
        sweep("CartPole-v1", other, run_dir=path, resume="auto", **SETTINGS)
    with pytest.raises(CheckpointMismatchError, match="num_seeds"):
        sweep("CartPole-v1", space, num_seeds=2, run_dir=path, resume="auto", **SETTINGS)


@pytest.mark.parametrize(
    ("space", "options", "error", "words"),
    [
        ({}, {}, ConfigTypeError, "expected a dict"),
        ([1], {}, ConfigTypeError, "expected a dict"),
        ({"learning_rte": [1.0]}, {}, ConfigError, "did you mean 'learning_rate'"),
        ({"gamma": []}, {}, ConfigTypeError, "expected a list of values"),
        ({"gamma": 0.9}, {}, ConfigTypeError, "expected a list of values"),
        ({"gamma": np.zeros(0)}, {}, ConfigTypeError, "expected a list of values"),
        ({"gamma": np.float32(0.9)}, {}, ConfigTypeError, "expected a list of values"),
        ({"gamma": [0.9]}, {"seeds_at_once": 0}, ConfigError, "seeds_at_once=0"),
        ({}, {"seeds_at_once": 1, "num_trials": 2}, ConfigTypeError, "expected a dict"),
        ({"gamma": uniform(0.9, 1.0)}, {}, ConfigError, "say num_trials"),
        ({"seed": [1, 2]}, {}, ConfigError, "seed is the same for all trials"),
        ({"max_epochs": [1, 2]}, {}, ConfigError, "max_epochs is the same"),
        ({"gamma": [2.0]}, {}, ConfigError, "gamma"),
        ({"gamma": [0.9]}, {"num_trials": 0}, ConfigError, "num_trials=0"),
        ({"gamma": [0.9]}, {"num_seeds": 0}, ConfigError, "num_seeds=0"),
        ({"gamma": [0.9]}, {"resume": "auto"}, ConfigError, "need a run_dir"),
        ({"num_envs": [4, 512]}, {"epoch_num_steps": 512}, ConfigError, "buffer_size"),
    ],
)
def test_what_cannot_be_swept(space, options, error, words):
    with pytest.raises(error, match=words):
        sweep("CartPole-v1", space, **(SETTINGS | options))


def test_trials_of_different_lengths_are_refused():
    with pytest.raises(ConfigError, match="trials would have epoch_num_steps of"):
        sweep("CartPole-v1", {"num_envs": [4, 512]}, verbose=False)


@pytest.mark.parametrize(("low", "high"), [(2.0, 1.0), (math.nan, 1.0)])
def test_distributions_have_ends(low, high):
    with pytest.raises(ConfigError, match=r"high=|low="):
        uniform(low, high)
    with pytest.raises(ConfigError, match="low="):
        log_uniform(0.0, 1.0)


def test_what_does_not_fit_into_memory_is_refused_or_trained_in_waves(monkeypatch, compiles):
    space = {"n_step": [1, 2], "gamma": [0.9, 0.95, 0.99]}
    whole = sweep("CartPole-v1", space, num_seeds=2, **SETTINGS)
    compiles()
    started = []
    sweep("CartPole-v1", space, num_seeds=2, on_start=started.extend, **SETTINGS)
    assert [trainer.params.num_seeds for trainer in started] == [6, 6]
    limit = sum(trainer.memory_estimate().total for trainer in started) * 11 // 24  # 5.5 of 12
    with monkeypatch.context() as patch:
        patch.setattr("jaxrl_cb.trainer.memory.available_bytes", lambda devices: limit)
        words = r"^6 trials of 2 seeds need .* a seed; .* enough for 5 seeds; .* seeds_at_once=4"
        with pytest.raises(MemoryEstimateError, match=words):
            sweep("CartPole-v1", space, num_seeds=2, **SETTINGS)
    assert compiles() == 0
    found = sweep("CartPole-v1", space, num_seeds=2, seeds_at_once=5, **SETTINGS)
    assert found.rows() == whole.rows()
    trials = [sorted({trial for trial, _ in members}) for members in found.groups]
    assert trials == [[0, 1], [2], [3], [4, 5]]
    assert all(result.state.buffer is None for result in found.results)


def test_many_seeds_of_one_setting_are_trained_in_waves(tmp_path):
    """Three seeds, two at a time: as if they were trained together; also where trials are split."""
    together = jaxrl_cb.train("CartPole-v1", num_seeds=3, **SETTINGS)
    path = tmp_path / "sweep"
    found = sweep("CartPole-v1", {}, num_seeds=3, seeds_at_once=2, run_dir=path, **SETTINGS)
    assert found.groups == [[(0, 0), (0, 1)], [(0, 2)]]
    np.testing.assert_array_equal(found.scores(0), together.history[-1].mean)
    ours, theirs = found.policy(0), together.best_policy
    for a, b in zip(*map(jax.tree.leaves, (ours.params, theirs.params)), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(ours.epsilon, theirs.epsilon)
    (run,) = read_trials(path, "sweep")
    np.testing.assert_array_equal(run.scores, found.scores(0))
    assert run.outcome["epoch"] == [3, 3, 3]
    space = {"gamma": [0.9, 0.95]}
    two = sweep("CartPole-v1", space, num_seeds=3, seeds_at_once=2, **SETTINGS)
    assert [len(members) for members in two.groups] == [2, 1, 2, 1]
    assert two.rows() == sweep("CartPole-v1", space, num_seeds=3, **SETTINGS).rows()


@pytest.mark.parametrize("epoch", [1, 3])
def test_waves_go_on_exactly(tmp_path, epoch):
    space, options = {"n_step": [1, 2]}, {"num_seeds": 2, "checkpoint_every": 1}
    options |= {"seeds_at_once": 2, "run_dir": tmp_path / "sweep"}
    whole = sweep("CartPole-v1", space, num_seeds=2, **SETTINGS)

    class FailsLate(Fails):
        """In the second wave only."""

        def callback(self, epoch, env_step, context):
            if context.population.trials[0] == 1:
                super().callback(epoch, env_step, context)

    with pytest.raises(RuntimeError, match="killed"):
        sweep(
            "CartPole-v1",
            space,
            callbacks=TrainerCallbacks(FailsLate(2, epoch)),
            **options,
            **SETTINGS,
        )
    again = TrainerCallbacks(FailsLate(2, -1))
    found = sweep("CartPole-v1", space, callbacks=again, resume="auto", **options, **SETTINGS)
    assert found.rows() == whole.rows()


def test_a_result_of_some_trials_knows_them_by_their_index():
    """As Ctrl-C in a notebook leaves it: the second group of two has not begun."""
    space = {"gamma": [0.9, 0.99], "n_step": [1, 2]}
    whole = sweep("CartPole-v1", space, num_seeds=2, **SETTINGS)
    part = SweepResult(whole.trials, whole.results[:1], whole.groups[:1], 2, 0)
    assert [trial.index for trial in part.trials] == [0, 2]
    assert set(part.ranking) == {0, 2}
    assert part.best.index == part.ranking[0]
    np.testing.assert_array_equal(part.scores(2), whole.scores(2))
    assert [row["trial"] for row in part.rows()] == [0, 0, 2, 2]
    with pytest.raises(
        ConfigError, match="trial=1 is none of the sweep's, or not all of its seeds"
    ):
        part.scores(1)
    none = SweepResult(whole.trials, [], [], 2, 0)
    assert "no trial has begun" in repr(none)
    with pytest.raises(JaxrlError, match="no trial of the sweep has begun"):
        _ = none.best


def test_a_sweep_that_cannot_go_on_changes_nothing(tmp_path):
    space, path, started = {"gamma": [0.9, 0.99]}, tmp_path / "sweep", []
    options = {"run_dir": path, "on_start": started.append, "checkpoint_every": 1}
    halving = TrainerCallbacks(EpochTrainCallbackSuccessiveHalving(1, 2))
    sweep("CartPole-v1", space, callbacks=halving, **options, **SETTINGS)
    plan = (path / "sweep.json").read_text()
    assert len(started) == 1
    with pytest.raises(CheckpointMismatchError):
        sweep("CartPole-v1", space, resume="auto", **options, **(SETTINGS | {"max_epochs": 9}))
    assert (path / "sweep.json").read_text() == plan
    assert len(started) == 1


def test_a_report_shows_the_trials_of_the_waves_so_far(tmp_path):
    path = tmp_path / "sweep"
    space = {"gamma": [0.9, 0.99]}
    sweep("CartPole-v1", space, num_seeds=2, seeds_at_once=2, run_dir=path, **SETTINGS)
    shutil.rmtree(path / "group_1")
    assert [run.name for run in read_trials(path, "s")] == ["s, trial 0"]


def test_a_sweep_may_go_on_for_more_epochs(tmp_path):
    space, options = {"gamma": [0.9, 0.99]}, SETTINGS | {"learning_rate_schedule": "constant"}
    options |= {"epsilon_decay_steps": 100}
    whole = sweep("CartPole-v1", space, **options)
    path = tmp_path / "sweep"
    sweep("CartPole-v1", space, run_dir=path, **(options | {"max_epochs": 1}))
    longer = sweep("CartPole-v1", space, run_dir=path, resume="must", **options)
    assert longer.rows() == whole.rows()
    assert json.loads((path / "sweep.json").read_text())["shared"]["max_epochs"] == 3


def test_lines_tell_how_it_goes(capsys):
    sweep("CartPole-v1", {"n_step": [1, 2]}, num_seeds=2, **(SETTINGS | {"verbose": True}))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 trials of 2 seeds: ")
    assert "a seed; " in lines[0]
    assert [line.split(":")[0] for line in lines[1:]] == [f"epoch {epoch}" for epoch in range(4)]
    assert "4/4 seeds run, best trial" in lines[-1]


def test_spaces_on_the_command_line_and_in_files():
    texts = ["learning_rate=log_uniform(1e-4, 1e-2)", "n_step=1,3", "double=true,False"]
    texts += ["network = mlp, cnn", "hidden_sizes=[64],[128,128]", "gamma=uniform(0.9,1)"]
    space = {
        "learning_rate": log_uniform(1e-4, 1e-2),
        "n_step": [1, 3],
        "double": [True, False],
        "network": ["mlp", "cnn"],
        "hidden_sizes": [[64], [128, 128]],
        "gamma": uniform(0.9, 1),
    }
    assert parse_space(texts) == space
    file = {"learning_rate": {"log_uniform": [1e-4, 1e-2]}, "n_step": [1, 3]}
    assert space_from_json(file) == {name: space[name] for name in ("learning_rate", "n_step")}


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["gamma"], "'gamma' is no setting and its values"),
        (["gamma="], "is no setting and its values"),
        (["=1"], "is no setting and its values"),
        (["gamma=0.9", "gamma=0.8"], "again"),
        (["gamma=uniform(0.9)"], "is no distribution"),
        (["gamma=uniform(0.9,x)"], "high="),
    ],
)
def test_what_is_no_space(texts, words):
    with pytest.raises(ConfigError, match=words):
        parse_space(texts)


def test_files_that_are_no_space():
    with pytest.raises(ConfigTypeError, match="expected an object"):
        space_from_json([1])
    with pytest.raises(ConfigError, match="is no distribution"):
        space_from_json({"gamma": {"normal": [0, 1]}})
