"""Try everything that needs a GPU, in at most ten minutes, and keep all that comes out in one folder.

    python3 gpu_check.py [folder]    # default: results/gpu-check

No step stops a later one. In the folder, `summary.md` says what ran and what did not, and `STEP.log` has the
output of a step. Exit status: 0 if every step passed, 1 if one did not, 2 without a GPU. This script uses the
standard library only, because set-up is one of its steps.
"""

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).resolve().parent.parent
TOTAL_S = 570.0
"""A little less than the ten minutes that some machines give to a command."""
GRACE_S = 15.0
"""How long a step may take to end after its limit, before it is killed."""
LEAST_S = 5.0
"""A step is not started with less time left."""
NEEDS = """\
make gpu-check needs an NVIDIA GPU with its driver: `nvidia-smi` must list one. A container must be started with its
GPUs, for example with --gpus all. Everything else installs itself; without network from WHEELS=/folder/of/wheels."""
BESIDE_A_GPU = ("device", "consumers", "limits", "loaders", "runner", "certify", "gpu", "gpu_in_use")
"""Tests of the same code without a GPU, which must hold beside one; those that take longest first."""
SEE_GPU = """
import torch
from torch.utils.collect_env import get_pretty_env_info
print(get_pretty_env_info())
print("torch computes on:", torch.cuda.get_device_name(torch.ones(1, device="cuda").device))
"""


@dataclass(frozen=True)
class Step:
    """A command with the time that it may take, in seconds."""

    name: str
    command: Sequence[str | Path]
    limit_s: float


@dataclass(frozen=True)
class Outcome:
    """What became of a step."""

    step: Step
    result: str
    took_s: float = 0.0
    last_line: str = ""


def steps(out: Path) -> list[Step]:
    """Return the steps in their order."""
    programs = ROOT / ".venv" / "bin"
    pytest = (programs / "python", "-m", "pytest", "-p", "no:benchmark", "--durations=5")
    loaderbench, results = programs / "loaderbench", out / "results"
    beside = [ROOT / "tests" / f"test_{name}.py" for name in BESIDE_A_GPU]
    return [
        Step("driver", ["nvidia-smi"], 20),
        Step("set-up", [sys.executable, ROOT / "scripts" / "setup.py", "environment"], 300),
        Step("torch", [programs / "python", "-c", SEE_GPU], 60),
        Step("tests-on-the-gpu", [*pytest, "-v", "-m", "gpu", ROOT / "tests" / "gpu"], 180),
        Step("tests-beside-a-gpu", [*pytest, "-q", "-n", "8", "--dist", "loadfile", "-m", "not slow", *beside], 90),
        Step(
            "campaign",
            [
                loaderbench, "bench", ROOT / "scripts" / "gpu-check.toml", "--skip", "*float16*", "--skip", "ffcv-raw*",
                "--cache", ROOT / "data", "--results", results, "--reports", out / "reports",
            ],
            360,
        ),
        Step("report", [loaderbench, "report", results / "gpu-check", "--reports", out / "reports"], 60),
        Step("check", [loaderbench, "check", results / "gpu-check"], 30),
    ]  # fmt: skip


def gpu_name() -> str:
    """Return the name of the first GPU. Raises OSError with the reason if CUDA finds none."""
    cuda = ctypes.CDLL("libcuda.so.1")
    name = ctypes.create_string_buffer(100)
    device = ctypes.c_int()
    calls = {
        "cuInit": (0,),
        "cuDeviceGet": (ctypes.byref(device), 0),
        "cuDeviceGetName": (name, len(name), device),
    }
    for function, arguments in calls.items():
        if status := getattr(cuda, function)(*arguments):
            message = f"NVIDIA's driver is here, but {function} fails with status {status}"
            raise OSError(message)
    return name.value.decode()


def run(step: Step, out: Path, limit_s: float) -> Outcome:
    """Run a step with its output on the terminal and in its log. Stop it after its limit."""
    log = out / f"{step.name}.log"
    started = time.monotonic()
    with log.open("wb") as file:
        file.write(f"$ {shlex.join(map(str, step.command))}\n".encode())
        try:
            child = subprocess.Popen(
                step.command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            return Outcome(step, f"did not start: {error.strerror}")
        assert child.stdout
        copying = threading.Thread(target=copy, args=(child.stdout, file), daemon=True)
        copying.start()
        try:
            status = child.wait(limit_s)
            result = "passed" if status == 0 else f"failed with status {status}"
        except subprocess.TimeoutExpired:
            result = f"stopped after its limit of {limit_s:.0f} s"
        finally:
            end(child)
            copying.join(GRACE_S)  # what left the group may still hold the pipe
    return Outcome(step, result, time.monotonic() - started, last_line(log))


def copy(source: BinaryIO, log: BinaryIO) -> None:
    """Copy a step's output as it comes, also a question without an end of line."""
    while chunk := os.read(source.fileno(), 1 << 16):
        for target in (log, sys.stdout.buffer):
            target.write(chunk)
            target.flush()


def end(child: subprocess.Popen[bytes]) -> None:
    """Interrupt all processes of a step, which lets a campaign keep its rows; kill those that remain."""
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGINT)
            child.wait(GRACE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def last_line(log: Path) -> str:
    """Return the last line of a log that is not empty, as plain text in a table."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()[1:]]
    return next(filter(None, reversed(lines)), "").replace("|", "\\|").strip("= ")


def summary(gpu: str, outcomes: Sequence[Outcome]) -> str:
    """Return what ran and what did not, as Markdown."""
    passed = sum(outcome.result == "passed" for outcome in outcomes)
    rows = [f"| {o.step.name} | {o.result} | {o.took_s:.0f} | {o.last_line} |" for o in outcomes]
    head = [f"# GPU check on {gpu}", "", f"{passed} of {len(outcomes)} steps passed.", ""]
    return "\n".join([*head, "| Step | Result | Seconds | Last line of its log |", "|---|---|--:|---|", *rows, ""])


def main(folder: str = "") -> int:
    """Run all steps, and return the exit status."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would steps
    try:
        gpu = gpu_name()
    except OSError as error:
        print(f"gpu-check: no NVIDIA GPU: {error}\n{NEEDS}", file=sys.stderr)
        return 2
    out = Path(folder or ROOT / "results" / "gpu-check").absolute()
    out.mkdir(parents=True, exist_ok=True)
    started, outcomes = time.monotonic(), []
    planned = steps(out)
    for number, step in enumerate(planned, 1):
        limit_s = min(step.limit_s, TOTAL_S - GRACE_S - (time.monotonic() - started))
        print(f"\ngpu-check {number}/{len(planned)}: {step.name}", flush=True)
        enough = limit_s >= min(LEAST_S, step.limit_s)
        try:
            outcomes.append(run(step, out, limit_s) if enough else Outcome(step, "not run: no time is left"))
        except KeyboardInterrupt:
            print(f"\nstopped; what ran until now: {out}", file=sys.stderr)
            return 128 + signal.SIGINT
        text = summary(gpu, outcomes)
        (out / "summary.md").write_text(text)  # after each step, in case that the machine is taken away
    print(f"\n{text}\nAll of it: {out}", flush=True)
    return int(any(outcome.result != "passed" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
