"""A loader of known behaviour, good or bad, found through entry points as a third party's would be."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager

requires = ("torch",)
reads = ("imagefolder", "planted-writer")


@contextmanager
def stream(artifact, work, *, behaviour="honest", pid_file="", seconds=0.0):
    import torch

    labels = [label for label, count in enumerate(_per_class(artifact.path)) for _ in range(count)] * work.passes
    images = torch.zeros((work.batch_size, 3, work.image_size, work.image_size), dtype=getattr(torch, work.dtype))

    def leave(pid):
        with open(pid_file, "a") as file:
            print(pid, file=file, flush=True)

    class Epochs:
        def __iter__(self):
            if pid_file:
                leave(os.getpid())
                leave(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)
            if behaviour == "hang":
                time.sleep(600)
            if behaviour == "crash":
                raise ValueError("the planted | fault\nin two lines")
            if behaviour == "segfault":
                os.kill(os.getpid(), 11)
            for start in range(0, len(labels), work.batch_size):
                part = torch.tensor(labels[start : start + work.batch_size])
                time.sleep(seconds)
                if behaviour == "grandchildren":
                    burn = "import time\nwhile time.process_time() < 0.2: pass"
                    start_burning = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
                    subprocess.run([sys.executable, "-c", start_burning], check=True)
                yield images[: len(part)], part

    yield Epochs()


def _per_class(path):
    return [len(os.listdir(os.path.join(path, name))) for name in sorted(os.listdir(path))]
