"""Kills training processes at random moments, and at chosen ones, and compares what they become.

    python tests/kill_campaign.py                    # 20 kills at random over four runs
    python tests/kill_campaign.py --kills 100 --seed 1
    python tests/kill_campaign.py --points           # kills at named points of a save and a resume

Each run is first done without a break; then again and again with SIGKILL, each time taken up by the
very same command, until it ends. In the end everything must be equal bit for bit: parameters,
optimiser, replay, environments, keys, epsilon, history, best parameters, states and calls of the
callbacks, policies, and the rows of metrics.jsonl (wall times aside). A process that ends before
it is killed counts as no kill.
"""

import argparse
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

BASE = {
    "max_epochs": 40,
    "num_test_episodes": 4,
    "hidden_sizes": (32,),
    "batch_size": 32,
    "num_envs": 8,
}
SHORT = {"env_kwargs": {"max_steps_in_episode": 60}}
CONFIGS = {
    "one seed": ("CartPole-v1", {"epoch_num_steps": 800, "buffer_size": 8_000, **SHORT}, 1),
    "three seeds": (
        "CartPole-v1",
        {"epoch_num_steps": 400, "buffer_size": 4_000, "num_seeds": 3, "seed": 5, **SHORT},
        2,
    ),
    "prefill, by the clock": (
        "Acrobot-v1",
        {"epoch_num_steps": 400, "buffer_size": 40_000, "start_timesteps": 40_000, "n_step": 3}
        | {"env_kwargs": {"max_steps_in_episode": 50}},
        None,
    ),
    "MinAtar": (
        "Breakout-MinAtar",
        {"epoch_num_steps": 400, "buffer_size": 20_000, "normalize_obs": True, **SHORT}
        | {"max_epochs": 20},
        1,
    ),
    "sweep": (
        "CartPole-v1",
        {"epoch_num_steps": 400, "buffer_size": 4_000, "num_seeds": 2, "max_epochs": 20, **SHORT}
        | {"space": {"n_step": [1, 3], "learning_rate": [1e-3, 1e-2]}},
        2,
    ),
}
"""By name: environment, settings (of a sweep, with its space), epochs between two checkpoints."""
POINTS = {
    "before the manifest": ("open", "manifest.orbax-checkpoint-tmp/metadata", 3),
    "mid-save, half of the arrays written": ("open", r"state\.orbax-checkpoint-tmp/20\.bin", 3),
    "before the rename that commits": ("os.rename", r"/\d+\.orbax-checkpoint-tmp', '[^']*/\d+'", 3),
    "after the rename that commits": ("os.mkdir", "/trash'", 1),
    "before the old one is moved": ("os.rename", "/trash/", 2),
    "mid-delete": ("os.remove", r"^\('metadata', ", 2),
    "while policies are written": ("os.rename", ".policy_last.safetensors.tmp", 3),
    "a new run writes config.json": ("os.rename", ".config.json.tmp", 1),
    "a new run writes metrics.jsonl": ("os.truncate", "", 2),
    "while metrics are cut back": ("os.truncate", "", 2),
    "while config.json is rewritten": ("os.rename", ".config.json.tmp", 1),
    "mid-write of the compile cache": ("open", "-cache", 2),
}
"""By name: an audit event, a pattern of its arguments, and which of those that fit.

The first file that is cut off is the lock.
"""


def child(name: str, run_dir: str) -> None:
    """Trains one configuration in this process, or goes on with it."""
    kill_at = os.environ.get("KILL_AT")
    if kill_at:
        _kill_at(*json.loads(kill_at))
    from collections import deque

    import jaxrl_cb
    from jaxrl_cb import trainer
    from jaxrl_cb.trainer import checkpointer

    class Records(trainer.EpochTrainCallback):
        """Remembers every call, sets epsilon by what it remembers, and logs."""

        def __init__(self):
            self.calls = deque([(0, 0)], maxlen=1000)

        def callback(self, epoch, env_step, context):
            self.calls.append((epoch, env_step))
            context.policy.set_eps_training(1 / len(self.calls))
            context.logger.write("train/env_step", env_step, {"calls": len(self.calls)})

    class Stops(trainer.EpochStopCallback):
        """Stops seed 1 in the middle, and tests again now and then."""

        def __init__(self):
            self.means = ()

        def should_stop(self, mean_rewards, context):
            self.means = (*self.means, mean_rewards)
            if context.epoch % 7 == 0:
                self.means = (*self.means, float(context.evaluate(5).sum()))
            return context.seed == 1 and len(self.means) > 15

    checkpointer.SECONDS = 0.5  # so that the clock's saves come often in a run of seconds
    env, settings, every = CONFIGS[name]
    space = "space" in settings
    halving = trainer.EpochTrainCallbackSuccessiveHalving(first_rung=7, factor=2)
    train = jaxrl_cb.sweep if space else jaxrl_cb.train
    train(
        env,
        callbacks=trainer.TrainerCallbacks(
            epoch_train_callback=[Records(), *([halving] if space else [])],
            epoch_stop_callback=Stops(),
        ),
        run_dir=run_dir,
        resume="auto",
        checkpoint_every=every,
        verbose=False,
        **(BASE | settings),
    )


def _kill_at(event: str, pattern: str, number: int) -> None:
    """Has this process killed just before the n-th such event (see `sys.addaudithook`)."""
    count = 0

    def hook(name, arguments):
        nonlocal count
        if name != event or not re.search(pattern, str(arguments)):
            return
        if name == "open" and "w" not in str(arguments[1]):
            return
        count += 1
        if count == number:
            if pattern == "-cache":  # what a write that is cut off leaves
                os.close(os.open(arguments[0], os.O_CREAT | os.O_WRONLY))
                os.truncate(arguments[0], 1000)
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def fingerprint(run_dir: Path) -> dict[str, str]:
    """SHA-256 of all that a finished run or sweep is, by name, without wall times."""
    if (run_dir / "sweep.json").is_file():
        parts = {name: _sha((run_dir / name).read_bytes()) for name in ("sweep.json", "trials.csv")}
        groups = {group.name: fingerprint(group) for group in run_dir.glob("group_*")}
        return parts | {f"{g}.{name}": v for g, own in groups.items() for name, v in own.items()}
    steps = [int(p.name) for p in (run_dir / "checkpoints").iterdir() if p.name.isdigit()]
    manifest = run_dir / "checkpoints" / str(max(steps)) / "manifest" / "metadata"
    body = json.loads(manifest.read_text())["body"]
    parts = {name: entry["sha256"] for name, entry in body["arrays"].items()}
    parts = {name: digest for name, digest in parts.items() if not name.endswith("_seconds")}
    for name, value in body["run"].items():
        if name != "seconds":
            parts[f"run.{name}"] = _sha(json.dumps(value, sort_keys=True))
    for which in ("best", "last"):
        parts[which] = _sha((run_dir / f"policy_{which}.safetensors").read_bytes())
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    rows = [{n: v for n, v in row.items() if not n.startswith("time/")} for row in rows]
    parts["metrics.jsonl"] = _sha(json.dumps(rows))
    return parts


def _sha(data: str | bytes) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


class Campaign:
    """Runs and kills children in a folder, with a compile cache that they share."""

    def __init__(self, folder: Path, seed: int = 0):
        self.folder = folder
        self.random = random.Random(seed)
        self.environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path[1:]]),
        }
        self.references: dict[str, tuple[dict[str, str], float]] = {}
        self.phases: Counter[str] = Counter()
        self.rejected = 0

    def start(self, name: str, run_dir: Path, **more: str) -> subprocess.Popen:
        """Starts a child."""
        return subprocess.Popen(
            [sys.executable, __file__, "--child", name, str(run_dir)],
            env=self.environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, name: str, run_dir: Path, **more: str) -> str:
        """Lets a child run to its end, and gives what it printed."""
        process = self.start(name, run_dir, **more)
        output = process.communicate(timeout=300)[0]
        if process.returncode:
            raise AssertionError(f"{name}: exit code {process.returncode}\n{output}")
        return output

    def reference(self, name: str) -> tuple[dict[str, str], float]:
        """What a run without a break becomes, and the seconds that it takes once compiled."""
        if name in self.references:
            return self.references[name]
        self.finish(name, self.folder / f"{name}, cold")
        started = time.monotonic()
        self.finish(name, self.folder / f"{name}, straight")
        parts = [fingerprint(self.folder / f"{name}, {which}") for which in ("cold", "straight")]
        assert not differing(*parts), f"{name}: two runs differ in {differing(*parts)}"
        self.references[name] = parts[0], time.monotonic() - started
        return self.references[name]

    def kill_at_random(self, name: str, run_dir: Path, seconds: float) -> bool:
        """Starts or goes on with a run and kills it; False if it ended before."""
        process = self.start(name, run_dir)
        try:
            process.wait(self.random.uniform(0.2, seconds))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            self.phases[_phase(run_dir)] += 1
            return True
        assert process.returncode == 0, process.communicate()[0]
        process.communicate()
        return False

    def run(self, name: str, kills: int) -> int:
        """Kills the runs of one configuration so often; gives the number of runs compared."""
        expected, seconds = self.reference(name)
        number = 0
        while kills > 0:
            number += 1
            run_dir = self.folder / f"{name}, killed {number}"
            while kills > 0 and self.kill_at_random(name, run_dir, seconds):
                kills -= 1
            self.compare(name, run_dir, expected)
        return number

    def compare(self, name: str, run_dir: Path, expected: dict[str, str]) -> None:
        """Ends a run and compares it with the one without a break."""
        self.finish(name, run_dir)
        different = differing(expected, fingerprint(run_dir))
        assert not different, f"{run_dir.name}: differs in {different}"
        self.rejected += len(list(run_dir.rglob("checkpoints/rejected/*")))

    def point(self, name: str, point: str, expected: dict[str, str]) -> None:
        """Kills a run at a named point, and compares what it becomes."""
        event, pattern, number = POINTS[point]
        run_dir = self.folder / f"{name}, {point}"
        more = {}
        if pattern == "-cache":
            more = {"JAX_COMPILATION_CACHE_DIR": str(self.folder / f"cache, {name}")}
        if point.startswith("while") and "policies" not in point:  # these are points of a resume
            killed = self.start(name, run_dir)
            while not list(run_dir.glob("checkpoints/[0-9]*/commit_success.txt")):
                time.sleep(0.01)
            killed.kill()
            killed.communicate()
        process = self.start(name, run_dir, KILL_AT=json.dumps([event, pattern, number]), **more)
        output = process.communicate(timeout=300)[0]
        assert process.returncode == -signal.SIGKILL, f"{point} was not reached\n{output}"
        if more:
            self.finish(name, self.folder / f"{name}, {point}, fresh", **more)
        self.compare(name, run_dir, expected)


def differing(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Names of what is not the same."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _phase(run_dir: Path) -> str:
    """What a killed run was doing, by what it left; of a sweep, what its first group was."""
    run_dir = run_dir / "group_0" if (run_dir / "group_0").is_dir() else run_dir
    if not list(run_dir.glob("metrics.jsonl")):
        return "before it began"
    if list(run_dir.glob("checkpoints/*tmp")):
        return "while a checkpoint was written"
    if list(run_dir.glob("checkpoints/trash/*")):
        return "while one was deleted"
    return "between saves" if list(run_dir.glob("checkpoints/[0-9]*")) else "before the first save"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--points", action="store_true")
    parser.add_argument("--json", type=Path, help="file to write the counts to")
    parser.add_argument("--child", nargs=2, metavar=("CONFIG", "RUN_DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return child(*arguments.child)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), arguments.seed)
        equal = {}
        if arguments.points:
            for name in ("one seed", "three seeds"):
                expected = campaign.reference(name)[0]
                for point in POINTS:
                    campaign.point(name, point, expected)
                    equal[f"{name}, {point}"] = {"kills": 1, "runs": 1}
                    print(f"{name}: killed {point}: equal", flush=True)
        else:
            shares = [arguments.kills // len(CONFIGS)] * len(CONFIGS)
            shares[0] += arguments.kills - sum(shares)
            for name, kills in zip(CONFIGS, shares, strict=True):
                runs = campaign.run(name, kills)
                equal[name] = {"kills": kills, "runs": runs}
                print(f"{name}: {kills} kills, {runs} runs: {runs} of {runs} equal", flush=True)
            print(f"killed {dict(campaign.phases)}")
        print(f"checkpoints found bad: {campaign.rejected}")
        seconds = round(time.monotonic() - started)
        print(f"{seconds} s, seed {arguments.seed}")
    if arguments.json:
        from jaxrl_cb.versions import versions

        found = {"equal": equal, "phases": dict(campaign.phases), "rejected": campaign.rejected}
        about = {"command": sys.argv, "versions": versions(), "seconds": seconds}
        arguments.json.write_text(json.dumps(about | found, indent=2) + "\n")
    return None


if __name__ == "__main__":
    main()
