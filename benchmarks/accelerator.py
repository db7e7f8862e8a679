"""All that is worth measuring on a GPU or TPU, one script after another.

    python benchmarks/accelerator.py RESULTS --python rejax=PYTHON --python purejaxrl=PYTHON \\
        --python flashbax=PYTHON --purejaxrl CHECKOUT

Writes a JSON file (and a picture) for each step to the folder RESULTS, and what was printed. A step
that fails is named at the end and stops no other. `--smallest` does little of each, to see on any
machine that everything runs. Programs are compiled together, so that compile seconds mean little.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
SIZES = {"full": ["1024", "16384", "65536", "262144"], "smallest": ["16", "32"]}
SEEDS = {"full": ["1", "8", "64", "256", "1024"], "smallest": ["1", "2"]}
ROUNDS = {"full": ["--rounds", "3"], "smallest": ["--rounds", "1", "--smallest"]}


def steps(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """The commands, by name."""
    size = "smallest" if arguments.smallest else "full"
    quick = ["--repeats", "1", "--seconds", "0.01"] if arguments.smallest else []
    million = ["--buffer-size", "10000" if arguments.smallest else "1000000"]
    throughput = ["throughput.py", "--together", *quick]
    peers = ["against_peers.py", *given(arguments, arguments.python)]
    flashbax = [pair.split("=", 1)[1] for pair in arguments.python if pair.startswith("flashbax=")]
    others = [pair for pair in arguments.python if not pair.startswith("flashbax=")]
    solve = ["time_to_solve.py", *given(arguments, others), "--seeds"]
    few = ["--vector-steps", "50", "--repeats", "2"] if arguments.smallest else []
    breakout = ["Breakout-MinAtar", "--network", "cnn", "--hidden", "128"]
    seeds = ["--seeds", *SEEDS[size], "--num-envs", "10", "--at-once", "200000"]
    rounds = ROUNDS[size]
    # The seconds of so few environments are too many on a machine that is no faster for them.
    fewer = [] if arguments.smallest else ["--env-steps", "110000"]
    envs = SIZES[size]
    tiny = {
        "callbacks": ["--epoch-seconds", "0.01", "0.05", "--repeats", "3"],
        "replay": ["--capacities", "640", "1280", "--steps", "50", "--rounds", "2"],
        "solve": ["1", "--only", "jaxrl_cb"],
    }
    own = {
        "callbacks": ["--repeats", "15"],
        "replay": ["--capacities", "10240", "1024000", "--rounds", "5"],
        "solve": ["2", "--only", "jaxrl_cb", "purejaxrl DQN", "rejax PQN"],
    }
    own = tiny if arguments.smallest else own
    return {
        "peers_cartpole": [*peers, "cartpole", *rounds, *fewer],
        "peers_cartpole_32_seeds": [*peers, "cartpole_32_seeds", *rounds],
        "peers_cartpole_4096_envs": [*peers, "cartpole_4096_envs", *rounds],
        "throughput_envs": [*throughput, "CartPole-v1", "--num-envs", *envs, *million],
        "throughput_seeds": [
            *(*throughput, "CartPole-v1", *seeds),
            *("--parts", "environment", "learning", "callbacks"),
        ],
        "profile_10_envs": ["profile.py", "CartPole-v1", *few],
        "profile_wide": ["profile.py", "CartPole-v1", "--num-envs", envs[-2], *million, *few],
        "throughput_breakout": [*throughput, *breakout, "--num-envs", *envs[:2], *million],
        "profile_breakout": ["profile.py", *breakout, "--num-envs", "64", *few],
        "peers_breakout": [*peers, "breakout", *rounds],
        "callbacks": ["callback_overhead.py", *own["callbacks"]],
        "replay": ["replay.py", *(["--python", *flashbax] if flashbax else []), *own["replay"]],
        "solve": [*solve, *own["solve"]],
    }


def given(arguments: argparse.Namespace, pythons: list[str]) -> list[str]:
    """The options that name others' environments."""
    words = [word for pair in pythons for word in ("--python", pair)]
    return words + (["--purejaxrl", arguments.purejaxrl] if arguments.purejaxrl else [])


def parser() -> argparse.ArgumentParser:
    """The command line's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--purejaxrl", help="path of its checkout")
    parser.add_argument("--smallest", action="store_true")
    parser.add_argument("--only", nargs="+", help="steps, by name")
    return parser


def main() -> None:
    """The command line."""
    arguments = parser().parse_args()
    arguments.results.mkdir(parents=True, exist_ok=True)
    # Several processes are on the device at once, so none may take all of its memory.
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    failed = []
    for name, (script, *words) in steps(arguments).items():
        if arguments.only and name not in arguments.only:
            continue
        out = arguments.results / name
        command = [sys.executable, str(HERE / script), *words, "--json", f"{out}.json"]
        command += ["--png", f"{out}.png"]
        print(f"{name}: {' '.join([script, *words])}", flush=True)
        started = time.monotonic()
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        out.with_suffix(".txt").write_text(done.stdout)
        rows = [line for line in done.stdout.splitlines() if line.startswith(("|", "  ", "copies"))]
        print("\n".join(rows[:40]), f"\n{time.monotonic() - started:.0f} s", flush=True)
        if done.returncode:
            failed.append(name)
            print("\n".join(done.stdout.splitlines()[-5:]), flush=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
