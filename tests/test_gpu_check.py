"""`make gpu-check` runs all of its steps, bounds their time, and says what became of each."""

from __future__ import annotations

import ctypes
import importlib.util
import signal
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from loaderbench.campaign import campaign as config

SCRIPTS = Path(__file__).parent.parent / "scripts"


def python(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", program, *arguments]


def load_script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPTS / "gpu_check.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_check", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script on a machine that seems to have a GPU."""
    module = load_script(monkeypatch)
    monkeypatch.setattr(module, "gpu_name", lambda: "Simulated GPU")
    return module


def plan(check: ModuleType, monkeypatch: pytest.MonkeyPatch, *commands: list[str], limit_s: float = 60) -> None:
    planned = [check.Step(f"step-{number}", command, limit_s) for number, command in enumerate(commands, 1)]
    monkeypatch.setattr(check, "steps", lambda out: planned)


def results(out: Path) -> list[list[str]]:
    """Return the cells of the summary's rows: step, result and last line."""
    rows = [line.split(" | ") for line in (out / "summary.md").read_text().splitlines() if line.startswith("| step-")]
    return [[cells[0].lstrip("| "), cells[1], cells[3].rstrip(" |")] for cells in rows]


def test_a_failing_step_stops_no_later_one(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plan(
        check,
        monkeypatch,
        python("print('fine'); print('== 3 passed ==\\n')"),
        python("import sys; sys.exit('bad')"),
        ["no-such-program"],
        python("print('after')"),
    )
    assert check.main(str(tmp_path / "out")) == 1
    assert results(tmp_path / "out") == [
        ["step-1", "passed", "3 passed"],
        ["step-2", "failed with status 1", "bad"],
        ["step-3", "did not start: No such file or directory", ""],
        ["step-4", "passed", "after"],
    ]
    assert "fine" in (tmp_path / "out" / "step-1.log").read_text()
    shown = capfd.readouterr().out
    assert "fine" in shown
    assert "2 of 4 steps passed" in shown


@pytest.mark.parametrize("at_start", [signal.default_int_handler, signal.SIG_IGN])
def test_a_step_is_interrupted_after_its_limit_with_all_of_its_processes(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at_start: Any
) -> None:
    signal.signal(signal.SIGINT, at_start)  # ignored, as in the background jobs of a shell
    keeps = ["sh", "-c", "trap 'echo rows are kept; exit' INT; sleep 600"]
    plan(check, monkeypatch, keeps, limit_s=1)
    monkeypatch.setattr(check, "LEAST_S", 0)
    assert check.main(str(tmp_path)) == 1
    assert results(tmp_path)[0] == ["step-1", "stopped after its limit of 1 s", "rows are kept"]


def test_a_step_that_ignores_the_interrupt_is_killed(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(check, "GRACE_S", 0.1)
    deaf = check.Step("deaf", ["sh", "-c", "trap '' INT; sleep 600"], 0.5)
    assert check.run(deaf, tmp_path, deaf.limit_s).result.startswith("stopped after its limit")


def test_no_step_starts_when_no_time_is_left(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(check, "TOTAL_S", check.GRACE_S)
    plan(check, monkeypatch, python("print('never')"))
    assert check.main(str(tmp_path)) == 1
    assert results(tmp_path) == [["step-1", "not run: no time is left", ""]]
    assert not (tmp_path / "step-1.log").exists()


def test_all_steps_passed_is_success(check: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan(check, monkeypatch, python("pass"))
    assert check.main(str(tmp_path)) == 0
    assert (tmp_path / "summary.md").read_text().startswith("# GPU check on Simulated GPU\n\n1 of 1 steps passed.")


def test_without_a_gpu_the_check_says_what_it_needs_and_starts_nothing(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def none() -> str:
        raise OSError("libcuda.so.1: no such file")

    monkeypatch.setattr(check, "gpu_name", none)
    assert check.main(str(tmp_path / "out")) == 2
    assert "no NVIDIA GPU: libcuda.so.1: no such file\nmake gpu-check needs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("failing", ["", "cuInit", "cuDeviceGet"])
def test_the_driver_is_asked_for_the_name_of_the_gpu(monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def named(name: ctypes.Array[ctypes.c_char], _length: int, _device: object) -> int:
        name.value = b"H200"
        return 0

    driver = {"cuInit": lambda _: 0, "cuDeviceGet": lambda _device, _number: 0, "cuDeviceGetName": named}
    if failing:
        driver[failing] = lambda *_: 100
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(**driver))
    script = load_script(monkeypatch)
    if failing:
        with pytest.raises(OSError, match=f"{failing} fails with status 100"):
            script.gpu_name()
    else:
        assert script.gpu_name() == "H200"


def test_steps_keep_everything_in_the_folder_and_fit_into_the_total(check: ModuleType, tmp_path: Path) -> None:
    planned = check.steps(tmp_path)
    assert [step.name for step in planned][:2] == ["driver", "set-up"]
    for step in planned:
        assert step.limit_s < check.TOTAL_S
        options = dict(zip(step.command, step.command[1:], strict=False))
        assert all(
            str(options[name]).startswith(str(tmp_path)) for name in ("--results", "--reports") if name in options
        )
    scripts = [
        part for step in planned for part in step.command if isinstance(part, Path) and part.suffix in {".py", ".toml"}
    ]
    assert [path for path in scripts if not path.exists()] == []


def test_the_short_campaign_is_the_gpu_campaign_in_one_block() -> None:
    short, whole = config.load(str(SCRIPTS / "gpu-check.toml")), config.load("gpu")
    assert short.timing.blocks == 1
    assert (short.work.device, short.contestants) == ("cuda", whole.contestants)
    assert short.consumers.train
    assert {c.name for c in whole.contestants if c.control == "known"} <= set(short.consumers.train.contestants)
