"""nvJPEG decodes on a GPU only, and on a stream of its own; CUDA is simulated."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torchvision

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.loaders import nvjpeg
from tests.cuda import Cuda

if TYPE_CHECKING:
    from pathlib import Path

ON_GPU = Work(batch_size=4, workers=1, image_size=8, dtype="uint8", passes=1, seed=0, device="cuda")
ARTIFACT = Artifact("f", "/nowhere", 8, 0, 1, 1, Encoding("jpeg"))


def test_nvjpeg_refuses_to_decode_for_a_cpu() -> None:
    with (
        pytest.raises(NotImplementedError, match="decodes on a GPU"),
        nvjpeg.stream(ARTIFACT, replace(ON_GPU, device="cpu")),
    ):
        pass


def test_nvjpeg_decodes_where_no_queued_kernel_can_lose_its_memory(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision decodes at once into memory of the present stream, whatever that stream still has to read there."""
    cuda, used_on, decoded = Cuda(), [], []

    def decode_jpeg(files: list[torch.Tensor], **_: Any) -> list[torch.Tensor]:
        assert cuda.current.free_ms <= cuda.host_ms
        decoded.append(cuda.current)
        cuda.compute(5)
        return [torch.zeros(3, 16, 16, dtype=torch.uint8) for _ in files]

    def augment(image: torch.Tensor) -> torch.Tensor:
        cuda.compute(1)
        return image

    cuda.replace_torchs(monkeypatch)
    monkeypatch.setattr(torchvision.io, "decode_jpeg", decode_jpeg)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda _, stream: used_on.append(stream))
    with nvjpeg.stream(replace(ARTIFACT, path=str(tree)), replace(ON_GPU, transforms=(augment,))) as batches:
        for number, (images, _) in enumerate(batches):
            assert len(images) == 4
            assert cuda.main.free_ms >= decoded[-1].free_ms  # the caller's kernels wait for the batch
            assert used_on == [cuda.main] * len(decoded)
            assert cuda.host_ms <= 9 * number  # and the CPU waits for no training step
            cuda.compute(100)
    assert cuda.main not in decoded
