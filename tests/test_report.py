"""The report on runs: its page, its table and its pictures."""

import base64
import csv
import html.parser
import io
import re
import shutil

import numpy as np
import pytest
import tiny

import jaxrl_cb
from jaxrl_cb.display import Display
from jaxrl_cb.errors import ConfigError, ConfigTypeError, RunFolderError
from jaxrl_cb.plotting import plot_run
from jaxrl_cb.report import read_run, write_report
from jaxrl_cb.trainer import EpochStopCallbackRewardThreshold, TrainerCallbacks

SETTINGS = tiny.TINY | tiny.SHORT | {"max_epochs": 2}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs, one with a stop and a name that is HTML."""
    base = tmp_path_factory.mktemp("runs")
    stop = TrainerCallbacks(epoch_stop_callback=EpochStopCallbackRewardThreshold(0.0))
    first, second = base / "first", base / "<b>&second"
    jaxrl_cb.train("CartPole-v1", run_dir=first, num_seeds=3, **SETTINGS)
    jaxrl_cb.train(
        "CartPole-v1", run_dir=second, num_seeds=2, callbacks=stop, learning_rate=1e-2, **SETTINGS
    )
    return first, second


class Page(html.parser.HTMLParser):
    """Cells by table, pictures, and whether all that was opened is closed."""

    EMPTY = ("meta", "img")

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.pictures, self.addresses = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in self.EMPTY:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        for name, value in attrs:
            if name in ("src", "href"):
                self.addresses.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


def test_the_page_needs_nothing_else_and_says_what_the_runs_came_to(runs, tmp_path):
    page, found = write_report(runs, tmp_path / "report")
    text = page.read_text()
    parsed = Page(text)
    assert not parsed.open
    assert len(parsed.addresses) == 3
    for address in parsed.addresses:
        kind, _, data = address.partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert b"<svg" in base64.b64decode(data)
    assert "<script" not in text
    assert "http" not in re.sub(r'src="[^"]*"', "", text)
    outcomes, statistics, better, differences, machines = parsed.tables
    assert outcomes[1][:4] == ["first", "dqn", "3", "0 of 3"]
    assert outcomes[2][:5] == ["<b>&second", "dqn", "2", "2 of 2", "80"]
    assert "<b>&second" not in text
    scores = read_run(runs[0], "x").scores
    assert statistics[1][1] == str(found["CartPole-v1"].summaries["first"].mean)
    assert found["CartPole-v1"].summaries["first"].mean.value == pytest.approx(scores.mean())
    assert "optimality gap" in statistics[0]
    assert better[1][0] == "first above <b>&second"
    assert {row[0] for row in differences[1:]} == {"learning_rate", "num_seeds"}
    assert "jax" in machines[1][2]


def test_the_table_and_the_pictures_lie_beside_the_page(runs, tmp_path):
    page, found = write_report(runs, tmp_path / "report")
    names = {entry.name for entry in page.parent.iterdir()}
    pictures = {"learning_curves_0.svg", "profiles_0.svg", "scores_0.svg"}
    assert names == pictures | {"report.html", "scores.csv"}
    rows = list(csv.DictReader(io.StringIO((page.parent / "scores.csv").read_text())))
    assert [row["name"] for row in rows] == ["first", "<b>&second"]
    own = found["CartPole-v1"].summaries["first"]
    assert float(rows[0]["iqm"]) == own.iqm.value
    assert float(rows[0]["iqm_high"]) == own.iqm.high
    again, _ = write_report(runs, tmp_path / "report")  # over the one before
    assert again == page


def test_environments_are_told_apart(runs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(runs[0], other)
    config = (other / "config.json").read_text()
    (other / "config.json").write_text(config.replace("CartPole-v1", "Catch-bsuite"))
    policy = (other / "policy.json").read_text()
    threshold = re.compile(r'"reward_threshold": [^,]+')
    (other / "policy.json").write_text(threshold.sub('"reward_threshold": null', policy))
    page, found = write_report([runs[0], other], tmp_path / "report")
    assert set(found) == {"CartPole-v1", "Catch-bsuite"}
    assert found["Catch-bsuite"].summaries["other"].optimality_gap is None  # it has no threshold
    assert found["CartPole-v1"].summaries["first"].optimality_gap is not None
    assert len(Page(page.read_text()).addresses) == 6


def test_a_run_that_is_not_finished_is_told_of_as_far_as_it_is(runs, tmp_path):
    unfinished = tmp_path / "unfinished"
    shutil.copytree(runs[0], unfinished)
    (unfinished / "policy.json").unlink()
    page, found = write_report([unfinished], tmp_path / "report")
    assert Page(page.read_text()).tables[0][1][3] == "not known yet"
    assert found["CartPole-v1"].summaries["unfinished"].optimality_gap is None


def test_a_seed_that_ended_with_nan_has_no_score_to_compare(runs, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(runs[0], broken)
    rows = (broken / "metrics.jsonl").read_text()
    rows = re.sub(r'("test/return_mean": \[)[^,]+,', r"\1null,", rows)
    (broken / "metrics.jsonl").write_text(rows)
    assert np.isnan(read_run(broken, "x").scores[0])
    page, found = write_report([broken], tmp_path / "report")
    assert found == {}
    assert "no statistics" in page.read_text()


def test_runs_of_the_same_name_are_called_by_their_paths(runs, tmp_path):
    shutil.copytree(runs[0], tmp_path / "a" / "run")
    shutil.copytree(runs[0], tmp_path / "b" / "run")
    _, found = write_report([tmp_path / "a" / "run", tmp_path / "b" / "run"], tmp_path / "report")
    assert set(found["CartPole-v1"].summaries) == {
        str(tmp_path / "a" / "run"),
        str(tmp_path / "b" / "run"),
    }


def test_of_a_sweep_the_best_trials_are_shown(tmp_path, monkeypatch):
    space = {"learning_rate": [1e-3, 1e-2], "n_step": [1, 2]}
    path = tmp_path / "sweep"
    found = jaxrl_cb.sweep("CartPole-v1", space, num_seeds=2, run_dir=path, **SETTINGS)
    monkeypatch.setattr("jaxrl_cb.report.MOST_TRIALS", 3)
    page, comparisons = write_report([path], tmp_path / "report")
    names = [f"sweep, trial {index}" for index in found.ranking[:3]]
    summaries = comparisons["CartPole-v1"].summaries
    assert list(summaries) == names
    for name, index in zip(names, found.ranking, strict=False):
        assert summaries[name].mean.value == pytest.approx(found.scores(index).mean())
    differences = Page(page.read_text()).tables[3]
    assert differences[0][1:] == names
    rows = {row[0]: row[1:] for row in differences[1:]}
    expected = [str(found.trials[index].settings["n_step"]) for index in found.ranking[:3]]
    assert rows.get("n_step", expected) == expected
    assert set(rows) <= {"learning_rate", "n_step"}


def test_many_seeds_are_shown_together(runs, tmp_path, monkeypatch, capsys):
    """Bands in the picture, and a row for each way to end in the table."""
    few = plot_run(runs[0]).read_bytes()
    monkeypatch.setattr("jaxrl_cb.plotting.MOST_SEEDS", 2)
    monkeypatch.setattr("jaxrl_cb.display.MOST_SEEDS", 2)
    monkeypatch.setenv("COLUMNS", "160")
    assert plot_run(runs[0]).read_bytes() != few
    stop = TrainerCallbacks(epoch_stop_callback=lambda mean, context: context.seed == 1)
    result = jaxrl_cb.train("CartPole-v1", num_seeds=3, callbacks=stop, **SETTINGS)
    Display().summary(result, tmp_path)
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert [row[:4] for row in cells] == [
        ["budget used", "2", "2 (2 to 2)", "160 (160 to 160)"],
        ["stopped", "1", "1 (1 to 1)", "80 (80 to 80)"],
    ]
    last = [result.history[-1].mean[index] for index in (0, 2)]
    assert cells[0][5] == f"{np.median(last):.1f} ({min(last):.1f} to {max(last):.1f})"


def test_wrong_folders(runs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="it is not the folder of a run"):
        write_report([tmp_path], tmp_path / "report")
    with pytest.raises(ConfigError, match="is a file"):
        write_report(runs, tmp_path / "file")
    with pytest.raises(ConfigError, match="twice; leave one out"):
        write_report([runs[0], runs[0]], tmp_path / "report")
    with pytest.raises(ConfigTypeError, match="list of run folders"):
        write_report([], tmp_path / "report")
    assert not (tmp_path / "report").exists()
