"""Certify which work each contestant does, untimed, on probe images; keep the certificates in the cache."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from loaderbench import api
from loaderbench.api import Mode
from loaderbench.campaign import pixel_values, registry
from loaderbench.campaign.campaign import Campaign
from loaderbench.campaign.schema import Contestant, Data
from loaderbench.campaign.tuning import Settings, options_at
from loaderbench.certify import partial_shuffle, probe
from loaderbench.certify.observation import SEEN, limit_s
from loaderbench.formats import Prepared, modes, prepare
from loaderbench.images import CanonicalImages, canonical_store
from loaderbench.images.sources import PROBE
from loaderbench.machine import gpu, libraries, page_cache
from loaderbench.machine.code_digest import code_digest
from loaderbench.machine.files import building, locked, write_whole
from loaderbench.machine.progress import Display
from loaderbench.machine.text import cell
from loaderbench.machine.workers import map_processes
from loaderbench.records import certificates
from loaderbench.records.certificates import UNAVAILABLE, Certificate
from loaderbench.trial import device, needs, processes
from loaderbench.trial.spec import ObserveSpec

_PROCESSES = 2
"""While one contestant is observed, which may take gigabytes, another one is prepared or judged."""
_KEPT = "certificates"
"""Folder in the cache."""
_BATCHES = 5.4
"""Minimum number of batches in a rank's epoch of the probe: the last is incomplete, and a loader that reuses buffers,
such as FFCV's five, reuses one."""
_CODE = [
    *sorted(Path(__file__).parent.glob("*.py")),
    *(Path(str(m.__file__)) for m in (api, certificates, pixel_values, modes, canonical_store, page_cache, device)),
]
"""The code that certificates depend on, beside the loader's and the writer's."""
_LIBRARIES = ("cv2", "numpy", "PIL", "scipy", "simplejpeg", "torch")
"""Import names of the libraries that certificates depend on, beside the loader's."""


@dataclass(frozen=True)
class Job:
    """One contestant to be certified."""

    spec: ObserveSpec
    """Without `scratch` and `turn`."""
    canonical: Path
    """Folder of the probe's canonical images."""
    mode: Mode
    log: Path

    @cached_property
    def key(self) -> str:
        """Key of everything that the certificate depends on."""
        adapter = registry.adapters("loader")[self.spec.loader]
        installed = libraries.distributions(sorted({*_LIBRARIES, *adapter.requires}))
        versions = libraries.with_dependencies(installed)
        described = [asdict(self.spec), self.canonical, versions, gpu.describe()]
        parts = [json.dumps(described, sort_keys=True, default=str), adapter.code_digest(), code_digest(_CODE)]
        return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]

    def kept(self, cache: Path) -> Certificate | None:
        """Return the certificate that the cache holds."""
        path = self._path(cache)
        return Certificate.from_dict(json.loads(path.read_text())) if path.exists() else None

    def keep(self, certificate: Certificate, cache: Path) -> None:
        """Keep a certificate in the cache, unless it failed: the next run tries again after a failure."""
        if not certificate.failure:
            write_whole(self._path(cache), json.dumps(asdict(certificate), indent=1))

    def _path(self, cache: Path) -> Path:
        return cache / _KEPT / f"{self.key}.json"


def certify(
    campaign: Campaign,
    prepared: Prepared,
    cache: Path,
    display: Display,
    tuned: Mapping[str, Settings | None] = MappingProxyType({}),
) -> dict[str, Certificate]:
    """Return the certificate of every selected contestant but controls, by name; empty if the campaign has no probe.

    `tuned`: best settings of contestants, which get a further certificate, by `certificates.tuned`. Raises
    PrepareError, SourceError or BusyError.
    """
    if not campaign.data.probe:
        return {}
    contestants = {c.name: c for c in campaign.competing}
    at_best = {
        certificates.tuned(name): (contestants[name], at) for name, at in tuned.items() if at and name in contestants
    }
    settings: dict[str, tuple[Contestant, Settings]] = {name: (c, {}) for name, c in contestants.items()} | at_best
    found, jobs = to_certify(campaign, settings, cache, display)
    found |= dict(zip(jobs, _made(list(jobs.values()), cache, display), strict=True))
    return {name: _on_own_images(found[name], campaign, c, prepared, cache) for name, (c, _) in settings.items()}


def to_certify(
    campaign: Campaign, settings: Mapping[str, tuple[Contestant, Settings]], cache: Path, display: Display
) -> tuple[dict[str, Certificate], dict[str, Job]]:
    """Return certificates of contestants that cannot be observed, with the reason, and the jobs of all others, by name.

    `settings`: contestants with the settings that differ from theirs. Prepares the probe in the cache.
    """
    (cache / _KEPT).mkdir(parents=True, exist_ok=True)
    probing = _probing(campaign)
    probes = prepare(probing, _tree(cache, display, probing.work.epoch_images), cache, display, strict=True)
    found: dict[str, Certificate] = {}
    jobs: dict[str, Job] = {}
    for name, (contestant, at) in settings.items():
        written = next(record for record in probes.records if record.format == contestant.format)
        if reason := registry.adapters("loader")[contestant.loader].why_unavailable():
            found[name] = Certificate(failure=f"{UNAVAILABLE}: {reason}")
        elif written.status != "ok":
            reason = f"{written.status}: format {contestant.format}: {written.reason}"
            found[name] = Certificate(failure=reason)
        else:
            job = _job(probing, contestant, at, probes, cache / f"certify-{name.replace('/', '+')}.log")
            if shortage := needs.shared_memory_shortage(contestant.loader, job.spec.work, job.spec.options):
                found[name] = Certificate(failure=f"{UNAVAILABLE}: {shortage}")
            else:
                jobs[name] = job
    return found, jobs


def _on_own_images(
    certificate: Certificate, campaign: Campaign, contestant: Contestant, prepared: Prepared, cache: Path
) -> Certificate:
    """Add what is known of the campaign's own images: what the format was found to store, and a partial order.

    A failure is put into the form in which it is kept.
    """
    form = campaign.format_of(contestant)
    stored = next(record.stored for record in prepared.records if record.format == form.name)
    wrong = modes.deviation(form.encoding, stored)
    traits = {"stored": stored, **certificate.traits} if stored else certificate.traits
    figures = certificate.figures
    if form.name in prepared.artifacts and not certificate.failure:
        log = cache / f"order-{contestant.name}.log"
        figures = {**figures, **partial_shuffle.figures(campaign, contestant, prepared.artifacts[form.name], log)}
    faults = (*filter(None, [wrong]), *certificate.faults)
    return replace(certificate, failure=cell(certificate.failure), faults=faults, traits=traits, figures=figures)


def _probing(campaign: Campaign) -> Campaign:
    """Return the campaign on the probe: every image, once an epoch, of as many images as give enough batches."""
    work = campaign.work
    images = max(campaign.data.probe, round(_BATCHES * work.batch_size * work.ranks))
    changes = {"data": Data(samples=None), "work": work.model_copy(update={"epoch_images": images})}
    return campaign.model_copy(update=changes)


def _tree(cache: Path, display: Display, samples: int) -> Path:
    folder = cache / PROBE / f"{samples}-{code_digest([Path(probe.__file__)])[:8]}"
    with locked(cache, f"another loaderbench is preparing data in {cache}; wait for it to end"):
        if not folder.exists():
            with building(folder) as partial, display.stage("making probe images", samples) as on_progress:
                probe.write(partial, samples, on_progress)
    return folder


def _job(probing: Campaign, contestant: Contestant, settings: Settings, probes: Prepared, log: Path) -> Job:
    artifact = probes.artifacts[contestant.format]
    work = probing.work_on(artifact.samples, 1, contestant)
    work = replace(work, workers=settings.get("workers", work.workers))
    spec = ObserveSpec(contestant.loader, artifact, work, options_at(contestant.options, settings))
    return Job(spec, probes.canonicals[contestant.format], artifact.encoding.mode, log)


def _made(jobs: list[Job], cache: Path, display: Display) -> list[Certificate]:
    """Return the jobs' certificates, from the cache if they are there."""
    kept = {job.key: certificate for job in jobs if (certificate := job.kept(cache))}
    lacking = list({job.key: job for job in jobs if job.key not in kept}.values())
    if lacking:
        with (
            display.stage("certifying contestants", len(lacking)) as on_progress,
            map_processes(_certificate, _PROCESSES) as make,
        ):
            for done, (job, certificate) in enumerate(zip(lacking, make(lacking), strict=True), 1):
                kept[job.key] = certificate
                job.keep(certificate, cache)
                on_progress(done)
    return [kept[job.key] for job in jobs]


def _certificate(job: Job) -> Certificate:
    os.environ["NUMBA_OPT"] = "0"  # FFCV is slower then, but compiles in half the time
    with TemporaryDirectory(prefix="loaderbench-") as name:
        spec = replace(job.spec, scratch=Path(name), turn=job.log.parent / _KEPT)
        # It ends itself at its own limit, after it has waited for its turn.
        ended = processes.run("loaderbench.certify.observe.run", spec, job.log, 3 * limit_s(spec.artifact.samples))
        return judged(job, spec.scratch, ended)


def judged(job: Job, scratch: Path, ended: Mapping[str, str]) -> Certificate:
    """Return the certificate by what was observed. `ended`: how the observation ended, if it left too little."""
    from loaderbench.certify.judge import judge  # loads SciPy's statistics, which the harness need not hold

    if len(list(scratch.glob(f"rank*/{SEEN}"))) < job.spec.work.ranks:
        return Certificate(failure=f"{ended['status']}: {ended['reason']}; see {job.log}")
    # A failure after that does not matter: an honest loader fails on empty files.
    job.log.unlink(missing_ok=True)
    try:
        return judge(scratch, CanonicalImages(job.canonical), job.spec.work, job.mode)
    except Exception as error:  # noqa: BLE001 - a broken loader may deliver anything
        return Certificate(failure=f"failed: what it delivers cannot be judged: {type(error).__name__}: {error}")
