"""Secrets and the path of the home folder stay out of what is kept, and out of processes that need none."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loaderbench.bucket.client import Bucket, Location, S3Error
from loaderbench.certify import certification
from loaderbench.machine import guardian, process
from loaderbench.machine.private import HIDDEN, masked, without_secrets
from loaderbench.machine.text import cell, one_line, printable, without_home
from loaderbench.records import trials_csv
from loaderbench.records.certificates import Certificate
from loaderbench.report.markdown import cell as shown
from loaderbench.run import environment
from tests import fabricate
from tests.campaigns import campaign
from tests.fabricate import CAST

ROOT = str(Path(__file__).parents[1])
SECRETS = ("AWS_SESSION_TOKEN", "AWS_PROFILE", "HF_TOKEN", "WANDB_API_KEY", "MY_SECRET", "DB_PASSWORD")


def look(_: object) -> dict[str, Any]:
    """Return what a child process sees, as a task."""
    limit = resource.getrlimit(resource.RLIMIT_CORE)
    return {"status": "ok", "reason": "", "names": [name for name in SECRETS if name in os.environ], "core": limit}


def talk(size_bytes: int) -> dict[str, Any]:
    """Print much, and wait until it is not kept; a task that fails, so that its log stays."""
    for _ in range(size_bytes >> 20):
        os.write(1, bytes(1 << 20))
    while os.fstat(1).st_size > size_bytes // 2:
        pass
    os.write(1, b"the end")
    raise ValueError


def test_a_child_process_has_no_secrets_and_dumps_no_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", ROOT)
    for name in SECRETS:
        monkeypatch.setenv(name, "x")
    report = process.run_child(f"{__name__}.look", None, tmp_path / "log")
    assert (report["names"], report["core"]) == ([], (0, 0))
    given = process.run_child(f"{__name__}.look", None, tmp_path / "log", environment=os.environ)
    assert given["names"] == list(SECRETS)


def test_other_variables_stay() -> None:
    others = {"PATH": "x", "TOKENIZERS_PARALLELISM": "x", "OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "0"}
    assert without_secrets(others) == others


def test_a_log_that_fills_the_disk_is_emptied_and_its_end_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("ab") as file:
        file.truncate(guardian.LOG_BYTES + 1)
        guardian.shorten(file.fileno())
        file.write(b"the end")
    assert log.read_text() == "[67,108,865 bytes of output before this line are not kept]\nthe end"


@pytest.mark.slow
def test_the_log_of_a_running_task_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", ROOT)
    report = process.run_child(f"{__name__}.talk", guardian.LOG_BYTES + (8 << 20), tmp_path / "log", 100)
    assert report["status"] == "failed"
    assert (tmp_path / "log").stat().st_size < guardian.LOG_BYTES // 2
    assert b"the end" in (tmp_path / "log").read_bytes()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "alice"))
    return tmp_path / "alice"


def test_conditions_hold_no_secret_and_no_home_folder_and_say_what_they_left_out(home: Path) -> None:
    one = campaign({"a": {"loader": "imagefolder"}})
    given = {"token": "hunter2", "url": "https://bob:pw@host/x", "depth": 3}
    [contestant] = one.contestants
    one = one.model_copy(update={"contestants": (contestant.model_copy(update={"options": given}),)})
    data = {"origin": f"{home}/images, split train", "argument": f"{home}/images", "found": 1}
    described = environment.describe(one, data, f"{home}/small.toml")
    text = json.dumps(described)
    for private in ("hunter2", "bob", "pw@", "alice"):
        assert private not in text
    assert described["data"]["argument"] == "~/images"
    assert described["campaign"]["contestants"][0]["options"] == {
        "token": HIDDEN,
        "url": "https://***@host/x",
        "depth": 3,
    }
    expected = ["campaign.contestants.0.options.token", "campaign.contestants.0.options.url"]
    assert described["left_out"] == [*expected, "campaign_file", "data.origin", "data.argument"]


def test_rows_hold_no_secret_and_no_home_folder(home: Path, tmp_path: Path) -> None:
    row = fabricate.failed(CAST[0], 1, reason=f"http://bob:pw@host fails; see {home}/log, not {home}s/log")
    trials_csv.append(tmp_path / "trials.csv", row)
    [kept] = trials_csv.read(tmp_path / "trials.csv")
    assert kept.reason == f"http://***@host fails; see ~/log, not {home}s/log"
    assert shown(f"see {home}/log") == r"see \~/log"


def test_certificates_hold_no_home_folder(home: Path, tmp_path: Path) -> None:
    one = campaign({"a": {"loader": "imagefolder"}})
    prepared: Any = SimpleNamespace(records=[SimpleNamespace(format=one.formats[0].name, stored="")], artifacts={})
    given = Certificate(failure=f"failed: format x: no such file; see {home}/cache/write-x.log")
    kept = certification._on_own_images(given, one, one.contestants[0], prepared, tmp_path)
    assert kept.failure == "failed: format x: no such file; see ~/cache/write-x.log"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/home/bob/images", "/home/***/images"),
        ("/home/bob", "/home/***"),
        ("file:///Users/bob/x: No such file", "file:///Users/***/x: No such file"),
        ("'/home/bob', /home/carol.", "'/home/***', /home/***"),
        ("/data/home/bob, s3://home/bob, /home/", "/data/home/bob, s3://home/bob, /home/"),
    ],
)
def test_names_of_other_users_are_left_out_of_the_paths_of_their_homes(home: Path, text: str, kept: str) -> None:
    assert cell(text) == kept
    assert masked({"origin": text}) == {"origin": kept}
    assert without_home(kept) == kept


def test_urls_are_shown_without_user_and_password() -> None:
    for show in (printable, one_line, cell):
        assert show("at http://alice:S3cretPw@127.0.0.1:9/x@y") == "at http://***@127.0.0.1:9/x@y"
    assert printable("s3://bucket/a@b") == "s3://bucket/a@b"
    assert masked({"a": [{"api_key": "x", "max_tokens": 5, "tokenizer": "t"}]}) == {
        "a": [{"api_key": HIDDEN, "max_tokens": 5, "tokenizer": "t"}]
    }


def test_an_endpoint_with_a_password_is_told_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://alice:S3cretPw@127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setattr("loaderbench.bucket.client.TRIES", 1)
    with pytest.raises(S3Error) as raised:
        Bucket(Location("bucket", ""))
    assert "127.0.0.1:9 does not answer" in str(raised.value)
    assert "S3cretPw" not in str(raised.value)
