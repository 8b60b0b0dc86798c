"""Publish and download formats, as tasks of child processes."""

import json
from pathlib import Path
from time import perf_counter_ns
from typing import Any


def publish(spec: dict[str, Any]) -> dict[str, Any]:
    """Publish the formats in the folders `spec["folders"]` below the URL `spec["to"]`."""
    from loaderbench.bucket.repository import MANIFEST, Repository
    from loaderbench.machine.progress import Display

    repository = Repository(spec["to"])
    for folder in map(Path, spec["folders"]):
        repository.publish(folder, json.loads((folder / MANIFEST).read_text()), Display())
    return {"status": "ok", "reason": ""}


def download(spec: dict[str, Any]) -> dict[str, Any]:
    """Fetch the format `spec["name"]` from below the URL `spec["location"]` into the empty folder `spec["out"]`.

    Return the columns of `Record`; `download_s` includes the imports and the start of rclone.
    """
    started = perf_counter_ns()
    from loaderbench.bucket.repository import Repository
    from loaderbench.machine.progress import Display

    repository = Repository(spec["location"])
    if repository.pull(spec["name"], Path(spec["out"]), Display()) is None:
        return {"status": "failed", "reason": repository.lacks(spec["name"])}
    return {"status": "ok", "reason": "", "download_s": (perf_counter_ns() - started) / 1e9}
