"""A loader that notes when it returned each batch, and the CPU time that its processes spent on it."""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager

requires = ("torch",)
reads = ("imagefolder",)
streams = False
BURNT_S = 0.1

SPEND = f"import time\nwhile time.process_time() < {BURNT_S}: pass\n"
TELL = "print(time.process_time(), flush=True)\n"
CHILD = f"""
import sys, time
told_s = 0.0
for _ in sys.stdin:
    while time.process_time() < told_s + {BURNT_S}:
        pass
    print(time.process_time() - told_s, flush=True)
    told_s = time.process_time()
"""
GRANDCHILD = f"""
import subprocess, sys, time
subprocess.run([sys.executable, "-S", "-c", {SPEND + TELL!r}], check=True)
{TELL}
"""
ORPHAN = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-S", "-c", {SPEND + TELL!r}])
{TELL}
"""
DETACHED = f"""
import os
os.fork() and os._exit(0)
os.setsid()
os.fork() and os._exit(0)
{CHILD}
"""


@contextmanager
def stream(artifact, work, *, who, told):
    """`who`: the process that burns CPU for each batch, one of `BURNERS`. `told`: file for a line per batch."""
    import torch

    images = torch.zeros((work.batch_size, 3, work.image_size, work.image_size), dtype=torch.uint8)
    labels = torch.zeros(work.batch_size, dtype=torch.int64)

    class Epochs:
        def __iter__(self):
            for _ in range(artifact.samples // work.batch_size):
                cpu_s = burn()
                handed_ns = time.perf_counter_ns()
                images[:, 0, 0].random_(2)  # each batch has images of its own
                yield images, labels
                line = {"cpu_s": cpu_s, "handed_ns": handed_ns, "asked_again_ns": time.perf_counter_ns()}
                print(json.dumps(line), file=file, flush=True)

    with ExitStack() as stack:
        burn = BURNERS[who](stack)
        file = stack.enter_context(open(told, "w"))
        yield Epochs()


def _itself(_):
    def burn():
        begun_s = time.process_time()
        while time.process_time() < begun_s + BURNT_S:
            pass
        return time.process_time() - begun_s

    return burn


def _worker(program):
    """Burn in a process that lives as long as the loader and waits between batches."""

    def burner(stack):
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        stack.callback(child.communicate)

        def burn():
            child.stdin.write("\n")
            return float(child.stdout.readline())

        return burn

    return burner


def _forked_by_a_thread(stack):
    """Burn in a process that a thread, which has ended, has forked."""
    (asked, ask), (answered, answer) = os.pipe(), os.pipe()

    def fork():
        if not os.fork():
            os.dup2(asked, 0)
            os.dup2(answer, 1)
            os.closerange(3, 1 << 16)
            os.execv(sys.executable, [sys.executable, "-S", "-c", CHILD])  # noqa: S606 - the planted loader replaces its process

    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
    questions, answers = os.fdopen(ask, "w"), os.fdopen(answered)
    stack.callback(questions.close)

    def burn():
        print(file=questions, flush=True)
        return float(answers.readline())

    return burn


def _new(program):
    """Burn in new processes for each batch. The batch is returned when all of them have closed their output."""

    def burner(_):
        def burn():
            done = subprocess.run([sys.executable, "-S", "-c", program], stdout=subprocess.PIPE, check=True)
            return sum(map(float, done.stdout.split()))

        return burn

    return burner


BURNERS = {
    "itself": _itself,
    "child": _worker(CHILD),
    "detached": _worker(DETACHED),
    "forked by a thread": _forked_by_a_thread,
    "grandchild": _new(GRANDCHILD),
    "orphan": _new(ORPHAN),
}
