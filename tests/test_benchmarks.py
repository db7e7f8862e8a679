"""Benchmarks run, and refuse to compare different work. Their figures are not looked at here."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import accelerator  # noqa: E402
import against_peers  # noqa: E402
import algorithms  # noqa: E402
import algorithms_table  # noqa: E402
import time_to_solve  # noqa: E402


def run(tmp_path, script, *arguments):
    """What a benchmark prints, and its JSON."""
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "found.json")],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return done.stdout, json.loads((tmp_path / "found.json").read_text())


@pytest.mark.slow
def test_contenders_take_turns_at_the_same_work(tmp_path):
    picture = tmp_path / "peers.png"
    sizes = ["cartpole", "--smallest", "--rounds", "2", "--png", str(picture)]
    printed, found = run(tmp_path, "against_peers.py", *sizes)
    assert picture.stat().st_size > 0
    assert [row["name"] for row in found["rows"]] == ["jaxrl_cb", "matmul_floor"]
    assert [len(row["seconds"]) for row in found["rows"]] == [2, 2]
    order = [line.split(":")[0] for line in printed.splitlines() if line.startswith("round")]
    assert order[:4] == [
        *("round 0, jaxrl_cb", "round 0, matmul_floor"),
        *("round 1, matmul_floor", "round 1, jaxrl_cb"),
    ]


@pytest.mark.slow
def test_one_command_runs_what_is_worth_measuring_on_an_accelerator(tmp_path):
    """One of its steps; the scripts of the others have tests of their own."""
    few = ["throughput_seeds"]
    command = [sys.executable, str(BENCHMARKS / "accelerator.py"), str(tmp_path), "--smallest"]
    subprocess.run([*command, "--only", *few], timeout=600, check=True, capture_output=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{name}.{kind}" for name in few for kind in ("json", "png", "txt")
    )
    seeds = json.loads((tmp_path / "throughput_seeds.json").read_text())["rows"]
    assert [row["num_seeds"] for row in seeds] == [1, 2]
    assert set(seeds[0]["env_steps_per_second"]) == {"environment", "learning", "callbacks"}


def test_every_step_on_an_accelerator_is_given_what_its_script_takes():
    """Options that a script does not know, and a file that is not there, would show only there."""
    parsed = ["out", "--python", "flashbax=f", "--python", "rejax=r", "--purejaxrl", "p"]
    for sizes in ([], ["--smallest"]):
        steps = accelerator.steps(accelerator.parser().parse_args([*parsed, *sizes]))
        for script, *words in steps.values():
            text = (BENCHMARKS / script).read_text()
            missing = [w for w in words if w.startswith("--") and f'"{w}"' not in text]
            assert not missing, script


def test_the_table_of_the_readme_is_that_of_the_results():
    rows = algorithms_table.rows_of(algorithms_table.paths())
    timed = algorithms_table.rows_of(algorithms_table.paths("wall_time"))
    readme = (BENCHMARKS.parent / "README.md").read_text().splitlines()
    lines = algorithms_table.table(rows, timed)
    first = readme.index(lines[0])
    assert readme[first : first + len(lines) + 1] == [*lines, ""]


def test_results_of_algorithms_are_of_the_presets_that_there_are():
    """Who changes a preset measures it anew; a setting that is new since then does not matter."""
    for path in algorithms_table.paths():
        found = json.loads(path.read_text())
        command = found["command"]
        named = command[command.index("--settings") + 1] if "--settings" in command else "{}"
        for env, configs in found["configs"].items():
            for name, config in configs.items():
                own = json.loads(json.dumps(algorithms.config_of(env, name, json.loads(named))))
                assert config == {key: own[key] for key in config}, (path, env, name)
        measured = {(row["env"], row["algorithm"]) for row in found["rows"]}
        assert measured == {
            (env, name) for env, all_of in found["configs"].items() for name in all_of
        }


def test_a_cell_counts_seeds_steps_and_the_middle_half():
    """Of eight seeds two were not confirmed in time, and two at each end are cut from the mean."""
    steps = [9_600, 9_600, 9_600, 12_800, 12_800, 12_800, 51_200, None]
    finals = [500, 480, 470, 490, 500, 500, 460, 9]
    row = {"env": "CartPole-v1", "algorithm": "dqn", "env_step": 102_400}
    rows = [
        row | {"seed": seed, "confirmed_env_step": step, "final": final}
        for seed, (step, final) in enumerate(zip(steps, finals, strict=True))
    ]
    text = algorithms_table.cell(rows)
    assert text.startswith("6 and 5 of 8, 12.8 k; 485 [")  # of 470, 480, 490 and 500
    timed = [{"seconds": 4.0, "confirmed_env_step": 9_600}, {"seconds": 6.4}, {"seconds": 99.0}]
    timed[1]["confirmed_env_step"], timed[2]["confirmed_env_step"] = 12_800, None
    assert algorithms_table.cell(rows, timed).startswith("6 and 5 of 8, 12.8 k, 6.4 s; 485 [")
    timed[1]["confirmed_env_step"] = None
    assert algorithms_table.cell(rows, timed).startswith("6 and 5 of 8, 12.8 k, never; 485 [")


class Other(against_peers.Contender):
    """Says that it has trained half as often as it should."""

    def __init__(self, work):
        self.name, self.work = "other", work
        self._process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, text=True)

    def _read(self):
        work = self.work
        same = {key: work[key] for key in ("env_steps", "batch_size", "hidden_sizes", "num_seeds")}
        return same | {"updates": 24_500, "seconds": 1.0}


def test_other_work_is_not_compared():
    other = Other(against_peers.WORKS["cartpole"])
    with pytest.raises(RuntimeError, match=r"'updates': \(24500, 49000\)"):
        other.run(0)
    other.close()


@pytest.mark.slow
def test_callbacks_are_compared_with_the_same_steps(tmp_path):
    sizes = ["--epoch-seconds", "0.01", "0.05", "--repeats", "3"]
    picture = tmp_path / "overhead.png"
    _, found = run(tmp_path, "callback_overhead.py", *sizes, "--png", str(picture))
    for row in found["rows"]:
        off = abs(row["vector_steps"] * row["epochs"] - found["vector_steps"])
        assert off <= row["vector_steps"]
    assert [row["epoch"] for row in found["rows"]] == ["0.01 s", "0.05 s"]
    assert found["rows"][0]["epochs"] > found["rows"][1]["epochs"] == 1
    assert picture.stat().st_size > 0


@pytest.mark.slow
def test_replays_of_both_kinds_of_observations_are_read_alike(tmp_path):
    sizes = ["--capacities", "640", "1280", "--steps", "50", "--rounds", "2"]
    picture = tmp_path / "replay.png"
    _, found = run(tmp_path, "replay.py", *sizes, "--png", str(picture))
    rows = found["rows"]
    assert [(row["capacity"], row["dtype"]) for row in rows] == [
        *[(640, "bool"), (640, "float32")] * 2,
        *[(1280, "bool"), (1280, "float32")] * 2,
    ]
    assert [row["buffer"] for row in rows[1:3]] == ["jaxrl_cb", "jaxrl_cb_prioritised"]
    # 128 drawn of 400 elements twice, a tenth of them ones; rewards of 1, discounts of 0.99
    expected = 128 * (2 * 400 * 0.1 + 1 + 0.99)
    assert [row["mean_of_what_was_read"] for row in rows] == pytest.approx([expected] * 8, rel=0.05)
    assert picture.stat().st_size > 0


@pytest.mark.slow
def test_a_cold_process_solves(tmp_path):
    picture = tmp_path / "solve.png"
    arguments = ["--only", "jaxrl_cb", "--seeds", "1", "--png", str(picture)]
    printed, found = run(tmp_path, "time_to_solve.py", *arguments)
    [row] = found["rows"]
    [once] = row["runs"]
    assert once["scores"][-1] >= 475
    assert row["holds_seconds"] == once["total"] > once["import"] + once["compile"]
    assert "| jaxrl_cb |" in printed
    assert picture.stat().st_size > 0


@pytest.mark.parametrize(
    ("scores", "first", "holds"),
    [
        ([20, 480, 500], 2.0, 2.0),
        ([480, 474.9, 475], 1.0, 3.0),
        ([480, 500, 300], 1.0, float("inf")),
        ([9, 9, 9], float("inf"), float("inf")),
    ],
)
def test_solved_is_the_first_test_and_the_one_that_lasts(scores, first, holds):
    told = {"seconds": [1.0, 2.0, 3.0], "env_steps": [10, 20, 30], "scores": scores}
    found = time_to_solve.solved(told)
    assert (found["first"]["seconds"], found["holds"]["seconds"]) == (first, holds)
    assert found["final_score"] == scores[-1]


def test_a_seed_that_never_solves_counts_as_infinitely_long():
    parts = {"import": 1.0, "compile": 2.0, "total": 9.0}
    runs = [
        {"seed": seed, **parts, **time_to_solve.solved(told)}
        for seed, told in enumerate(
            {"seconds": [5.0 + seed], "env_steps": [100 * seed], "scores": [score]}
            for seed, score in enumerate((500, 100, 500, 100, 100))
        )
    ]
    found = time_to_solve.medians(runs)
    assert (found["held"], found["num_runs"], found["total"]) == (2, 5, 9.0)
    assert found["first_seconds"] == float("inf")
    assert time_to_solve.medians(runs[:3])["first_seconds"] == 7.0


@pytest.mark.slow
def test_many_seeds_are_compared_with_those_that_do_not_stop(tmp_path):
    sizes = ["--seeds", "2", "--max-epochs", "2", "--alone", "1", "--separate", "0"]
    _, found = run(tmp_path, "seeds.py", *sizes)
    stopping, whole = found["rows"]
    assert (whole["seed_epochs"], whole["stopped"]) == (4, 0)
    assert stopping["seed_epochs"] <= 4
    assert found["equal"] == 1


@pytest.mark.slow
def test_a_sweep_with_halving_is_compared_with_the_whole(tmp_path):
    sizes = ["--trials", "2", "--seeds", "1", "--max-epochs", "2", "--first-rung", "1"]
    _, found = run(tmp_path, "halving.py", *sizes, "--factor", "2", "--fresh", "1")
    halving, whole = found["rows"]
    assert (halving["seed_epochs"], whole["seed_epochs"]) == (3, 4)
    assert halving["best"] in (0, 1)
    assert halving["fresh_score"] > 0


@pytest.mark.slow
def test_pqn_does_the_work_that_is_compared(tmp_path):
    work = ["--env-steps", "4096", "--rounds", "1", "--seeds", "2"]
    _, found = run(tmp_path, "pqn.py", *work)
    (row,) = found["rows"]
    assert (row["name"], len(row["seconds"]), len(row["curve"])) == ("jaxrl_cb", 1, 2)
    assert row["env_steps_per_second"] == pytest.approx(2 * 4096 / row["seconds"][0])


@pytest.mark.slow
def test_trees_of_all_widths_are_measured(tmp_path):
    _, found = run(tmp_path, "sum_trees.py", "--leaves", "640", "--rounds", "1")
    names = [row["branches"] for row in found["rows"]]
    assert names == [2, 4, 8, 16, 32, 64, "cumulative sums"]
    assert all(row["us_per_step"] > 0 for row in found["rows"])


@pytest.mark.slow
def test_algorithms_are_run_to_their_end_and_go_on(tmp_path):
    settings = {"max_epochs": 2, "epoch_num_steps": 320, "num_test_episodes": 2, "batch_size": 16}
    arguments = ["CartPole-v1", "--algorithms", "dqn", "--seeds", "2"]
    arguments += ["--runs", str(tmp_path / "runs"), "--settings", json.dumps(settings)]
    _, found = run(tmp_path, "algorithms.py", *arguments)
    assert [(row["seed"], row["env_step"]) for row in found["rows"]] == [(1000, 640), (1001, 640)]
    assert found["configs"]["CartPole-v1"]["dqn"].items() >= settings.items()
    again = run(tmp_path, "algorithms.py", *arguments, "--gymnasium", "3")[1]  # of ended runs
    same = ("final", "confirmed_env_step")
    assert [[r[n] for n in same] for r in again["rows"]] == [
        [r[n] for n in same] for r in found["rows"]
    ]
    real = [row["gymnasium"] for row in again["rows"]]
    assert all(8 <= mean <= 500 for mean in real)  # steps of an episode
    assert again["summaries"][0]["gymnasium_reaches"] == (real[0] >= 475) + (real[1] >= 475)
    seconds = [[row["seconds"] for row in part["rows"]] for part in (found, again)]
    assert seconds[0][0] > 0
    assert seconds[1] == [None, None]  # nothing was trained


def test_a_seed_ends_where_its_return_was_confirmed_if_asked_to():
    context = SimpleNamespace(env_step=640, evaluate=lambda episodes: 480.0)
    for stops in (False, True):
        notes = algorithms.Notes(475.0)
        notes.stops = stops
        assert not notes.should_stop(100.0, context)
        assert notes.should_stop(475.0, context) == stops
        assert notes.at == 640


def test_a_return_that_was_never_confirmed_counts_as_infinitely_late():
    rows = [
        {"env": "CartPole-v1", "algorithm": "dqn", "confirmed_env_step": at, "final": final}
        | {"train_seconds": 1.0}
        for at, final in ((None, 100.0), (None, 480.0), (9_600, 500.0), (60_000, 475.0))
    ]
    found = algorithms.summary(rows)
    assert found["confirmed_env_step_median"] is None
    assert (found["confirmed_within"], found["final_reaches"]) == (1, 3)
    assert found["final_iqm"][1] == pytest.approx((480 + 475) / 2)  # 100 and 500 are left out
    assert algorithms.summary(rows[1:])["confirmed_env_step_median"] == 60_000
