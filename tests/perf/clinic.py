"""Try the doctor on loaders with one known disease each: does it name it, and does its first cure help as promised?

python -m tests.perf.clinic                     # every patient once, about a minute and a half for each
python -m tests.perf.clinic --runs 5 --only leak
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from loaderbench.bucket import loopback, rclone
from loaderbench.bucket.metered_network import Link, proxy
from loaderbench.doctor import examine
from loaderbench.doctor.case import Diagnosis
from loaderbench.doctor.changes import Change
from loaderbench.doctor.experiment import Experiment, Observation
from loaderbench.machine.process import run_child
from tests.clinic import patients

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
_TOLERANCE = 0.15


def main(
    runs: int = 1,
    only: Annotated[list[str] | None, typer.Option(help="Patients; default: all.")] = None,
    seconds: float = 4.0,
) -> None:
    """Print one line for each patient; fail if a run names more than one wrongly, or blames the healthy one."""
    failed = False
    with files():
        for run in range(runs):
            wrong = []
            for name in only or DISEASES:
                diagnosis = examine(target(name), seconds=seconds, step_s=STEP_S.get(name), folder=Path.cwd())
                right = diagnosis.bottleneck == DISEASES[name]
                wrong += [] if right else [name]
                told = f"{diagnosis.bottleneck}{'' if right else ' (WRONG)'}{promise(name, diagnosis)}"
                print(f"run {run + 1}, {name}: {told}", flush=True)
            print(f"run {run + 1}: {len(wrong)} named wrongly: {', '.join(wrong) or 'none'}", flush=True)
            failed |= len(wrong) > 1 or "healthy" in wrong
    raise typer.Exit(code=failed)


def target(name: str, *, cured: bool = False) -> str:
    """Return what the doctor is given."""
    sick = {"slow_model": "healthy"}.get(name, name)
    return f"tests.clinic.patients:{sick}{'_cured' if cured else ''}"


def promise(name: str, diagnosis: Diagnosis) -> str:
    """Return what the first cure promised and what it gave, if it changes the speed."""
    if not diagnosis.cures or diagnosis.cures[0].gain is None:
        return ""
    cure = diagnosis.cures[0]
    gain = median(speed(target(name, cured=True)) / speed(target(name)) for _ in range(3))
    kept = abs(cure.gain / gain - 1) < _TOLERANCE
    return f"; {cure.what}: promised {cure.gain:.2f}, gave {gain:.2f}{'' if kept else ' (NOT KEPT)'}"


def speed(of: str) -> float:
    """Return the samples/s of a loader without a change."""
    with tempfile.TemporaryDirectory() as folder:
        report = run_child("loaderbench.doctor.experiment.run", Experiment(of, ".", 4.0, Change()), Path(folder, "log"))
    seen: Observation = report["observation"]
    return seen.samples_per_s


@contextmanager
def files() -> Iterator[None]:
    """Make the patients' files; the small ones also on a mounted bucket, behind a network of 40 ms for a round trip."""
    with tempfile.TemporaryDirectory() as folder:
        clinic, certificates = Path(folder, "clinic"), Path(folder, "certificates")
        patients.make_files(clinic)
        os.environ["CLINIC"] = str(clinic)
        certificates.mkdir()
        loopback.certify(certificates)
        link = Link(latency_s=0.04, hosts={loopback.METERED_HOST: loopback.HOST})
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
    server = subprocess.Popen(rclone.command("mount", *options), env=variables)
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
