"""Measure the harness's overhead: trials alternate with bare loops over the same loader.

    python -m tests.perf.overhead [--pairs 5] [--no-touch] [--out results/overhead.csv] [CONTESTANT ...]

Each figure comes from a fresh process. The share is the geometric mean over pairs of the trial's images/s over the bare
loop's, with a 95 % t interval on the logarithms. Beside it, the parent's largest resident memory while trials run.
"""

from __future__ import annotations

import csv
import math
import pickle
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from loaderbench.campaign import campaign as config
from loaderbench.findings.comparison import ratio
from loaderbench.formats import prepare
from loaderbench.machine.progress import Display
from loaderbench.run.one_trial import trial_spec
from loaderbench.trial import TrialSpec, measure


def main(
    contestants: Annotated[list[str] | None, typer.Argument(help="Default: all of the campaign quick.")] = None,
    pairs: int = 5,
    cache: Path = Path("data"),
    out: Path = Path("results/overhead.csv"),
    *,
    touch: Annotated[bool, typer.Option(help="Let the bare loop touch the batches as the harness does.")] = True,
) -> None:
    """Measure the harness's overhead."""
    campaign = config.load("quick")
    prepared = prepare(campaign, None, cache, Display(), strict=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["contestant", "pair", "first", "harness_images_per_s", "bare_images_per_s"])
        for contestant in campaign.contestants:
            if contestant.control or (contestants and contestant.name not in contestants):
                continue
            artifact = prepared.artifacts[contestant.format]
            logs = []
            for pair in range(pairs):
                measures = {"harness": harness, "bare": partial(bare, touch=touch)}
                order = ["harness", "bare"] if pair % 2 else ["bare", "harness"]
                with tempfile.TemporaryDirectory() as folder:
                    spec = trial_spec(campaign, contestant, artifact, Path(folder, "times.npz"))
                    speeds = {name: measures[name](spec) for name in order}
                logs.append(math.log(speeds["harness"] / speeds["bare"]))
                rows.writerow(
                    [contestant.name, pair + 1, order[0], f"{speeds['harness']:.1f}", f"{speeds['bare']:.1f}"]
                )
                file.flush()
            print(f"{contestant.name}: {ratio(logs)} of the bare loop", flush=True)
    print(f"parent: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most")


def harness(spec: TrialSpec) -> float:
    """Images per second that a trial reports."""
    result = measure(spec, spec.times.with_name("log"), 300)
    assert result["status"] == "ok", result
    return float(result["images_per_s"])


def bare(spec: TrialSpec, *, touch: bool) -> float:
    """Images per second of the bare loop."""
    command = [sys.executable, "-m", "tests.perf.bare", *(["--touch"] if touch else [])]
    done = subprocess.run(command, input=pickle.dumps(spec), capture_output=True, check=True)
    [line] = [line for line in done.stdout.decode().splitlines() if line.startswith("images_per_s ")]
    return float(line.split()[1])


if __name__ == "__main__":
    typer.run(main)
