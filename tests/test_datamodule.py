"""Lightning trains and validates with any loader and any number of ranks, and sees each sample once per epoch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loaderbench.api import Artifact, Work
from loaderbench.certify import probe
from loaderbench.formats import prepare
from loaderbench.loaders.lightning import DataModule
from loaderbench.loaders.lightning.datamodule import Epochs, lacking
from loaderbench.machine.progress import Display
from tests.campaigns import campaign

pytestmark = pytest.mark.usefixtures("forked")

ROOT = Path(__file__).parent.parent
SAMPLES = 97
"""Neither two ranks nor batches of 16 divide it evenly. Each sample is its own class, so its label identifies it."""
EPOCHS = 3
WORKERS = {"ffcv": 1, "imagefolder": 1, "litdata": 2, "threads": 2}
WRITERS = {"threads": "imagefolder"}
"""Of loaders that read what another library's writer writes."""


@pytest.fixture(scope="module")
def artifact_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Artifact]:
    """Return a function that gives probe images, which show what part of them is visible, in a loader's format."""
    tree, cache = (tmp_path_factory.mktemp(name) for name in ("probe", "cache"))
    probe.write(tree, SAMPLES, lambda _: None)

    def artifact_of(loader: str) -> Artifact:
        form = {"writer": WRITERS.get(loader, loader), "mode": "jpeg", "max_side": 256}
        chosen = campaign({loader: {"loader": loader, "format": loader}}, {loader: form})
        return prepare(chosen, tree, cache, Display(), strict=True).artifacts[loader]

    return artifact_of


slow = pytest.mark.slow
TRAININGS = [
    ("imagefolder", 2),
    *(
        pytest.param(each, marks=slow)
        for each in [
            ("imagefolder", 1),
            ("litdata", 1),
            ("litdata", 2),
            ("threads", 1),
            ("ffcv", 1),
            ("ffcv", 2),
            ("threads", 2),
        ]
    ),
]
"""Loaders with their numbers of ranks."""


@pytest.fixture(scope="module", params=TRAININGS, ids=str)
def told(
    request, artifact_of: Callable[[str], Artifact], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """The record of each rank of a training."""
    loader, ranks = request.param
    folder = tmp_path_factory.mktemp("fitted")
    spec = {"loader": loader, "workers": WORKERS[loader], "epochs": EPOCHS, "out": str(folder)}
    spec["folder"] = str(Path(artifact_of(loader).path).parent)
    (folder / "spec").write_text(json.dumps(spec))
    several = ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"] if ranks > 1 else []
    done = subprocess.run(
        [sys.executable, "-m", *several, "tests.fitting", folder / "spec"],
        env=os.environ | {"NUMBA_OPT": "0", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,  # ranks that do not take the same number of steps wait for ever
    )
    assert done.returncode == 0, done.stderr
    return [{**json.loads((folder / f"{rank}.json").read_text()), "loader": loader} for rank in range(ranks)]


def epochs(told: list[dict[str, Any]], kind: str) -> list[Counter[int]]:
    """Count how often each sample came in each epoch, over all ranks."""
    return [sum((Counter(rank[kind][epoch]["labels"]) for rank in told), Counter()) for epoch in range(EPOCHS)]


def test_each_epoch_trains_on_each_sample_once(told: list[dict[str, Any]]) -> None:
    for came in epochs(told, "train"):
        assert set(came) == set(range(SAMPLES))
        padded = 0 if told[0]["loader"] == "litdata" else -SAMPLES % len(told)  # as DistributedSampler does
        assert came.total() == SAMPLES + padded
    orders = [rank["train"][epoch]["labels"] for rank in told[:1] for epoch in range(EPOCHS)]
    assert orders[0] != orders[1] != orders[2]


def test_ranks_validate_each_sample_exactly_once(told: list[dict[str, Any]]) -> None:
    assert epochs(told, "val") == [Counter(range(SAMPLES))] * EPOCHS


def test_all_ranks_take_the_same_number_of_steps(told: list[dict[str, Any]]) -> None:
    for kind in ("train", "val"):
        counts = {epoch["batches"] for rank in told for epoch in rank[kind]}
        assert counts == {-(-SAMPLES // 16) if len(told) == 1 else 4}


def test_training_images_change_size_and_validation_images_do_not(told: list[dict[str, Any]]) -> None:
    for rank in told:
        assert [epoch["sizes"] for epoch in rank["train"]] == [[64], [96], [32]]
        assert [epoch["sizes"] for epoch in rank["val"]] == [[64]] * EPOCHS


def test_training_and_validation_apply_their_own_transforms(told: list[dict[str, Any]]) -> None:
    for rank in told:
        for epoch in rank["train"]:  # normalised to -1 to 1, and 4 added
            assert 3 <= epoch["range"][0] < 4 < epoch["range"][1] <= 5
        for epoch in rank["val"]:
            assert -1 <= epoch["range"][0] < 0 < epoch["range"][1] <= 1


def test_validation_shows_the_middle_of_every_image_unflipped(told: list[dict[str, Any]]) -> None:
    for rank in told:
        [labels, edges] = (np.array(rank["val"][0][name]) for name in ("labels", "edges"))
        sizes = np.array([probe.SIZES[label % len(probe.SIZES)] for label in labels])
        half = 224 / 256 * sizes.min(axis=1, keepdims=True) / sizes / 2
        assert np.abs(edges - np.hstack([0.5 - half, 0.5 + half])).max() < 0.01
        assert rank["val"][0]["flipped"] == 0


def test_training_leaves_no_process_and_lightning_injects_no_sampler(told: list[dict[str, Any]]) -> None:
    for rank in told:
        assert rank["loaders"] == ["Epochs", "Epochs"]
        assert rank["left"] == []


def test_a_failing_transform_raises_where_the_batch_is_requested(told: list[dict[str, Any]]) -> None:
    for rank in told:
        assert "the planted failure" in rank["failed"]


def test_artifact_is_loaded_from_its_folder(artifact_of: Callable[[str], Artifact], tmp_path: Path) -> None:
    artifact = artifact_of("imagefolder")
    assert Artifact.load(Path(artifact.path).parent) == artifact
    with pytest.raises(FileNotFoundError, match="Use a folder that loaderbench prepare prints"):
        Artifact.load(tmp_path)


def test_an_unknown_loader_is_refused(told: list[dict[str, Any]]) -> None:
    assert told[0]["refused"].startswith("unknown loader dali; there are ffcv, imagefolder, litdata, ")


def test_image_size_follows_from_the_epoch() -> None:
    work = Work(batch_size=1, workers=1, image_size=224, resizes=((4, 192), (2, 160)))
    assert [work.size_in(epoch) for epoch in range(6)] == [224, 224, 160, 160, 192, 192]


def batches(*sizes: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of these sizes; each image is labelled with its position in the epoch."""
    labels = torch.arange(sum(sizes)).split(sizes)
    return [(own.reshape(-1, 1, 1, 1).float(), own) for own in labels]


@pytest.mark.parametrize(("sizes", "few"), [((4, 4, 1), 1), ((1, 4, 1), 2), ((2, 3), 3)])
def test_epoch_splits_batches_until_their_number_is_reached(sizes: tuple[int, ...], few: int) -> None:
    epoch = Epochs(batches(*sizes), len(sizes), few)
    cut = list(epoch)
    assert len(cut) == len(epoch) == len(sizes) + few
    assert torch.cat([labels for _, labels in cut]).tolist() == [*range(sum(sizes))]
    assert all(images.flatten().tolist() == labels.tolist() for images, labels in cut)


def test_an_epoch_with_too_few_images_to_split_fails() -> None:
    with pytest.raises(RuntimeError, match="2 batches are missing"):
        list(Epochs(batches(1, 2), 2, 3))


@pytest.mark.parametrize(("least", "batch_size"), [(1, 1), (0, 16), (2, 1)])
def test_every_rank_refuses_an_epoch_that_one_rank_cannot_split(least: int, batch_size: int) -> None:
    for own in (least, least + 1):
        with pytest.raises(ValueError, match=f"a rank has {least} batches of up to {batch_size} images"):
            lacking(own, most=least + 1, least=least, batch_size=batch_size)


def test_ranks_with_equally_many_batches_split_none() -> None:
    assert lacking(3, most=3, least=3, batch_size=1) == 0
    assert lacking(3, most=4, least=3, batch_size=16) == 1


@pytest.mark.usefixtures("planted")
def test_a_loader_without_a_length_is_refused(artifact_of: Callable[[str], Artifact]) -> None:
    data = DataModule("cheater", Work(batch_size=16, workers=1, image_size=64), train=artifact_of("imagefolder"))
    with pytest.raises(TypeError, match=r"its stream\(\) gives an object without __len__"):
        data.train_dataloader()
