"""Serve a folder as a real S3 server on loopback: each folder in it is a bucket.

The server ends with the block that started it, or with the process, however that ends.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryFile
from urllib.parse import urlsplit

import psutil

from loaderbench.bucket import rclone
from loaderbench.bucket.client import S3Error

HOST = "127.0.0.1"
METERED_HOST = "bucket.invalid"
"""A name for the server that only a proxy with `metered_network.Link.hosts` can resolve.

Many clients go past a proxy to reach a loopback address, and would not be counted.
"""
_KEY, _SECRET = token_hex(10), token_hex(20)
"""Drawn for this process, because other users of the machine can reach the server too."""
_STARTS_WITHIN_S = 30
_AUTHORITY, _CERTIFICATE, _KEY_FILE = "authority.pem", "server.pem", "server.key"


def environment(endpoint: str, certificates: Path | None = None) -> dict[str, str]:
    """Return the variables of a process in which AWS's usual chain finds the server, and no other account.

    They are those of this process, but for AWS's. `certificates`: the folder that `certify` filled, for https.
    """
    authority = str(certificates / _AUTHORITY) if certificates else ""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": _KEY,
        "AWS_SECRET_ACCESS_KEY": _SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        # boto3 reads the first, obstore in LitData the second.
        **({"AWS_CA_BUNDLE": authority, "SSL_CERT_FILE": authority} if authority else {}),
    }


def metered(endpoint: str) -> str:
    """Return the server's endpoint under the name that only a metered network resolves."""
    return f"https://{METERED_HOST}:{urlsplit(endpoint).port}"


def certify(folder: Path) -> None:
    """Fill an empty folder with a certificate authority, and with a certificate and key of a server. Raises S3Error.

    They are two, since the TLS of some clients refuses an authority as a server. The authority's key is deleted, so it
    can vouch for nothing else.
    """
    make = [rclone.program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    make += ["-nodes", "-days", "30"]
    authority = ["-keyout", "authority.key", "-out", _AUTHORITY, "-subj", "/CN=loaderbench on loopback"]
    server = ["-CA", _AUTHORITY, "-CAkey", "authority.key", "-keyout", _KEY_FILE, "-out", _CERTIFICATE]
    server += ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=IP:{HOST},DNS:{METERED_HOST}"]
    server += ["-addext", "basicConstraints=CA:FALSE"]
    for which in authority, server:
        done = subprocess.run([*make, *which], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise S3Error(f"https on loopback needs openssl 3 or newer; this one said: {done.stderr.strip()}")
    (folder / "authority.key").unlink()


@contextmanager
def serve(root: Path, certificates: Path | None = None, *, read_only: bool = False) -> Iterator[str]:
    """Serve the folders in `root` as buckets on a free port, and give the endpoint.

    `certificates`: the folder that `certify` filled; with it the server speaks https. `read_only`: refuse to write.
    Raises S3Error.
    """
    options = ["--addr", f"{HOST}:0", *(["--read-only"] if read_only else [])]
    if certificates:
        options += ["--cert", str(certificates / _CERTIFICATE), "--key", str(certificates / _KEY_FILE)]
    command = rclone.command("serve", "s3", *options, str(root))
    keyed = {**rclone.environment(), "RCLONE_AUTH_KEY": f'"{_KEY},{_SECRET}"'}  # a command line is for all to see
    with TemporaryFile("w+") as said:
        server = subprocess.Popen(command, stdout=said, stderr=said, env=keyed)
        try:
            if (port := _port(server)) is None:
                said.seek(0)
                raise S3Error(f"rclone serves nothing on loopback; it said: {said.read().strip()}")
            yield f"{'https' if certificates else 'http'}://{HOST}:{port}"
        finally:
            server.kill()
            server.wait()


def _port(server: subprocess.Popen[bytes]) -> int | None:
    """Wait until a server listens and return its port, which nobody else has then; None if it does not listen."""
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(psutil.Error):  # it has ended since
            for connection in psutil.Process(server.pid).net_connections("tcp4"):
                if connection.status == psutil.CONN_LISTEN:
                    return int(connection.laddr.port)
        time.sleep(0.05)
    return None
