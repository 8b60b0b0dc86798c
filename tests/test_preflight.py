"""What a machine lacks is found before the long work, and told with the command that mends it."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loaderbench import Artifact, Work
from loaderbench.campaign import campaign as config
from loaderbench.campaign.schema import Data
from loaderbench.cli import app
from loaderbench.images import find
from loaderbench.loaders.shared import prefetched_bytes
from loaderbench.machine import files, open_files
from loaderbench.machine.disk import DiskSpaceError
from loaderbench.machine.errors import FixableError
from loaderbench.machine.files import BusyError, expanded, locked, write_whole
from loaderbench.machine.progress import Display
from loaderbench.records import trials_csv
from loaderbench.report import plots, report
from loaderbench.run import preflight, runner
from loaderbench.trial import needs
from tests import campaigns
from tests.campaigns import Ready

pytestmark = pytest.mark.usefixtures("planted")


def test_a_home_folder_is_expanded_where_python_takes_a_path(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    campaigns.file(tmp_path)
    (tmp_path / "tree").symlink_to(tree)
    (tmp_path / "artifact.json").write_text(
        '{"encoding": {"mode": "raw"}, "format": "f", "samples": 1, '
        '"label_sum": 0, "size_bytes": 1, "payload_bytes": 1}'
    )
    assert config.load("~/small.toml").name == "small"
    assert len(find("~/tree", Data(), tmp_path / "cache", Display()).paths) == 96
    assert Artifact.load("~").path == str(tmp_path / "files")


def test_a_path_below_an_unknown_home_folder_is_refused() -> None:
    with pytest.raises(FixableError, match="~nobody-here/x: no home folder is known for ~; set HOME, or"):
        expanded("~nobody-here/x")
    assert expanded("s3://bucket//x") == "s3://bucket//x"


def test_all_that_is_in_the_way_is_told_together_before_anything_is_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "free_bytes", lambda: 70_000)
    monkeypatch.setattr(open_files, "raise_limit", lambda: 40)
    (tmp_path / "file").touch()
    places = [f"--{name}={tmp_path}/file/{name}" for name in ("results", "reports")]
    done = CliRunner().invoke(app, ["bench", str(campaigns.file(tmp_path)), *places, f"--cache={tmp_path}/cache"])
    assert isinstance(done.exception, FixableError)
    told = str(done.exception).split("\n  ")
    assert [line.partition(":" if line.startswith("a:") else ";")[0] for line in told] == [
        "4 things are in the way:",
        f"{tmp_path}/file/results/small cannot be written: not a directory",
        f"{tmp_path}/file/reports/small cannot be written: not a directory",
        "a process may have 40 files open, and a trial with --workers 1 needs about 60",
        "a",
    ]
    assert " which needs 98.3 kB and has 70.0 kB free; use docker run --shm-size=64m, or " in told[-1]
    assert told[-1].endswith("or use --batch-size 5")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("option", ["--results", "--reports"])
def test_no_file_of_the_harness_is_written_among_the_images(tmp_path: Path, tree: Path, option: str) -> None:
    folders = {"--results": tmp_path, "--reports": tmp_path, option: tree / "here"}
    given = [f"{name}={folder}" for name, folder in folders.items()]
    small = str(campaigns.file(tmp_path))
    done = CliRunner().invoke(app, ["bench", small, f"--data={tree}", f"--cache={tmp_path}/cache", *given])
    assert str(done.exception) == (
        f"{tree}/here is among your images, {tree}, which are only read; use {option} DIR for another folder"
    )
    assert not (tree / "here").exists()


@pytest.mark.parametrize("command", ["prepare", "estimate", "certify"])
def test_a_cache_that_cannot_be_written_is_told(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = CliRunner().invoke(app, [command, str(campaigns.file(tmp_path)), f"--cache={tmp_path}/file/cache"])
    assert str(done.exception).endswith("cannot be written: not a directory; use --cache DIR for another folder")


@pytest.mark.usefixtures("forked")
def test_contestants_for_which_shared_memory_is_too_small_are_explained_and_the_others_run(
    ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = campaigns.campaign({"good": {}, "torch": {"loader": "imagefolder"}}, blocks=1)
    monkeypatch.setattr(needs, "free_bytes", lambda: 0)
    said: list[str] = []
    display = Display()
    monkeypatch.setattr(display, "say", said.append)
    preflight.check(chosen, None, tmp_path / "cache", tmp_path, tmp_path, None, display)
    folder = runner.run(chosen, ready(chosen), tmp_path, display)
    rows = {row.contestant: row for row in trials_csv.read(folder / "trials.csv") if row.kind == "load"}
    assert rows["good"].status == "ok"
    assert rows["torch"].status == "unavailable"
    assert rows["torch"].reason.startswith("its workers pass batches on through /dev/shm, which needs 294.9 kB and has")
    assert said[0] == f"torch: {rows['torch'].reason}"


@pytest.mark.usefixtures("planted", "forked")
def test_a_disk_that_fills_up_ends_the_campaign_and_fails_no_trial(
    ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, usage = campaigns.campaign({"good": {}}, blocks=1), shutil.disk_usage
    prepared = ready(chosen)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=0))
        with pytest.raises(DiskSpaceError, match=r"raw times of 1/good need .* run the same command to resume"):
            runner.run(chosen, prepared, tmp_path, Display())
    folder = runner.run(chosen, prepared, tmp_path, Display())
    assert [row.status for row in trials_csv.read(folder / "trials.csv") if row.kind == "load"] == ["ok"]


@pytest.mark.parametrize(("dtype", "value_bytes"), [("uint8", 1), ("bfloat16", 2), ("float16", 2), ("float32", 4)])
def test_prefetched_batches_and_two_more_lie_in_shared_memory(dtype: str, value_bytes: int) -> None:
    work = Work(batch_size=10, workers=4, image_size=8, dtype=dtype)
    assert prefetched_bytes(work, prefetch_factor=3) == (3 * 4 + 2) * 10 * 3 * 8 * 8 * value_bytes


@pytest.mark.slow
def test_a_temporary_folder_too_long_for_sockets_does_not_make_a_campaign_hang(tree: Path, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    places = [f"--{name}={long}/{name}" for name in ("cache", "results", "reports")]
    words = ["bench", str(campaigns.file(tmp_path)), f"--data={tree}", *places]
    command = [sys.executable, "-m", "loaderbench.cli", *words]
    subprocess.run(command, env={**os.environ, "TMPDIR": str(long)}, check=True, timeout=300)


def test_the_limit_on_open_files_is_raised_as_far_as_it_may() -> None:
    program = "from loaderbench.machine.open_files import raise_limit; print(raise_limit())"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512))

    done = subprocess.run([sys.executable, "-c", program], preexec_fn=limit, capture_output=True, check=True)
    assert int(done.stdout) == 512


def test_folders_are_locked_where_the_file_system_has_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path, ""), pytest.raises(BusyError, match="in use"), locked(tmp_path, "in use"):
        pass
    dies = "import os, filelock; lock = filelock.SoftFileLock('.held'); lock.acquire(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", dies], cwd=tmp_path, check=False)
    assert (tmp_path / ".held").exists()
    with locked(tmp_path, "its process is gone"):
        pass


def test_a_cache_without_links_is_told_if_a_format_is_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def symlink_to(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    linked = campaigns.campaign({"good": {}}, {"originals": {"writer": "imagefolder", "mode": "original"}})
    monkeypatch.setattr(Path, "symlink_to", symlink_to)
    with pytest.raises(FixableError, match="file system without symbolic links"):
        preflight.check_cache(linked, tmp_path)
    preflight.check_cache(campaigns.campaign({"good": {}}), tmp_path)


@pytest.mark.parametrize("home", ["/nonexistent", None])
def test_a_user_without_a_home_folder_gets_one_in_the_cache(
    home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12345)  # has no entry in the passwd database
    monkeypatch.setenv("HOME", str(home))
    if home is None:
        monkeypatch.delenv("HOME")
    preflight.check_cache(campaigns.campaign({"good": {}}), tmp_path / "cache")
    assert Path.home() == tmp_path / "cache" / "home"
    assert Path.home().is_dir()
    monkeypatch.setenv("HOME", str(tmp_path))
    preflight.check_cache(campaigns.campaign({"good": {}}), tmp_path / "cache")
    assert Path.home() == tmp_path


def test_matplotlib_writes_to_the_cache_if_it_cannot_write_to_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/proc")
    monkeypatch.setenv("MPLCONFIGDIR", "of the user")
    preflight.check_cache(campaigns.campaign({"good": {}}), tmp_path / "cache")
    assert os.environ["MPLCONFIGDIR"] == "of the user"
    monkeypatch.delenv("MPLCONFIGDIR")
    preflight.check_cache(campaigns.campaign({"good": {}}), tmp_path / "cache")
    assert os.environ["MPLCONFIGDIR"] == str(tmp_path / "cache" / "home")
    assert Path.home() == Path("/proc")


def test_a_report_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "env.json").touch()
    done = CliRunner().invoke(app, ["report", str(tmp_path), f"--reports={tmp_path}/env.json/reports"])
    assert done.exit_code == 1
    assert "cannot be written: not a directory; use --reports DIR for another folder" in done.output.replace("\n", "")


def test_a_disk_that_fills_up_is_told_where_a_file_or_a_report_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "new_file", lambda _: Path("/dev/full").open("wb"))  # noqa: SIM115
    with pytest.raises(DiskSpaceError, match=r"filled up .No space left on device.; env.json are not kept; make room"):
        write_whole(tmp_path / "env.json", "{}")

    def render(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(plots, "render", render)
    measured = Path(__file__).parent.parent / "results" / "reference-2-cores"
    with pytest.raises(DiskSpaceError, match=r"the report's files are not kept; the rows are; make room and run"):
        report.write(measured, tmp_path / "report")
    assert not [*(tmp_path / "report").iterdir()]
