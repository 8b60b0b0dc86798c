"""Real libraries read data from an S3 server on loopback: which bytes cross the network and which files stay."""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from loaderbench.bucket import loopback
from loaderbench.bucket import metered_network as network
from loaderbench.bucket.client import S3Error
from loaderbench.campaign.campaign import Campaign
from loaderbench.campaign.variant import Variant
from loaderbench.formats import Prepared
from loaderbench.machine import process
from loaderbench.machine.disk import DiskSpaceError
from loaderbench.machine.progress import Display
from loaderbench.records import trials_csv
from loaderbench.run import bucket_under_test as remote
from loaderbench.run import runner
from loaderbench.run.bucket_under_test import Place
from loaderbench.run.one_trial import trial_limit_s, trial_spec
from tests.campaigns import Ready, campaign
from tests.proxy import point

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loaderbench.records.record import Transport

    Run = Callable[..., dict[str, Any]]

MIB = 1 << 20
EPOCHS = 2
NAMES = {"litdata": "litdata-jpeg", "imagefolder": "imagefolder-256-torchvision", "ffcv": "ffcv-jpeg-mapped"}


@pytest.fixture(scope="module")
def stream(quick: Campaign) -> Campaign:
    """The default campaign with one contestant per library on data in a bucket, at the size of a test."""
    wanted = {
        "streaming": [NAMES["litdata"]],
        "bounded": [NAMES["litdata"]],
        "downloading": list(NAMES.values()),
        "epochs": EPOCHS,
        "cache_mib": 0.1,
        "latency_ms": 1,
    }
    content = quick.model_dump() | {"stream": wanted}
    content["work"] |= {"epoch_images": 192}  # of 96: with data on this machine, two passes
    return Campaign.model_validate(content)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty home folder for all processes of this module."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def place(
    stream: Campaign, everything: Prepared, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    with remote.place(stream, everything, None, tmp_path_factory.mktemp("campaign"), Display()) as found:
        assert found
        yield found


@pytest.fixture(scope="module")
def run(stream: Campaign, everything: Prepared, place: Place, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a trial and return its columns."""
    folder = tmp_path_factory.mktemp("trials")

    def one(loader: str, transport: Transport, place: Place = place, limit_s: float = 600) -> dict[str, Any]:
        [contestant] = [c for c in stream.contestants if c.name == NAMES[loader]]
        artifact = everything.artifacts[contestant.format]
        spec = trial_spec(stream, contestant, artifact, folder / "times.npz", variant=Variant(transport=transport))
        return place.run(transport, spec, folder / "trial.log", limit_s)

    return one


@pytest.fixture(scope="module")
def streamed(run: Run) -> dict[str, Any]:
    return run("litdata", "stream")


def size(prepared: Prepared, loader: str) -> int:
    return sum(p.stat().st_size for p in Path(_artifact(prepared, loader)).rglob("*") if p.is_file())


def _artifact(prepared: Prepared, loader: str) -> str:
    formats = {"litdata": "litdata-jpeg", "imagefolder": "jpeg-files", "ffcv": "ffcv-jpeg"}
    return prepared.artifacts[formats[loader]].path


def test_litdata_streams_every_sample_once_per_epoch(streamed: dict[str, Any]) -> None:
    """The meter checks the number of images and the labels of each epoch; see tests/test_trial.py."""
    assert (streamed["status"], streamed["reason"]) == ("ok", "")
    assert streamed["window_images"] == EPOCHS * 96 - 16
    assert streamed["epoch1_s"] > 0
    assert streamed["epoch2_s"] > 0
    assert "download_s" not in streamed
    assert streamed["until_asked_s"] > streamed["import_s"] + streamed["construct_s"]


def test_the_second_epoch_fetches_nothing(streamed: dict[str, Any], everything: Prepared) -> None:
    assert streamed["network_epoch1_bytes"] > size(everything, "litdata")
    assert streamed["network_epoch2_bytes"] == 0
    assert streamed["network_bytes"] == streamed["network_epoch1_bytes"]
    assert streamed["cache_peak_mib"] * MIB == pytest.approx(size(everything, "litdata"), rel=0.01)


@pytest.mark.slow
def test_litdata_with_a_bounded_cache_fetches_again_in_each_epoch(run: Run, everything: Prepared) -> None:
    """LitData deletes chunks that it has read, but keeps up to two, whatever the bound."""
    bounded = run("litdata", "bounded")
    assert bounded["status"] == "ok"
    assert bounded["network_epoch2_bytes"] > size(everything, "litdata")
    assert bounded["cache_end_mib"] * MIB < size(everything, "litdata")


def test_watcher_reports_the_largest_size_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen_mib: list[float] = []
    look = remote._size_mib
    monkeypatch.setattr(remote, "_LOOKS_EVERY_S", 0.001)
    monkeypatch.setattr(remote, "_size_mib", lambda folder: seen_mib.append(look(folder)) or seen_mib[-1])
    with remote._watched(tmp_path, meanwhile=True) as most_mib:
        (tmp_path / "chunk").write_bytes(bytes(MIB))
        deadline_s = time.monotonic() + 300
        while seen_mib[-1] < 1 and time.monotonic() < deadline_s:
            time.sleep(0.001)
        (tmp_path / "chunk").unlink()
        assert most_mib() == 1


@pytest.mark.parametrize(
    "loader", ["imagefolder", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ffcv", "litdata"))]
)
def test_a_download_uses_the_network_only_before_the_first_epoch(
    run: Run, everything: Prepared, loader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, looks = remote._size_mib, []
    monkeypatch.setattr(remote, "_size_mib", lambda folder: looks.append(folder) or look(folder))
    result = run(loader, "download")
    assert len(looks) == len(("before", "after"))
    assert (result["status"], result["reason"]) == ("ok", "")
    assert result["until_asked_s"] > result["download_s"] + result["import_s"] + result["construct_s"] > 0
    assert result["network_epoch1_bytes"] == result["network_bytes"] > size(everything, loader)
    assert result["network_epoch2_bytes"] == 0
    assert result["cache_end_mib"] * MIB == result["cache_peak_mib"] * MIB == size(everything, loader)


def test_the_server_of_trials_writes_nothing(place: Place) -> None:
    lines = [each.cmdline() for each in psutil.Process().children(recursive=True)]
    assert [("--read-only" in line) for line in lines if str(place.scratch / "buckets") in line] == [True]


def test_a_trial_leaves_no_files(run: Run, streamed: dict[str, Any], place: Place, home: Path) -> None:
    assert not (place.scratch / "trial").exists()
    assert not [path for path in home.rglob("*") if "chunk" in path.name or path.name == ".lightning"]


def _metered(endpoint: str, certificates: Path) -> dict[str, str]:
    return loopback.environment(loopback.metered(endpoint), certificates)


@pytest.mark.slow
def test_a_download_that_bypasses_the_proxy_is_a_failed_row(run: Run, place: Place) -> None:
    """rclone uses no proxy for a loopback address."""
    certificates = place.scratch / "certificates"
    with loopback.serve(place.scratch / "buckets", certificates=certificates) as endpoint:
        past = loopback.environment(endpoint, certificates)
        result = run("imagefolder", "download", Place(place.settings, place.location, place.scratch, past))
    assert result["status"] == "failed"
    assert "data went past the metering proxy" in result["reason"]
    assert "network_bytes" not in result


@pytest.mark.slow
def test_a_stream_without_counted_bytes_is_a_failed_row(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network.Link, "count", lambda *_: None)
    result = run("litdata", "stream")
    assert result["status"] == "failed"
    assert result["reason"].endswith("0 of at least 1 bytes came through it")
    assert "network_bytes" not in result


@pytest.mark.parametrize("transport", ["download", pytest.param("stream", marks=pytest.mark.slow)])
def test_a_server_that_dies_during_a_trial_is_a_failed_row_with_its_reason(  # noqa: PLR0913, PLR0917
    run: Run, place: Place, everything: Prepared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, transport: Transport
) -> None:
    buckets = Path(shutil.copytree(place.scratch / "buckets", tmp_path / "buckets"))
    certificates = place.scratch / "certificates"
    carry, left, links = network.Link.carry, [size(everything, "litdata") // 2], []
    wait = process.Child.wait

    def noticed(child: Any, limit_s: float) -> bool:
        """Start the short time limit when the trial fails to connect."""
        while not (ended := wait(child, 0.1)) and not (links and links[0].trouble):
            pass
        return ended or wait(child, limit_s)

    monkeypatch.setattr(process.Child, "wait", noticed)
    with ExitStack() as server:
        endpoint = server.enter_context(loopback.serve(buckets, certificates=certificates))

        def die(link: network.Link, size_bytes: int, now_s: float) -> float:
            """End the server while data is in transit; it may have sent the rest."""
            left[0] -= size_bytes
            if left[0] < 0:
                links.append(link)
                server.close()
                raise ConnectionResetError
            return carry(link, size_bytes, now_s)

        monkeypatch.setattr(network.Link, "carry", die)
        dying = Place(place.settings, place.location, place.scratch, _metered(endpoint, certificates))
        before = set(psutil.Process().children(recursive=True))
        result = run("litdata", transport, dying, limit_s=2)
    assert result["status"] in {"failed", "timeout"}
    assert f"{loopback.metered(endpoint).removeprefix('https://')} did not answer" in result["reason"]
    assert "images_per_s" not in result
    assert set(psutil.Process().children(recursive=True)) <= before
    assert not (place.scratch / "trial").exists()


def test_a_real_bucket_must_speak_https_and_hold_the_formats(
    stream: Campaign, everything: Prepared, place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "buckets" / "ready").mkdir(parents=True)
    with loopback.serve(tmp_path / "buckets") as endpoint, monkeypatch.context() as patch:
        point(patch, loopback.environment(endpoint))
        with (
            pytest.raises(S3Error, match=r"is plain http.*Omit --artifacts"),
            remote.place(stream, everything, "s3://ready/x", tmp_path, Display()),
        ):
            pass
    certificates = place.scratch / "certificates"
    with loopback.serve(place.scratch / "buckets", certificates=certificates) as endpoint:
        point(monkeypatch, loopback.environment(endpoint, certificates))
        with remote.place(stream, everything, str(place.location), tmp_path, Display()) as found:
            assert found
            assert (found.location, found.environment) == (place.location, os.environ)
        with (
            pytest.raises(S3Error, match=r"has no .*put it there with: loaderbench publish"),
            remote.place(stream, everything, f"{place.location}nowhere", tmp_path, Display()),
        ):
            pass
    assert not (tmp_path / "scratch").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("planted")
def test_the_row_reports_the_network_limits(
    ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = {"downloading": ["a"], "epochs": 2, "rate_mib_per_s": 40, "latency_ms": 2}
    content = campaign({"a": {}}, blocks=1).model_dump() | {"stream": wanted}
    chosen = Campaign.model_validate(content)
    monkeypatch.setattr(remote, "network_s", lambda *_: 660.0)
    folder = runner.run(chosen, ready(chosen), tmp_path, Display())
    assert "measuring 2 trials, about 11 minutes" in capsys.readouterr().out
    [artifact] = ready(chosen).artifacts.values()
    assert trial_limit_s(chosen, Variant(transport="download"), artifact) == 600 + 660
    assert json.loads((folder / "env.json").read_text())["data"]["bucket"] == "on loopback"
    rows = {row.trial: row for row in trials_csv.read(folder / "trials.csv") if row.kind == "load"}
    local, downloaded = rows["1/a"], rows["1/a/download"]
    assert (local.transport, local.network_rate_mib_per_s, local.network_bytes) == ("", None, None)
    assert (downloaded.status, downloaded.reason, downloaded.transport) == ("ok", "", "download")
    assert (downloaded.network_rate_mib_per_s, downloaded.network_latency_ms, downloaded.cache_mib) == (40, 2, None)
    assert downloaded.network_bytes
    assert downloaded.network_bytes > downloaded.size_bytes  # type: ignore[operator]
    assert (downloaded.cache_state, downloaded.resident_pct) == ("", None)
    assert not (folder / "scratch").exists()


def test_a_bucket_that_does_not_fit_on_the_disk_is_not_created(
    stream: Campaign, everything: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with (
        pytest.raises(DiskSpaceError, match=r"are free; use --results"),
        remote.place(stream, everything, None, tmp_path, Display()),
    ):
        pass
    assert not (tmp_path / "scratch").exists()
