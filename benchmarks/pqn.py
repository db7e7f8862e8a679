"""PQN on a MinAtar game by this library and by purejaxql, side by side: speed, or score.

The same network, environments, rollouts, minibatches and epochs, its authors' own settings (RAdam,
linear learning rate, lambda 0.65, epsilon to 0.05 over a tenth). Contenders take turns; the first
round is not counted. Without `--tests` each round trains for `--env-steps` and tests nothing (this
library once, one episode); with it each tests 128 environments so many times on the way. `--seeds`
trains so many at once, each contender in its own way: here one CPU device per core and seed, there
`vmap`; steps per second are those of all seeds.

    python benchmarks/pqn.py --python PYTHON_WITH_GYMNAX_BELOW_1 --purejaxql CHECKOUT \\
        --json benchmarks/results/pqn_throughput.json
    python benchmarks/pqn.py --python PYTHON_WITH_GYMNAX_BELOW_1 --purejaxql CHECKOUT \\
        --env-steps 10000000 --tests 20 --rounds 0 --json benchmarks/results/pqn_score.json
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

from contenders import Contender, take_turns

from jaxrl_cb.versions import versions

SIZES = {"num_envs": 128, "rollout_length": 32, "num_minibatches": 32, "update_epochs": 2}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--game", default="Breakout")
    parser.add_argument("--python", help="interpreter of an environment for purejaxql")
    parser.add_argument("--purejaxql", help="path of its checkout")
    parser.add_argument("--env-steps", type=int, default=131_072)
    parser.add_argument("--tests", type=int, default=0, help="on the way")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0, help="of the first round")
    parser.add_argument("--seeds", type=int, default=1, help="trained at once")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.tests and arguments.seeds > 1:
        parser.error("several --seeds are for speed; with --tests there is one")
    unit = SIZES["num_envs"] * SIZES["rollout_length"] * max(arguments.tests, 1)
    steps = arguments.env_steps // unit * unit
    work = SIZES | {"env": f"{arguments.game}-MinAtar", "env_steps": steps, "decay_steps": steps}
    work |= {"tests": arguments.tests, "seeds": arguments.seeds, "purejaxql": arguments.purejaxql}
    entrants = [Contender("jaxrl_cb", sys.executable, "ours_pqn.py", work)]
    if arguments.python:
        entrants.append(Contender("purejaxql", arguments.python, "purejaxql_pqn.py", work))
    results = take_turns(entrants, arguments.rounds, arguments.first_seed)
    updates = (
        steps
        * SIZES["update_epochs"]
        * SIZES["num_minibatches"]
        // (unit // max(arguments.tests, 1))
    )
    rows = []
    for entrant, done in zip(entrants, results, strict=True):
        found = [done[name] for name in ("seeds", "env_steps", "updates", "features")]
        if found != [arguments.seeds, steps, updates, [16, 128]]:
            raise RuntimeError(f"{entrant.name} did other work: {done}")
        seconds = entrant.seconds or [done["seconds"]]
        pairs = zip(seconds, entrants[0].seconds or [results[0]["seconds"]], strict=True)
        rows.append(
            {
                "name": entrant.name,
                "seconds": seconds,
                "env_steps_per_second": arguments.seeds * steps / statistics.median(seconds),
                "times_ours": statistics.median(theirs / own for theirs, own in pairs),
                **{name: done[name] for name in ("num_params", "curve", "final")},
                **entrant.about,
            }
        )
        row = rows[-1]
        print(
            f"| {row['name']} | {statistics.median(seconds):.2f} s | "
            f"{row['env_steps_per_second']:,.0f} steps/s | {row['times_ours']:.2f} | "
            f"final {row['final']} |"
        )
    if arguments.json:
        work.pop("purejaxql")
        about = {"command": sys.argv, "versions": versions(), "work": work}
        arguments.json.write_text(json.dumps(about | {"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
