"""A real S3 server on loopback over a folder: each folder in it is a bucket. It ends with the block that started it,
or with the process, however that ends.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
KEY, SECRET = "loaderbench", "loopback-only"
_STARTS_WITHIN_S = 30


def program(name: str) -> str:
    """Return where a program lies that a package of the development group brings."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if found := shutil.which(name, path=places):
        return found
    raise FileNotFoundError(f"{name} is not installed; install it with: make setup")


def environment(endpoint: str) -> dict[str, str]:
    """Return the variables with which AWS's usual chain finds the server, and nothing else of this machine."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def serve(root: Path, port: int = 0) -> Iterator[str]:
    """Serve the folders in `root` as buckets, and give the endpoint. Port 0: any that is free."""
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind((HOST, port))
        port = free.getsockname()[1]
    options = ["--addr", f"{HOST}:{port}", "--auth-key", f"{KEY},{SECRET}"]
    command = ["setpriv", "--pdeathsig", "KILL", program("rclone"), "serve", "s3", *options, str(root)]
    with Path(os.devnull).open("w") as nothing:
        server = subprocess.Popen(
            command, stdout=nothing, stderr=nothing, env={**os.environ, "RCLONE_CONFIG": os.devnull}
        )
    try:
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while True:
            try:
                socket.create_connection((HOST, port)).close()
                break
            except ConnectionRefusedError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield f"http://{HOST}:{port}"
    finally:
        server.kill()
        server.wait()
