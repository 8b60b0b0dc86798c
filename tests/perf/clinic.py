"""Try the doctor on loaders with one known disease each: does it name it, and does its first cure help as promised?

python -m tests.perf.clinic                     # five runs of 15 patients, which takes hours; resumes
python -m tests.perf.clinic --runs 1 --only leak

The doctor's child processes are forked with the libraries imported, which saves time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import geometric_mean, median
from typing import Annotated

import typer

import loaderbench.doctor
from loaderbench.bucket import loopback, rclone
from loaderbench.bucket.metered_network import Link, proxy
from loaderbench.doctor import examine
from loaderbench.doctor.case import Diagnosis, settled
from loaderbench.doctor.changes import Change
from loaderbench.doctor.experiment import Experiment, Observation
from loaderbench.machine.code_digest import code_digest
from loaderbench.machine.process import run_child
from tests.clinic import patients, visits
from tests.clinic.visits import Visit
from tests.nursery import Nursery

DISEASES = {
    "slow_storage": "storage",
    "large_images": "large images",
    "slow_decoder": "decoder",
    "heavy_transform": "transform",
    "large_batches": "hand-over",
    "one_worker": "too few workers",
    "many_workers": "too many workers",
    "library_threads": "library threads",
    "short_epochs": "start of epochs",
    "slow_collate": "collate",
    "main_process": "main process",
    "shared_lock": "shared lock",
    "leak": "memory leak",
    "slow_model": "model",
    "healthy": "model",
}
"""What the doctor must name, by patient."""
STEP_S = {"slow_model": 0.5, "healthy": 0.1}
"""Time of a training step; other patients have none."""
_MOST_PAIRS = 9
"""Pairs of a cured and a sick run at most; fewer if their ratio is known well before."""
_LOOKS = 3
"""How often a patient is examined at most, if the doctor cannot tell and says to run it again."""


def main(
    runs: int = 5,
    only: Annotated[list[str] | None, typer.Option(help="Patients; default: all.")] = None,
    seconds: float = 4.0,
    out: Annotated[Path, typer.Option(help="CSV file of all visits; what it has of this code is kept.")] = Path(
        "results/clinic.csv"
    ),
) -> None:
    """Fail if the doctor names more than one disease of a run wrongly, blames the healthy, or breaks a promise."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the bucket is unmounted
    seen = {(visit["run"], visit["patient"]): visit for visit in _of_this_code(out)}
    with files(), Nursery().replacing():
        for run in range(1, runs + 1):
            for name in only or DISEASES:
                if (f"{run}", name) not in seen:
                    seen[f"{run}", name] = _visit(run, name, seconds)
                    visits.keep(out, seen[f"{run}", name])
                print(told(seen[f"{run}", name]), flush=True)
    failed = False
    for run in range(1, runs + 1):
        wrong = [visit["patient"] for (of, _), visit in seen.items() if of == f"{run}" and not visits.right(visit)]
        print(f"run {run}: {len(wrong)} named wrongly: {', '.join(wrong) or 'none'}")
        failed |= len(wrong) > 1 or "healthy" in wrong
    failed |= not all(visits.kept(visit) for visit in seen.values())
    raise typer.Exit(code=failed)


def told(visit: Visit) -> str:
    """Return a visit as a line."""
    line = f"run {visit['run']}, {visit['patient']}: {visit['named']}"
    if not visits.right(visit):
        line += f" (WRONG: {visit['evidence']})"
    if visits.promises(visit):
        line += f"; {visit['cure']}: promised {visit['promised_gain']}, gave {visit['given_gain']}"
    return line + ("" if visits.kept(visit) else " (NOT KEPT)")


def _code() -> str:
    """Return what tells apart visits of different code."""
    doctor = sorted(Path(loaderbench.doctor.__file__).parent.glob("*.py"))
    return code_digest([*doctor, Path(patients.__file__)])[:12]


def _of_this_code(out: Path) -> list[Visit]:
    try:
        return [visit for visit in visits.read(out) if visit["code"] == _code()] if out.exists() else []
    except ValueError as error:
        raise SystemExit(str(error)) from error


def _visit(run: int, name: str, seconds: float) -> Visit:
    """Return what the doctor says of a patient, and what its first cure gives, if it changes the speed."""
    looks = 1
    while (diagnosis := _examined(name, seconds)).bottleneck == "cannot tell" and looks < _LOOKS:
        looks += 1
    visit = {
        **dict.fromkeys(visits.COLUMNS, ""),
        "code": _code(),
        "run": f"{run}",
        "patient": name,
        "disease": DISEASES[name],
        "named": diagnosis.bottleneck,
        "looks": f"{looks}",
        "evidence": "; ".join(diagnosis.evidence),
        "examined_samples_per_s": f"{diagnosis.samples_per_s:.0f}",
    }
    cure = diagnosis.cures[0] if diagnosis.cures else None
    if cure is None or cure.gain is None:
        return {**visit, "cure": cure.what if cure else ""}
    given: list[float] = []
    sick: list[float] = []
    while not settled(given) and len(given) < _MOST_PAIRS:
        cured = speed(target(name, cured=True))
        sick.append(speed(target(name)))
        given.append(cured / sick[-1])
    return {
        **visit,
        "cure": cure.what,
        "promised_gain": f"{cure.gain:.2f}",
        "given_gain": f"{geometric_mean(given):.2f}",
        "later_samples_per_s": f"{median(sick):.0f}",
    }


def _examined(name: str, seconds: float) -> Diagnosis:
    return examine(target(name), seconds=seconds, step_s=STEP_S.get(name), folder=Path.cwd())


def target(name: str, *, cured: bool = False) -> str:
    """Return what the doctor is given."""
    sick = {"slow_model": "healthy"}.get(name, name)
    return f"tests.clinic.patients:{sick}{'_cured' if cured else ''}"


def speed(of: str) -> float:
    """Return the speed of a loader without a change, samples/s."""
    with tempfile.TemporaryDirectory() as folder:
        report = run_child("loaderbench.doctor.experiment.run", Experiment(of, ".", 4.0, Change()), Path(folder, "log"))
    seen: Observation = report["observation"]
    return seen.samples_per_s


@contextmanager
def files() -> Iterator[None]:
    """Make the patients' files; the small ones also on a mounted bucket, behind a network of 10 ms for a round trip."""
    with tempfile.TemporaryDirectory() as folder:
        clinic, certificates = Path(folder, "clinic"), Path(folder, "certificates")
        patients.make_files(clinic)
        os.environ["CLINIC"] = str(clinic)
        certificates.mkdir()
        loopback.certify(certificates)
        link = Link(latency_s=0.01, hosts={loopback.METERED_HOST: loopback.HOST})
        with loopback.serve(Path(folder), certificates) as endpoint, proxy(link) as url:
            variables = {**loopback.environment(loopback.metered(endpoint), certificates), "HTTPS_PROXY": url}
            with mounted("clinic/small", clinic / "mounted", variables):
                yield


@contextmanager
def mounted(place: str, folder: Path, variables: dict[str, str]) -> Iterator[None]:
    """Mount a part of a bucket, without any cache. Needs FUSE: apt install fuse3."""
    folder.mkdir()
    options = [
        ":s3,provider=Other,env_auth:" + place,
        str(folder),
        "--direct-io",
        "--vfs-cache-mode=off",
        "--read-only",
    ]
    server = subprocess.Popen(rclone.command("mount", *options), env={**variables, "RCLONE_CONFIG": os.devnull})
    try:
        while not os.path.ismount(folder):
            if server.poll() is not None:
                raise SystemExit("rclone cannot mount; see above")
            time.sleep(0.1)
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=False)
        server.kill()
        server.wait()


if __name__ == "__main__":
    typer.run(main)
