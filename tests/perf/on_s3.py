"""Run `loaderbench` on the synthetic images in a bucket of a real S3 server on loopback.

python -m tests.perf.on_s3 bench quick [options of loaderbench]
python -m tests.perf.on_s3 doctor [options of loaderbench]
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from loaderbench.bucket import loopback
from loaderbench.campaign import campaign as config
from loaderbench.images.sources import synthetic_folder
from loaderbench.machine.progress import Display

CACHE = Path(os.environ.get("LOADERBENCH_CACHE", "data"))


def main() -> int:
    """Serve the set that the campaign would make, run the command on it, and return its exit status."""
    verb, *options = sys.argv[1:]
    campaign = verb if verb == "doctor" else options[0]
    CACHE.mkdir(exist_ok=True)
    images = synthetic_folder(config.load(campaign).data, CACHE, Display())
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is the command's to answer; the server ends after it
    with loopback.serve(images.parent) as endpoint:
        command = [sys.executable, "-m", "loaderbench.cli", verb, *options, "--data", f"s3://{images.name}"]
        return subprocess.run(command, env=loopback.environment(endpoint), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
