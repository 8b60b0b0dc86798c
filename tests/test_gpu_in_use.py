"""NVML is asked for the GPU or the MIG instance that torch uses."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pynvml
import pytest
import torch

from loaderbench.machine.gpu import Gpu
from tests.nvml import WHOLE, Nvml, load_of, plug_in

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Nvml]:
    return partial(plug_in, monkeypatch)


def use(monkeypatch: pytest.MonkeyPatch, uuid: str) -> None:
    """Let torch use a device with this UUID, the second that it sees."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=["", uuid][device]))


@pytest.mark.parametrize(("known", "read"), [(("GPU-b",), True), (("GPU-a",), False)])
def test_nvml_reads_the_gpu_that_torch_uses(
    plug: Callable[..., Nvml],
    monkeypatch: pytest.MonkeyPatch,
    known: tuple[str, ...],
    read: bool,  # noqa: FBT001
) -> None:
    use(monkeypatch, "b")
    plug(uuids=known)
    asked: list[object] = []
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetMemoryInfo", lambda device: asked.append(device) or pynvml.c_nvmlMemory_t(used=1)
    )
    with Gpu() as gpu:
        load = gpu.close_window(gpu.open_window(), 40)
    assert asked == (["GPU-b"] * 2 if read else [])
    assert read or load.gpu_reason.startswith("NVML does not know the GPU that torch uses")


WHOLE_GPU = "of the whole GPU (torch uses one of its MIG instances)"
NO_UTILISATION = "gpu_util_pct: NVML has no utilisation of MIG instances"


@pytest.mark.parametrize(
    ("torch_says", "shown"),
    [("instance", ""), ("gpu", "MIG-instance"), ("gpu", "MIG-instance,MIG-other")],
)
def test_memory_and_gpm_are_those_of_the_mig_instance_in_use(
    plug: Callable[..., Nvml], monkeypatch: pytest.MonkeyPatch, torch_says: str, shown: str
) -> None:
    use(monkeypatch, torch_says)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    nvml = plug(uuids=("GPU-gpu", "MIG-instance", "MIG-other"), divided=True)
    reason = f"{NO_UTILISATION}; gpu_power_w, gpu_energy_j, gpu_sm_clock_mhz, gpu_throttle: {WHOLE_GPU}"
    assert load_of(nvml) == replace(WHOLE, gpu_util_pct=None, gpu_memory_mib=1024, gpu_reason=reason)
    assert nvml.instances == ["number of MIG-instance"] * 2


def test_an_unknown_mig_instance_has_no_figures_of_its_own(
    plug: Callable[..., Nvml], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, "gpu")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    load = load_of(plug(uuids=("GPU-gpu", "MIG-instance"), divided=True))
    missing = dict.fromkeys(["gpu_util_pct", "gpu_sm_active_pct", "gpu_dram_pct"])
    whole = f"gpu_memory_mib, gpu_power_w, gpu_energy_j, gpu_sm_clock_mhz, gpu_throttle: {WHOLE_GPU}"
    unknown = "gpu_sm_active_pct, gpu_dram_pct: NVML does not say which MIG instance torch uses"
    assert load == replace(WHOLE, **missing, gpu_reason=f"{NO_UTILISATION}; {whole}; {unknown}")


def test_a_divided_gpu_that_torch_does_not_use_is_the_whole_gpu_too(plug: Callable[..., Nvml]) -> None:
    assert WHOLE_GPU in load_of(plug(divided=True)).gpu_reason
