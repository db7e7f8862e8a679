"""What checkpoints cost, how long a run takes to be resumed, and to end after SIGTERM.

    python benchmarks/checkpoints.py --states "2.5 MB" --pairs 2 --seconds 11
    python benchmarks/checkpoints.py --states "2.5 MB" "1 GB" --pairs 1 --seconds 63 130

A stretch has to be longer than the default settings take from one save to the next: 10 s, of a
large state 50 times what a save takes.

"cost": epochs of some length go on in turn with and without saves by the default settings, in
pairs of stretches, the first of each pair changing; the share is that of wall time.
"share_at_most" is that of all seconds in which a save is waited for or written, as if no core were
idle to write it. "waited" is what the training thread itself waits at a save; the rest goes on
beside it. "restore" is from the files to a trainer that can go on, its programs compiled.
"SIGTERM": a command line run gets the signal at a random moment of an epoch; seconds until its
process has ended.
"""

import argparse
import itertools
import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jaxrl_cb.algorithms import DQN
from jaxrl_cb.envs import make
from jaxrl_cb.learners import ReplayConfig, ReplayLearner
from jaxrl_cb.networks import MLP
from jaxrl_cb.trainer import Trainer, TrainerParams
from jaxrl_cb.trainer.checkpointer import Checkpointer
from jaxrl_cb.versions import versions

SIZES = {"2.5 MB": 100_000, "100 MB": 4_700_000, "1 GB": 47_600_000}
"""Transitions of CartPole's replay, by the size of the state."""
EPOCHS = (0.1, 1.0, 10.0)


def trainer(buffer_size: int, epoch_num_steps: int) -> Trainer:
    """Of CartPole with the default network and 16 environments; it is never done."""
    environment = make("CartPole-v1")
    replay = ReplayConfig(num_envs=16, buffer_size=buffer_size)
    learner = ReplayLearner(environment, DQN(MLP(2)), replay)
    return Trainer(learner, TrainerParams(max_epochs=10**4, epoch_num_steps=epoch_num_steps))


def stretch(run: Trainer, saver: Checkpointer | None, seconds: float) -> tuple[float, list[float]]:
    """Environment steps per second over so many seconds, and the waits at saves."""
    started, first, waits = time.monotonic(), run.progress.env_step, []
    if saver:
        saver._saved_at = started
    while time.monotonic() - started < seconds:
        before = time.monotonic()
        run.execute_epoch()
        after = time.monotonic()
        if saver:
            saved = saver._saved_at
            saver.after_epoch(after - before)
            if saver._saved_at != saved:
                waits.append(time.monotonic() - after)
    if saver:
        saver.wait()
    return (run.progress.env_step - first) / (time.monotonic() - started), waits


def cost(name: str, epoch: float, pairs: int, seconds: float) -> dict:
    """One row: a size of the state and a length of the epochs."""
    short = trainer(SIZES[name], 1_600)
    short.init()
    rate, _ = stretch(short, None, 5.0)
    del short
    run = trainer(SIZES[name], max(int(rate * epoch) // 16, 1) * 16)
    run.init()
    folder = Path(tempfile.mkdtemp())
    saver, shares, waits, writes = Checkpointer(folder / "checkpoints", run), [], [], []
    seconds_saving = 0.0
    write = saver._write

    def timed(*arguments):
        before = time.monotonic()
        write(*arguments)
        writes.append(time.monotonic() - before)

    saver._write = timed
    for pair in range(pairs):
        rates = {}
        for has_saves in (True, False) if pair % 2 else (False, True):
            before = time.monotonic()
            rates[has_saves], waited = stretch(run, saver if has_saves else None, seconds)
            waits += waited
            seconds_saving += time.monotonic() - before if has_saves else 0.0
        shares.append(1 - rates[True] / rates[False])
    again = trainer(SIZES[name], run.params.epoch_num_steps)
    again.init()
    before = time.monotonic()
    Checkpointer(folder / "checkpoints", again).restore()
    restored = time.monotonic() - before
    shutil.rmtree(folder)
    return {
        **{"state": name, "epoch_seconds": epoch, "saves": len(writes), "shares": shares},
        "share": statistics.median(shares),
        "share_at_most": (sum(waits) + sum(writes)) / seconds_saving,
        "waited": statistics.median(waits),
        "write_seconds": statistics.median(writes),
        "restore_seconds": restored,
    }


def terminated(name: str, epoch_num_steps: int, number: int) -> float:
    """Seconds from SIGTERM to the end of a command line run of that state, saved."""
    folder = Path(tempfile.mkdtemp())
    flags = {"buffer-size": SIZES[name], "epoch-num-steps": epoch_num_steps, "max-epochs": 10**4}
    arguments = [word for flag, value in flags.items() for word in (f"--{flag}", str(value))]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "jaxrl_cb", "train", "CartPole-v1", "--stop-at", "never"),
            *(*arguments, "--run-dir", str(folder / "run")),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 4:"):
            break
    time.sleep(random.Random(number).uniform(0, 1))
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate()
    seconds = time.monotonic() - started
    assert process.returncode == 143, process.returncode
    saved = max(int(p.name) for p in (folder / "run" / "checkpoints").iterdir() if p.name.isdigit())
    rows = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["epoch"] == saved
    shutil.rmtree(folder)
    return seconds


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument(
        "--seconds", nargs="+", type=float, default=[21.0], help="of a stretch, for each state"
    )
    parser.add_argument("--states", nargs="*", default=["2.5 MB", "1 GB"], choices=SIZES)
    parser.add_argument("--epochs", nargs="*", type=float, default=EPOCHS, help="seconds")
    parser.add_argument("--signals", type=int, default=5)
    arguments = parser.parse_args()
    rows = []
    if len(arguments.seconds) not in (1, len(arguments.states)):
        parser.error("--seconds takes one number, or one for each state")
    each = itertools.cycle(arguments.seconds)
    for name, stretch_seconds in zip(arguments.states, each, strict=False):
        for epoch in arguments.epochs:
            seconds = max(stretch_seconds, 2.1 * epoch)
            rows.append(cost(name, epoch, arguments.pairs, seconds))
            print(rows[-1], flush=True)
    ends = {}
    for name in arguments.states:
        rate = stretch_rate(name)
        seconds = [terminated(name, rate, number) for number in range(arguments.signals)]
        ends[name] = {"epoch_num_steps": rate, "seconds": seconds}
        print(f"SIGTERM, {name}: {seconds}", flush=True)
    if arguments.json:
        result = {"command": sys.argv, "versions": versions(), "cost": rows, "sigterm": ends}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def stretch_rate(name: str) -> int:
    """Environment steps of an epoch of about a second, with the settings of the preset."""
    from jaxrl_cb.config import resolve

    environment = make("CartPole-v1")
    settings = resolve("CartPole-v1", "dqn", {"buffer_size": SIZES[name]})
    run = Trainer(settings.build_learner(environment), TrainerParams(10**4, 1_600))
    run.init()
    num_envs = run.learner.num_envs
    return int(stretch(run, None, 5.0)[0]) // num_envs * num_envs


if __name__ == "__main__":
    main()
