"""The installed wheel works without loader libraries, and beside packages named like our folders."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests import fabricate

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
OTHERS = ("bench", "loaders", "writers")
HEAVY = ("boto3", "ffcv", "litdata", "obstore", "torch", "torchvision")


@pytest.fixture(scope="module")
def core(tmp_path_factory) -> Path:
    """An environment's bin folder, with only the core's packages and the project's own wheel."""
    folder = tmp_path_factory.mktemp("core")
    python = folder / "env" / "bin" / "python"
    lock = ROOT / "requirements" / "core.lock"
    install = [BIN / "uv", "pip", "install", "-q", "--python", python]
    for command in (
        [BIN / "hatchling", "build", "-t", "wheel", "-d", folder],
        [BIN / "uv", "venv", "-q", "--python", sys.executable, folder / "env"],
        [*install, "--require-hashes", "-r", lock],
    ):
        subprocess.run(command, cwd=ROOT, check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*install, "--no-deps", wheel], check=True)
    (packages,) = folder.glob("env/lib/python*/site-packages")
    for name in OTHERS:  # another project's packages, in the same environment
        (packages / name).mkdir()
        (packages / name / "__init__.py").write_text("OWNER = 'another project'\n")
    return python.parent


def loaderbench(core: Path, *arguments: str, cwd: Path) -> str:
    command = [core / "loaderbench", *arguments]
    done = subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_core_has_no_loader_library(core, tmp_path):
    script = f"import importlib.util as u; print([n for n in {HEAVY} if u.find_spec(n)])"
    command = [core / "python", "-c", script]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_help_runs_with_only_the_core(core, tmp_path):
    assert "adapters" in loaderbench(core, "--help", cwd=tmp_path)


@pytest.mark.parametrize(("adapter", "missing"), [("ffcv", "ffcv"), ("litdata", "litdata"), ("imagefolder", "torch")])
def test_adapters_command_lists_missing_libraries_and_their_install_command(core, tmp_path, adapter, missing):
    listing = loaderbench(core, "adapters", cwd=tmp_path).splitlines()
    rows = [line.split(maxsplit=2) for line in listing]
    (state,) = (state for kind, name, state in rows if (kind, name) == ("loader", adapter))
    cure = f"pip install '.[{adapter}]'"
    assert "unavailable" in state
    assert cure in state
    assert missing in state.replace(cure, "")


@pytest.mark.slow
def test_core_writes_a_report_of_existing_results(core, tmp_path):
    fabricate.campaign(tmp_path / "results" / "made", cast=fabricate.CAST[:2], blocks=1)
    output = loaderbench(core, "report", "results/made", cwd=tmp_path)
    assert (tmp_path / output.strip()).read_text().startswith("# ")
    assert list((tmp_path / "reports" / "made").glob("*.png"))


def test_wheel_contains_shipped_campaigns_and_templates(core):
    (package,) = core.parent.glob("lib/python*/site-packages/loaderbench")
    assert list(package.glob("campaign/shipped/*.toml"))
    assert list(package.glob("report/templates/*"))


def test_wheel_installs_one_package_and_leaves_others_unchanged(core, tmp_path):
    (packages,) = core.parent.glob("lib/python*/site-packages")
    (record,) = packages.glob("loaderbench-*.dist-info/RECORD")
    paths = [line.split(",")[0] for line in record.read_text().splitlines()]
    top = {path.split("/")[0] for path in paths if not path.startswith("../")}
    assert top == {"loaderbench", record.parent.name}
    script = f"import importlib; print({{importlib.import_module(name).OWNER for name in {OTHERS}}})"
    owners = subprocess.run([core / "python", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert owners.stdout.strip() == "{'another project'}"


@pytest.mark.slow
def test_installed_data_module_delivers_batches_beside_other_packages(core, everything, tmp_path):
    """PyTorch and Lightning come from this environment, after everything that the clean one has."""
    folder = Path(everything.artifacts["jpeg-files"].path).parent
    program = (
        "import sys, loaders; sys.path.append(sys.argv[1]); assert loaders.OWNER == 'another project'\n"
        "import loaderbench; assert sys.prefix in loaderbench.__file__\n"
        "from loaderbench import Artifact, DataModule, Work\n"
        "work = Work(batch_size=16, workers=1, image_size=32)\n"
        "data = DataModule('imagefolder', work, train=Artifact.load(sys.argv[2]))\n"
        "print([tuple(images.shape) for images, _ in data.train_dataloader()])\n"
        "data.teardown('fit')\n"
    )
    command = [core / "python", "-c", program, sysconfig.get_path("purelib"), folder]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([(16, 3, 32, 32)] * 6)


@pytest.mark.slow
def test_doctor_examines_a_loader_where_torch_is_the_only_loader_library(core, tmp_path):
    beside = tmp_path / "beside"
    beside.mkdir()
    for package in Path(sysconfig.get_path("purelib")).iterdir():  # torch, and what it needs, of this environment
        if not package.name.startswith((*HEAVY[:-2], "torchvision", "cv2", "numba", "loaderbench", "_", "numpy")):
            (beside / package.name).symlink_to(package)
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from torch.utils.data import DataLoader, TensorDataset\n"
        "def whole():\n"
        "    return DataLoader(TensorDataset(torch.zeros(64, 3)), 8, num_workers=1)\n"
        "def make():\n"
        "    yield from whole()\n"
    )
    program = (
        "import sys, pathlib\n"
        "from loaderbench.doctor.changes import Change\n"
        "from loaderbench.doctor.experiment import Experiment\n"
        "from loaderbench.machine.process import run_child\n"
        "experiment = Experiment('mine:whole', '.', 0.2, Change(timed=True, library_threads=1))\n"
        "print(run_child('loaderbench.doctor.experiment.run', experiment, pathlib.Path('log'))['status'])\n"
    )
    for command, expected in (
        ([core / "loaderbench", "doctor", "mine:make", "--seconds", "0.5"], "samples/s"),
        ([core / "python", "-c", program], "ok"),
    ):
        environment = {**os.environ, "PYTHONPATH": str(beside)}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert expected in done.stdout


def test_command_line_imports_no_loader_library():
    script = f"import sys, loaderbench.cli; print([n for n in {HEAVY} if n in sys.modules])"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_error_for_s3_without_boto3_names_the_install_command(core, tmp_path):
    command = [core / "loaderbench", "prepare", "--data", "s3://bucket/prefix"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 1
    assert (
        "s3://bucket/prefix/ needs boto3, which is missing: make setup, or pip install '.[s3]' in the checkout"
        in done.stderr
    )
