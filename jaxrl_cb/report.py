"""A report on runs: tables, pictures, and one page of HTML that needs nothing else."""

import base64
import csv
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrl_cb.errors import ConfigError, ConfigTypeError, shown
from jaxrl_cb.files import checked_path, parse_json, read_text, reading, writing
from jaxrl_cb.plotting import Curve, comparison_axes, new_figure, read_curve
from jaxrl_cb.run_folder import OUTCOME, read_config
from jaxrl_cb.scores import Comparison, compare, last_of
from jaxrl_cb.sweep_folder import PLAN, group_path, is_sweep, read_plan

PAGE = "report.html"
TABLE = "scores.csv"
MOST_TRIALS = 10
"""Of a sweep, that are shown."""


class Run(NamedTuple):
    """What a report tells of a run folder."""

    name: str
    algorithm: str
    first_seed: int
    settings: dict[str, Any]
    versions: dict[str, Any]
    curve: Curve
    outcome: dict[str, Any]  # per seed lists of policy.json; empty before the first is written

    @property
    def scores(self) -> np.ndarray:
        """[S] mean return of each seed's last test."""
        return last_of(self.curve.mean)


def read_run(run_dir: Path, name: str) -> Run:
    """Reads a run folder, finished or not.

    Raises:
        RunFolderError: it is not one, or has no test yet.
    """
    curve = read_curve(run_dir)
    _, algorithm, config = read_config(run_dir)
    versions, outcome = (_read(run_dir / file) for file in ("versions.json", "policy.json"))
    return Run(name, algorithm, config.trainer.seed, config.flat(), versions, curve, outcome)


def read_trials(sweep_dir: Path, name: str) -> list[Run]:
    """The best trials of a sweep's folder as runs, at most `MOST_TRIALS`, of those that began.

    Raises:
        RunFolderError: it is not one, or a group that began has no test yet.
    """
    plan = read_plan(sweep_dir)
    with reading(sweep_dir / PLAN):
        num_seeds, trials = int(plan["num_seeds"]), list(plan["trials"])
        groups = [[(int(trial), int(own)) for trial, own in group] for group in plan["groups"]]
    place = {member: (g, row) for g, group in enumerate(groups) for row, member in enumerate(group)}
    paths = [group_path(sweep_dir, number) for number in range(len(groups))]
    begun = [g for g, path in enumerate(paths) if (path / "metrics.jsonl").is_file()] or [0]
    whole = {number: read_run(paths[number], "") for number in begun}  # others are of later waves
    runs = [
        _trial(whole, [place[index, own] for own in range(num_seeds)], settings)._replace(
            name=f"{name}, trial {index}"
        )
        for index, settings in enumerate(trials)
        if all(place[index, own][0] in whole for own in range(num_seeds))
    ]

    def worth(run: Run) -> tuple[bool, float]:
        mean = float(np.mean(run.scores))
        return any(run.outcome.get("dropped", [])), np.inf if np.isnan(mean) else -mean

    return sorted(runs, key=worth)[:MOST_TRIALS]


def _trial(groups: dict[int, Run], places: list[tuple[int, int]], settings: dict[str, Any]) -> Run:
    """A trial, given group and row of each of its seeds.

    They are in more than one group where its seeds were trained in waves.
    """
    first = groups[places[0][0]]
    longest = max((groups[group].curve for group, _ in places), key=lambda own: len(own.steps))

    def column(name: str, group: int, row: int) -> np.ndarray:
        values = getattr(groups[group].curve, name)[:, row]
        padding = np.full(len(longest.steps) - len(values), np.nan)  # its wave ended before
        return np.concatenate([values, padding])

    names = ("mean", "std", "eps")
    arrays = {name: np.stack([column(name, *place) for place in places], 1) for name in names}
    known = [name for name in OUTCOME if all(name in groups[group].outcome for group, _ in places)]
    return first._replace(
        settings=first.settings | settings | {"num_seeds": len(places)},
        curve=longest._replace(**arrays),
        outcome={n: [groups[group].outcome[n][row] for group, row in places] for n in known},
    )


def write_report(run_dirs: Sequence[Path], output: Path) -> tuple[Path, dict[str, Comparison]]:
    """Writes the report on one or more runs to a folder; of a sweep, on its best trials.

    Runs of different environments are told apart, as their returns cannot be compared. A seed's
    score is the mean return of its last test.

    Args:
        run_dirs: folders of runs and of sweeps.
        output: the folder; it gets ``report.html``, ``scores.csv`` and the pictures (SVG).

    Returns:
        The page's path, and by environment the statistics of its runs.

    Raises:
        RunFolderError: a folder is not a run's, or its run has no test yet.
    """
    if not isinstance(run_dirs, list | tuple) or not run_dirs:
        raise ConfigTypeError(f"run_dirs={shown(run_dirs)}; expected a list of run folders")
    output = checked_path("output", output)
    if output.exists() and not output.is_dir():
        raise ConfigError(f"output={shown(str(output))} is a file; a report is a folder")
    folders = [checked_path("run_dir", run_dir) for run_dir in run_dirs]
    runs = [
        run
        for folder, name in zip(folders, _names(folders), strict=True)
        for run in (read_trials(folder, name) if is_sweep(folder) else [read_run(folder, name)])
    ]
    sections, found, pictures = [], {}, {}
    for number, env in enumerate(dict.fromkeys(run.curve.env for run in runs)):
        own = [run for run in runs if run.curve.env == env]
        sound = {run.name: run.scores for run in own if np.isfinite(run.scores).all()}
        drawn = {f"learning_curves_{number}.svg": _learning_curves(own)}
        if sound:
            found[env] = compare(sound, optimal=own[0].curve.threshold)
            drawn |= {f"profiles_{number}.svg": _profiles(found[env])}
            drawn |= {f"scores_{number}.svg": _points(own)}
        sections.append(_section(env, own, found.get(env), drawn))
        pictures |= drawn
    page = _page(sections, runs)
    with writing("output", output):
        output.mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            (output / name).write_bytes(picture)
        (output / TABLE).write_text(_csv(found), encoding="utf-8")
        (output / PAGE).write_text(page, encoding="utf-8")
    return output / PAGE, found


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    with reading(file):
        return parse_json(read_text(file))


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, or whole paths where those are not different."""
    short = [folder.resolve().name for folder in folders]
    names = short if len(set(short)) == len(short) else [str(folder) for folder in folders]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"run_dirs names {shown(twice[0])} twice; leave one out")
    return names


def _csv(found: dict[str, Comparison]) -> str:
    rows = [{"env": env} | row for env, own in found.items() for row in own.rows()]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    table = csv.DictWriter(text, columns)
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _learning_curves(runs: Sequence[Run]) -> bytes:
    figure = new_figure(8)
    named = [run.curve._replace(name=run.name) for run in runs]
    comparison_axes(figure.add_subplot(), named)
    return _svg(figure)


def _profiles(found: Comparison) -> bytes:
    """Share of seeds above each score, with intervals."""
    figure = new_figure(8)
    axes = figure.add_subplot()
    for index, (name, (thresholds, above)) in enumerate(found.profiles.items()):
        color = f"C{index % 10}"
        axes.step(thresholds, above.value, where="post", label=name, color=color)
        axes.fill_between(thresholds, above.low, above.high, alpha=0.2, color=color, step="post")
    axes.set(xlabel="score", ylabel="share of seeds above it", ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return _svg(figure)


def _points(runs: Sequence[Run]) -> bytes:
    """Every seed's score, a row for each run."""
    figure = new_figure(8, 1 + 0.5 * len(runs))
    axes = figure.add_subplot()
    for row, run in enumerate(runs):
        spread = np.random.default_rng(0).uniform(-0.25, 0.25, len(run.scores))
        axes.plot(run.scores, row + spread, ".", color=f"C{row % 10}", alpha=0.6, markersize=9)
    axes.set_yticks(range(len(runs)), [run.name for run in runs])
    axes.set(xlabel="score of each seed, the mean return of its last test")
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.grid(alpha=0.3, axis="x")
    return _svg(figure)


def _svg(figure: Any) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c1e21; background: #fff }
h1 { font-size: 1.6rem }
h2 { font-size: 1.3rem; margin-top: 2.5rem; border-bottom: 1px solid #ddd }
.wide { overflow-x: auto } table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #eee }
th:first-child, td:first-child, .text td { text-align: left } th { background: #f6f7f8 }
.text td { white-space: normal }
figure { margin: 1.5rem 0 } img { max-width: 100% } figcaption, .note { color: #555 }
"""


def _page(sections: Iterable[str], runs: Sequence[Run]) -> str:
    title = f"{len(runs)} run{'s' * (len(runs) > 1)}: {', '.join(run.name for run in runs[:6])}"
    title += ", ..." if len(runs) > 6 else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n{''.join(sections)}{_versions(runs)}</body>\n</html>\n"
    )


def _section(
    env: str, runs: Sequence[Run], found: Comparison | None, pictures: dict[str, bytes]
) -> str:
    captions = {
        "learning": "Mean test return over seeds with its 95 % interval. A seed that stopped "
        "counts with its last test from then on.",
        "profiles": "Performance profile: the share of seeds whose score is above a value, with "
        "95 % intervals.",
        "scores": "Every seed.",
    }
    parts = [f"<h2>{html.escape(env)}</h2>\n", _table(_outcomes(runs))]
    if found:
        parts += [_table(_statistics(found)), STATISTICS]
        if found.improvement:
            rows = [[f"{a} above {b}", str(p)] for (a, b), p in found.improvement.items()]
            parts.append(_table([["probability that a seed's score is higher", ""], *rows]))
    else:
        parts.append("<p>No run has a score of every seed, so there are no statistics.</p>\n")
    for name, picture in pictures.items():
        data = base64.b64encode(picture).decode()
        text = html.escape(captions[name.partition("_")[0]])
        parts.append(
            f'<figure><img alt="{text}" src="data:image/svg+xml;base64,{data}">'
            f"<figcaption>{text}</figcaption></figure>\n"
        )
    return "".join([*parts, _table(_differences(runs))])


STATISTICS = (
    '<p class="note">Scores are the mean return of each seed\'s last test. In brackets are 95 % '
    "intervals of a bootstrap over seeds. IQM is the mean of the middle half; the optimality gap "
    "is by how much scores, cut off at the threshold, fall short of it (Agarwal et al. 2021).</p>\n"
)


def _outcomes(runs: Sequence[Run]) -> list[list[str]]:
    rows = [
        ["run", "algorithm", "seeds", "stopped", "environment steps to it, median", "best test"]
    ]
    for run in runs:
        stopped = np.array(run.outcome.get("stopped", []), bool)
        steps = np.array(run.outcome.get("env_step", []))[stopped]
        num_seeds = run.curve.mean.shape[1]
        ended = f"{stopped.sum()} of {num_seeds}" if len(stopped) else "not known yet"
        median = f"{np.median(steps):,.0f}" if len(steps) else ""
        best = f"{np.nanmax(run.curve.mean):.4g}"
        rows.append([run.name, run.algorithm, str(num_seeds), ended, median, best])
    return rows


def _statistics(found: Comparison) -> list[list[str]]:
    names = {"mean": "mean", "median": "median", "iqm": "IQM", "optimality_gap": "optimality gap"}
    shown_names = [
        name
        for name in names
        if all(getattr(s, name) is not None for s in found.summaries.values())
    ]
    head = ["run", *(names[name] for name in shown_names)]
    rows = [
        [run, *(str(getattr(summary, name)) for name in shown_names)]
        for run, summary in found.summaries.items()
    ]
    return [head, *rows]


def _differences(runs: Sequence[Run]) -> list[list[str]]:
    """The settings in which these runs differ; all that are not the default, if there is one."""
    names = [
        name for name in runs[0].settings if len({repr(run.settings.get(name)) for run in runs}) > 1
    ]
    if not names:
        return []
    head = ["settings that differ", *(run.name for run in runs)]
    return [head, *([name, *(str(run.settings.get(name)) for run in runs)] for name in names)]


def _versions(runs: Sequence[Run]) -> str:
    rows = [["run", "machine", "versions"]]
    for run in runs:
        facts = run.versions
        device = facts.get("device", {})
        machine = ", ".join(str(x) for x in (facts.get("cpu"), device.get("kind")) if x)
        packages = ", ".join(f"{name} {v}" for name, v in facts.get("packages", {}).items())
        rows.append([run.name, machine, f"Python {facts.get('python', '?')}, {packages}"])
    return f"<h2>Where they ran</h2>\n{_table(rows, 'text')}"


def _table(rows: Sequence[Sequence[str]], look: str = "wide") -> str:
    if not rows:
        return ""
    head, *body = ([html.escape(cell) for cell in row] for row in rows)
    lines = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in body]
    top = "<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"
    return f'<div class="{look}"><table>\n{top}\n{chr(10).join(lines)}\n</table></div>\n'
