"""On what, with what and of what was a campaign measured? The content of `env.json`."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

import loaderbench
from loaderbench.campaign import registry
from loaderbench.machine.gpu import Gpu
from loaderbench.records.record import now

if TYPE_CHECKING:
    from loaderbench.campaign.campaign import Campaign

_ROOT = Path(__file__).resolve().parents[2]
"""The checkout, if there is one."""
_CONDITIONS = {"campaign": "campaign", "data": "data", "code_digest": "code", "versions": "versions", "host": "machine"}
"""What must be equal for two sets of rows to be one campaign, and its name for people."""


def describe(campaign: Campaign, data: dict[str, Any]) -> dict[str, Any]:
    """Return the description of a campaign that starts now on this machine."""
    with Gpu() as gpu:
        gpu_name, gpu_reason = gpu.name, gpu.reason
    tracked = _output("git", "-C", str(_ROOT), "ls-files", "--error-unmatch", str(Path(__file__).resolve()))
    commit = _output("git", "-C", str(_ROOT), "rev-parse", "HEAD") if tracked else None
    return {
        "schema": 1,
        "started_at": now(),
        "loaderbench": version("loaderbench"),
        "git_commit": commit,
        "git_dirty": bool(
            _output("git", "-C", str(_ROOT), "status", "--porcelain", "--", "bench", "loaders", "writers")
        )
        if commit
        else None,
        "code_digest": _code_digest(),
        "host": _host(),
        "gpu": gpu_name,
        "gpu_reason": gpu_reason,
        "versions": _versions(campaign),
        "campaign": campaign.model_dump(mode="json"),
        "data": data,
    }


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return what keeps rows measured under the two descriptions from being one campaign."""
    return [name for key, name in _CONDITIONS.items() if one.get(key) != other.get(key)]


def _host() -> dict[str, Any]:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "os": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "kernel": platform.release(),
        "cpu": cpu,
        "cores_allowed": len(os.sched_getaffinity(0)),
        "cores_total": os.cpu_count(),
        "memory_mib": psutil.virtual_memory().total >> 20,
        "virtual_machine": virtual_machine(),
        "python": platform.python_version(),
    }


@cache
def virtual_machine() -> str | None:
    """Return the hypervisor's name as far as the machine tells; None on bare metal."""
    if shutil.which("systemd-detect-virt"):
        kind = _output("systemd-detect-virt", "--vm")
        return None if kind in {None, "none"} else kind
    flags = Path("/proc/cpuinfo").read_text()
    return "unnamed" if " hypervisor" in flags else None


def _versions(campaign: Campaign) -> dict[str, str]:
    """Return the versions of every library that the campaign's adapters use."""
    used = [registry.adapters("writer")[f.writer] for f in campaign.formats]
    used += [registry.adapters("loader")[c.loader] for c in campaign.contestants]
    pairs = {pair for adapter in used for pair in adapter.versions().split("; ") if pair}
    return dict(sorted((name, number) for name, _, number in (pair.partition(" ") for pair in pairs)))


def _code_digest() -> str:
    """Return a digest of the code that measures: the harness and the adapters."""
    digest = hashlib.sha256()
    package = Path(loaderbench.__file__).parent
    for folder in sorted(path.resolve() for path in package.iterdir()):
        for path in [folder] if folder.suffix == ".py" else sorted(folder.rglob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 or command[0].startswith("systemd") else None
