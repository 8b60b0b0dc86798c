"""Sections on conditions and trust: what was run, controls, disturbed trials, failures, gaps, and how to repeat it."""

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from loaderbench.campaign.campaign import CAMPAIGNS
from loaderbench.campaign.pixel_values import delivers
from loaderbench.findings import verdicts
from loaderbench.machine import page_cache
from loaderbench.machine.text import printable
from loaderbench.report.markdown import ranges, settings, verbatim
from loaderbench.report.material import Material
from loaderbench.run.bucket_under_test import ON_LOOPBACK

_KINDS = {"write": "Converting: ", "limit": "Limit: ", "tune": "Search: "}
_NO_COLD = (
    "the harness reads each format through before its trial. It verifies that the format is in the page cache and that "
    "nothing is read from disk, and flags a trial for which it cannot. The campaign standard measures both."
)
_SYNTHETIC = re.compile(r"synthetic, seed \d+")


def conditions(material: Material) -> dict[str, Any]:
    """Return the values of the section on what was measured on what."""
    env, campaign = material.env, material.campaign
    contestants = [
        (c["title"], c["loader"], c["format"], delivers(campaign["work"], c.get("work")), settings(c["options"]))
        for c in campaign["contestants"]
    ]
    formats = []
    for f in campaign["formats"]:
        side = None if f["mode"] == "original" else f["max_side"]
        quality = None if f["mode"] in {"original", "raw"} else f["quality"]
        formats.append([f["name"], f["writer"], f["mode"], side, quality])
    return {
        "env": env,
        "campaign": campaign,
        "blocks": verdicts.counted(material.analysis.blocks, "block"),
        "delivered": delivers(campaign["work"]),
        "versions": settings(env["versions"]),
        "driver": env.get("gpu_driver"),
        "quota": env["host"].get("cpu_quota_cores"),
        "memory_limit": env["host"].get("memory_limit_mib"),
        "variables": settings(env.get("variables", {})),
        "processes": f"{material.processes} {material.process_noun}s" if material.process_noun else "",
        "left_out": ", ".join(env.get("left_out", ())),
        "contestants": contestants,
        "formats": formats,
    }


def controls(material: Material) -> dict[str, Any]:
    """Return the values of the section on the controls."""
    passed = {True: "yes", False: verbatim("**no**"), None: "unread"}
    found = material.analysis.controls
    return {"controls": [(c.title, c.expected, c.measured or "not measured", passed[c.passed]) for c in found]}


def noise(material: Material) -> dict[str, Any]:
    """Return the values of the section on disturbed trials."""
    found = material.analysis
    flagged = [
        (row.trial, row.images_per_s, "yes" if row.trial in found.counted else "no", "; ".join(flags))
        for row, flags in found.flagged
    ]
    trials, reruns = len(flagged) + found.quiet, material.campaign["timing"].get("reruns", 0)
    return {"flagged": flagged, "trials": trials, "reruns": reruns}


def failures(material: Material) -> dict[str, Any]:
    """Return the values of the section on failures and unreadable images."""
    failed = [
        (_KINDS.get(f.kind, "") + f.title, f.status, f.rows, ranges(f.blocks), f.reason)
        for f in material.analysis.failures
    ]
    examples = [(row["path"], row["reason"]) for row in material.examples]
    images = verdicts.counted(material.unreadable, "unreadable image")
    return {"failed": failed, "examples": examples, "unreadable": material.unreadable, "images": images}


def gaps(material: Material) -> dict[str, Any]:
    """Return the values of the section on what the report does not show."""
    return {"gaps": list(_gaps(material))}


def _gaps(material: Material) -> Iterator[tuple[str, str]]:
    """Yield what is missing, and why."""
    found, env, campaign = material.analysis, material.env, material.campaign
    trained = [f for f in found.by_consumer if f.consumer in {"train", "lightning"}]
    if found.gpu_reason or not env["gpu"]:
        yield "GPU load", f"{found.gpu_reason or env['gpu_reason']}."
    if not found.cold_starts and found.measured and not campaign.get("limited"):
        yield "Cold reads", _NO_COLD
    if not (trained and env["gpu"]):
        yield "Data stall of a GPU", "no model was trained on a GPU here, so there are no steps to wait between."
    if campaign["work"].get("device") == "cuda" and not any("copy_p50_ms" in f.summary.medians for f in trained):
        cause = "" if env["gpu"] else ", because there was no GPU"
        yield "Copies to the GPU", f"none was measured in training{cause}."
    yield from _not_kept(material)
    yield "Other machines", "all figures come from one machine and need not hold on another."
    if not trained:
        yield "Training", "no model was trained."
    samples = env["data"]["samples"]
    if samples and (passes := campaign["work"]["epoch_images"] / samples) > 1:
        visits = f"an image {passes:.3g} times on average"
        yield "Epochs of the data set", f"each measured epoch visits {visits}, so that a small set gives a long epoch."
    if found.recorded < found.planned:
        none = f"; of {', '.join(found.not_begun)}, none was" if found.not_begun else ""
        yield f"{found.planned - found.recorded:,} of {found.planned:,} trials", f"not run yet{none}."
    for failure in found.failures:
        if (failure.kind, failure.status) == ("load", "unavailable"):
            yield failure.title, failure.reason


def _not_kept(material: Material) -> Iterator[tuple[str, str]]:
    """Yield which formats the memory cannot keep, and why."""
    host = material.env["host"]
    memory_bytes = (host.get("memory_limit_mib") or host["memory_mib"]) << 20
    for written in material.analysis.writes:
        if written.size_bytes and (why := page_cache.why_not_kept(written.size_bytes, memory_bytes)):
            yield f"Warm trials of {written.title}", f"{why}."


def reproduction(material: Material) -> dict[str, Any]:
    """Return the values of the section on how to repeat the campaign."""
    return {"command": verbatim(_command(material.env))}


def _command(env: Mapping[str, Any]) -> str:
    """Return the command line that repeats the campaign on the same images."""
    campaign, data = env["campaign"], env["data"]
    split = campaign["data"].get("split")
    file, argument = env.get("campaign_file"), data.get("argument")
    if not file:  # an earlier version wrote it, or a program that used the harness without its command line
        file = campaign["name"] if (CAMPAIGNS / f"{campaign['name']}.toml").exists() else f"{campaign['name']}.toml"
    if "argument" not in data and not _SYNTHETIC.fullmatch(data["origin"]):
        argument = data["origin"].removesuffix(f", split {split}")
    words = ["loaderbench", "bench", file]
    if argument:
        words += ["--data", printable(argument)]
    if split:
        words += ["--split", split]
    if (bucket := data.get("bucket", ON_LOOPBACK)) != ON_LOOPBACK:
        words += ["--artifacts", bucket]
    if campaign["data"]["samples"] is not None:
        words += ["--samples", campaign["data"]["samples"]]
    words += ["--batch-size", campaign["work"]["batch_size"]]
    if campaign["work"]["workers"] != "cores":
        words += ["--workers", campaign["work"]["workers"]]
    return shlex.join(map(str, [*words, "--blocks", campaign["timing"]["blocks"]]))
