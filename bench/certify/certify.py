"""Does every contestant do the same work? Each gets a certificate, made untimed, on images that show what is done.

A certificate is kept in the cache under all that it depends on.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from loaderbench.campaign import registry
from loaderbench.campaign.campaign import Campaign
from loaderbench.certify import observe, probe
from loaderbench.formats.payloads import unasked
from loaderbench.formats.prepare import prepare
from loaderbench.images.canonical_store import CanonicalImages
from loaderbench.machine.code_digest import code_digest
from loaderbench.machine.files import building, locked, write_whole
from loaderbench.machine.workers import map_processes
from loaderbench.records.certificates import Certificate
from loaderbench.trial import processes
from loaderbench.trial.spec import ObserveSpec

if TYPE_CHECKING:
    from loaderbench.api import Mode
    from loaderbench.campaign.schema import Contestant, Format
    from loaderbench.formats.prepare import Prepared
    from loaderbench.machine.progress import Display

_PROCESSES = 2
"""While one contestant is observed, which takes up to a gigabyte, another one is made ready or judged."""
_BATCH_SIZE = 64
"""At most: so that an epoch of the probe has a number of batches."""
_LIMIT_S = 240.0
"""Of an observation, and of the wait for the one before it to end."""


@dataclass(frozen=True)
class _Job:
    """One contestant to be certified."""

    spec: ObserveSpec
    """Without `scratch` and `turn`."""
    canonical: Path
    """Folder of the probe's canonical images."""
    mode: Mode
    log: Path

    @property
    def key(self) -> str:
        """Changes with everything that the certificate depends on."""
        adapter = registry.adapters("loader")[self.spec.loader]
        described = [asdict(self.spec), self.canonical, adapter.versions()]
        parts = json.dumps(described, sort_keys=True, default=str).encode()
        code = adapter.code_digest() + code_digest(sorted(Path(__file__).parent.glob("*.py")))
        return hashlib.sha256(parts + code.encode()).hexdigest()[:16]


def certify(campaign: Campaign, prepared: Prepared, cache: Path, display: Display) -> dict[str, Certificate]:
    """Return the certificate of every contestant that is no control, by name; none if the campaign wants none.

    Raises PrepareError, SourceError or BusyError.
    """
    if not campaign.data.probe:
        return {}
    probing = _probing(campaign)
    probes = prepare(probing, _tree(cache, display, campaign.data.probe), cache, display, strict=True)
    found: dict[str, Certificate] = {}
    jobs: dict[str, _Job] = {}
    for contestant in campaign.competing:
        written = next(record for record in probes.records if record.format == contestant.format)
        if reason := registry.adapters("loader")[contestant.loader].why_unavailable():
            found[contestant.name] = Certificate(failure=reason)
        elif written.status != "ok":
            found[contestant.name] = Certificate(failure=f"format {contestant.format}: {written.reason}")
        else:
            jobs[contestant.name] = _job(probing, contestant, probes, cache)
    found |= dict(zip(jobs, _made(list(jobs.values()), cache, display), strict=True))
    return {c.name: _with_stored(found[c.name], campaign.format_of(c), prepared) for c in campaign.competing}


def _with_stored(certificate: Certificate, form: Format, prepared: Prepared) -> Certificate:
    """Add what the format was found to store when the campaign's own images were written."""
    stored = next(record.stored for record in prepared.records if record.format == form.name)
    wrong = unasked(form.encoding, stored)
    traits = {"stored": stored, **certificate.traits} if stored else certificate.traits
    return replace(certificate, faults=(*filter(None, [wrong]), *certificate.faults), traits=traits)


def _probing(campaign: Campaign) -> Campaign:
    """Return the campaign on the probe: every image, once an epoch."""
    work = {"batch_size": min(campaign.work.batch_size, _BATCH_SIZE), "epoch_images": campaign.data.probe}
    changes = {"data": {"samples": None}, "work": {**campaign.work.model_dump(), **work}}
    return Campaign.model_validate({**campaign.model_dump(), **changes})


def _tree(cache: Path, display: Display, samples: int) -> Path:
    folder = cache / "probe" / f"{samples}-{code_digest([Path(probe.__file__)])[:8]}"
    with locked(cache, f"another loaderbench is preparing data in {cache}; wait for it to end"):
        if not folder.exists():
            with building(folder) as partial_, display.stage("making probe images", samples) as on_progress:
                probe.write(partial_, samples, on_progress)
    return folder


def _job(probing: Campaign, contestant: Contestant, probes: Prepared, cache: Path) -> _Job:
    artifact = probes.artifacts[contestant.format]
    work = probing.work_on(artifact.samples, 1, contestant)
    spec = ObserveSpec(contestant.loader, artifact, work, contestant.options)
    log = cache / f"certify-{contestant.name}.log"
    return _Job(spec, probes.canonicals[contestant.format], artifact.encoding.mode, log)


def _made(jobs: list[_Job], cache: Path, display: Display) -> list[Certificate]:
    """Return the jobs' certificates from the cache, made now if they are not there."""
    folder = cache / "certificates"
    folder.mkdir(parents=True, exist_ok=True)
    kept = {path.stem: Certificate.from_dict(json.loads(path.read_text())) for path in folder.glob("*.json")}
    lacking = list({job.key: job for job in jobs if job.key not in kept}.values())
    if lacking:
        with (
            display.stage("certifying contestants", len(lacking)) as on_progress,
            map_processes(_certificate, _PROCESSES) as certificates,
        ):
            for done, (job, certificate) in enumerate(zip(lacking, certificates(lacking), strict=True), 1):
                kept[job.key] = certificate
                if not certificate.failure:  # which may pass
                    write_whole(folder / f"{job.key}.json", json.dumps(asdict(certificate), indent=1))
                on_progress(done)
    return [kept[job.key] for job in jobs]


def _certificate(job: _Job) -> Certificate:
    from loaderbench.certify.judge import judge  # brings SciPy's statistics, for which the harness itself is too small

    os.environ["NUMBA_OPT"] = "0"  # what is not timed need not be fast, and is compiled in half the time
    with TemporaryDirectory(prefix="loaderbench-") as name:
        scratch = Path(name)
        spec = replace(job.spec, scratch=scratch, turn=job.log.parent / "certificates")
        ended = processes.run("loaderbench.certify.observe.run", spec, job.log, _LIMIT_S)
        work = spec.work
        if len(list(scratch.glob(f"rank*/{observe.SEEN}"))) < work.ranks:
            return Certificate(failure=f"{ended['status']}: {ended['reason']}; see {job.log}")
        # What became of it later does not matter: to fail on empty files is what an honest loader does.
        job.log.unlink(missing_ok=True)
        return judge(scratch, CanonicalImages(job.canonical), work, job.mode)
