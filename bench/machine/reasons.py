"""Say in one sentence why a task failed, the cause first."""

import os
import queue
import re
import signal
import sysconfig
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from loaderbench.machine.text import one_line

WORDS_CHARACTERS = 500
"""Length at which an error's own words are cut: Numba's have pages. The log has all of them."""
_TRACEBACK = "Traceback (most recent call last):\n"
_FRAME = re.compile(r'^ *File "([^"]+)", line (\d+)', re.MULTILINE)
_WRAPPED = re.compile(r"Caught \w+ (in [^\n]+?)\.\n")
_KILLED = re.compile(r"is killed by signal: Killed\.?")
_CUT_OFF = (ConnectionError, EOFError, queue.Empty)
"""What a process notices when another one that sends to it dies."""
_HARNESS = Path(__file__).parents[1]
_ADAPTERS = (f"{_HARNESS / 'loaders'}/", f"{_HARNESS / 'writers'}/")
_OTHERS = (*{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}, str(_HARNESS), "<")
_LOG_BYTES = 1 << 16
_DIES_WITHIN_S = 0.2


def reason(error: BaseException) -> str:
    """Return an error's own words, then where it arose: the adapter's file and line, and the worker process.

    The words are those of the error that caused it, if it names one, and of the one that a worker process raised, not
    of the wrappers in which they arrive.
    """
    caused = [error]
    while (cause := caused[-1].__cause__) and type(cause).__name__.strip("_") != "RemoteTraceback":
        caused.append(cause)
    cut_off = [each for each in caused if isinstance(each, _CUT_OFF)]
    told = [each for each in reversed(caused) if each is error or each not in cut_off]
    words = [*(_dead_workers() if cut_off else []), *(one_line(_words(each), WORDS_CHARACTERS) for each in told)]
    remote = str(cause) if cause else next((text for text in map(str, reversed(caused)) if _TRACEBACK in text), "")
    frames = [(frame.filename, frame.lineno) for each in caused for frame in traceback.extract_tb(each.__traceback__)]
    frames += _FRAME.findall(remote.rpartition(_TRACEBACK)[2])
    where = [_place(frames), *_WRAPPED.findall(str(error))[-1:]]
    return ", then ".join(words) + (f" ({', '.join(filter(None, where))})" if any(where) else "")


def _dead_workers() -> list[str]:
    """Return how a child process ended that nobody has waited for, if it failed; else an empty list."""
    time.sleep(_DIES_WITHIN_S)  # its connections end a little earlier than the process
    for child in psutil.Process().children():
        with suppress(ChildProcessError):
            ended = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended and ended.si_code == os.CLD_EXITED and ended.si_status:
                return [f"a worker process exited with {ended.si_status}"]
            if ended and ended.si_code != os.CLD_EXITED and ended.si_status != signal.SIGTERM:
                return [f"a worker process was killed by {killer(ended.si_status)}"]
    return []


def killer(number: int) -> str:
    """Return the name of a signal that ended a process, with what it suggests."""
    hints = {signal.SIGKILL: " (out of memory?)", signal.SIGBUS: " (is /dev/shm or the disk full?)"}
    return signal.Signals(number).name + hints.get(signal.Signals(number), "")


def last_error(log: Path) -> str:
    """Return a clause on the last error in a log, for example of a thread; empty if there is none."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_BYTES))
        before, *tracebacks = file.read().decode(errors="replace").split(_TRACEBACK)
    found = ""
    for text in tracebacks:
        if not before.rstrip().rpartition("\n")[2].startswith("Exception ignored"):
            words = next((line for line in text.splitlines() if line and not line.startswith(" ")), "")
            place = _place(_FRAME.findall(text))
            found = f"; the last error in its log: {one_line(words, WORDS_CHARACTERS)}" + (
                f" ({place})" if place else ""
            )
        before = text
    return found


def _words(error: BaseException) -> str:
    """Return the type and the message of an error, or those of the last traceback in its message."""
    text = str(error)
    if _TRACEBACK in text:
        lines = text.rpartition(_TRACEBACK)[2].splitlines()
        first = next((number for number, line in enumerate(lines) if line and not line.startswith(" ")), 0)
        return "\n".join(lines[first:])
    words = f"{type(error).__name__}: {text}" if text else type(error).__name__
    words = _KILLED.sub(f"was killed by {killer(signal.SIGKILL)}", words)
    return f"{words} (out of memory?)" if words.endswith("exited unexpectedly") else words


def _place(frames: list[tuple[str, Any]]) -> str:
    """Return file and line of the last frame in an adapter, or of the very last without one; empty without frames."""
    own = [frame for frame in frames if frame[0].startswith(_ADAPTERS) or not frame[0].startswith(_OTHERS)]
    if not (own or frames):
        return ""
    file, line = (own or frames)[-1]
    return f"{'/'.join(Path(file).parts[-2:])}:{line}"
