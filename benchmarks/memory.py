"""What a run takes of the main memory, beside what was estimated before it took any.

Each row is a new Python process on CPU: import, compile, then a run of two epochs and its result.
What it takes is how much its anonymous memory grows from then to its peak: of the resident memory
in `/proc/self/status`, what is not pages of files (its libraries' code, which the kernel drops when
memory is short). "state" is the estimate before compiling, "estimate" that from the programs.
A case with `devices` makes that many CPU devices; one with `run_dir` saves checkpoints in a folder.

    python benchmarks/memory.py --json benchmarks/results/memory.json
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

MIB = 2**20
STATUS = Path("/proc/self/status")  # needs Linux
SHORT = {"max_epochs": 2, "epoch_num_steps": 4_000}
BREAKOUT = {"max_epochs": 2, "epoch_num_steps": 8_000}
LARGE = {"samples_per_insert": 32, "start_timesteps": 9_600, "buffer_size": 4_000_000}
CASES = {
    "CartPole, its preset": ("CartPole-v1", {"max_epochs": 2}),
    "Breakout, its preset": ("Breakout-MinAtar", {"max_epochs": 2}),
    "1 GB of CartPole": ("CartPole-v1", {**SHORT, "buffer_size": 48_000_000}),
    "1 GB of Breakout, as bits": ("Breakout-MinAtar", {**BREAKOUT, "buffer_size": 18_000_000}),
    "3 seeds, one by one": (
        "CartPole-v1",
        {**SHORT, "buffer_size": 16_000_000, "num_seeds": 3, "vectorize_seeds": False},
    ),
    "3 seeds, vectorised": (
        "CartPole-v1",
        {**SHORT, "buffer_size": 16_000_000, "num_seeds": 3, "vectorize_seeds": True},
    ),
    "3-step returns": ("CartPole-v1", {**SHORT, "buffer_size": 48_000_000, "n_step": 3}),
    "1 GB and checkpoints of it": (
        "CartPole-v1",
        {**SHORT, "buffer_size": 48_000_000, "run_dir": True},
    ),
    "3 seeds, large network and batch": (
        "CartPole-v1",
        {**SHORT, **LARGE, "num_seeds": 3, "batch_size": 8_192, "hidden_sizes": (1024, 1024)},
    ),
    "the same on two devices": (
        "CartPole-v1",
        {
            **{**SHORT, **LARGE, "num_seeds": 3, "batch_size": 8_192},
            **{"hidden_sizes": (1024, 1024), "devices": 2},
        },
    ),
    "batch of 32,768": (
        "CartPole-v1",
        {
            **{**SHORT, "buffer_size": 1_000_000, "batch_size": 32_768},
            **{"samples_per_insert": 128, "hidden_sizes": (512, 512), "start_timesteps": 33_600},
        },
    ),
}


def anonymous(field: str) -> int:
    """Bytes of this process's memory but pages of files: "VmRSS", now, or "VmHWM", its peak.

    A peak leaves out the pages of files there are now, of which a run maps more and drops none.
    """
    status = dict(re.findall(r"^(\w+):\s+(\d+) kB", STATUS.read_text(), re.MULTILINE))
    return (int(status[field]) - int(status["RssFile"])) * 1024


def child(name: str) -> None:
    """Runs one case and prints its row."""
    import jax

    env, named = CASES[name]
    settings = {key: value for key, value in named.items() if key not in ("run_dir", "devices")}
    if "devices" in named:
        jax.config.update("jax_num_cpu_devices", named["devices"])

    from jaxrl_cb.config import resolve
    from jaxrl_cb.envs import make
    from jaxrl_cb.trainer import Trainer, memory
    from jaxrl_cb.trainer.checkpointer import Checkpointer
    from jaxrl_cb.trainer.programs import ProgramPlan, compile_programs

    resolved = resolve(env, "dqn", settings)
    learner, params = resolved.build_learner(make(env)), resolved.trainer
    trainer = Trainer(learner, params)
    folder = tempfile.TemporaryDirectory() if "run_dir" in named else None
    saver = Checkpointer(folder.name, trainer, every=1) if folder else None
    state = trainer.memory_estimate()
    lengths = tuple(dict.fromkeys(params.chunk_lengths(learner.num_envs)))
    plan = (params.seeds_together, lengths, params.num_test_episodes, jax.local_devices()[0])
    programs = compile_programs(learner, ProgramPlan(*plan))
    estimate = memory.estimate(learner, params, programs, trainer.num_copies)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = anonymous("VmRSS")
    for _ in trainer.epochs():
        if saver:
            saver.after_epoch(0.0)
    if saver:
        saver.finish()
    trainer.result()
    used = anonymous("VmHWM") - before
    row = {"case": name, "env": env, "settings": named, "num_seeds": params.num_seeds}
    sizes = {"state": state.total, "estimate": estimate.total, "used": used, "before": before}
    row |= {f"{key}_mib": round(size / MIB, 1) for key, size in sizes.items()}
    print(json.dumps(row | {"estimate_by_used": round(estimate.total / used, 3)}))


def main() -> None:
    """Prints a row for each case, then a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="file to write the rows to")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=CASES)
    parser.add_argument("--child", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
    rows = []
    for name in arguments.cases:
        command = [sys.executable, __file__, "--child", name]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    print("| run | state, MiB | estimate, MiB | used, MiB | estimate / used |")
    print("|---|---|---|---|---|")
    for row in rows:
        sizes = " | ".join(f"{row[f'{key}_mib']:,.0f}" for key in ("state", "estimate", "used"))
        print(f"| {row['case']} | {sizes} | {row['estimate_by_used']:.2f} |")
    if arguments.json:
        from jaxrl_cb.versions import versions

        data = {"rows": rows, "command": "python " + " ".join(sys.argv), "os": platform.platform()}
        Path(arguments.json).write_text(
            json.dumps(data | {"versions": versions()}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
