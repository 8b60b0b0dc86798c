"""A third-party writer that ends as the JPEG quality says, and notes which process imported it."""

import os
import subprocess
import sys
import time

requires = ("planted_ending",)
modes = ("raw",)
resumes = False
IMPORTED_BY = os.getpid()
FAULT, SEGFAULT, EXIT, PARENT, LEAVES, HANGS, WELL = range(1, 8)


def write(source, out, encoding, workers):
    print("the planted writer writes")
    left = subprocess.Popen(["sleep", "600"], start_new_session=True).pid if encoding.quality == LEAVES else 0
    (out / "pids").write_text(f"{IMPORTED_BY} {os.getpid()} {left}")
    if encoding.quality == FAULT:
        raise ValueError("the planted fault")
    if encoding.quality == SEGFAULT:
        os.kill(os.getpid(), 11)
    if encoding.quality == EXIT:
        sys.exit(5)
    if encoding.quality == HANGS:
        time.sleep(600)
    if encoding.quality == PARENT:
        os.kill(IMPORTED_BY, 9)
    for index in range(len(source)):
        (out / f"{index:09d}.raw").write_bytes(source.pixels(index).tobytes())


def payloads(out):
    for path in sorted(out.glob("*.raw")):
        yield path.read_bytes()
