"""Train a small network in plain PyTorch with any loader, and validate it after each epoch.

loaderbench prepare --samples 2048                            # prints the folder of each format
loaderbench prepare examples/validation.toml --samples 512    # the same for other images
python examples/train_plain.py data/artifacts/ffcv-jpeg-... data/artifacts/ffcv-jpeg-... --loader ffcv
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import typer
from network import small
from torch.nn.functional import cross_entropy

from loaderbench import Artifact, Work
from loaderbench.campaign import registry


def main(  # noqa: PLR0913 - each is an option of the command
    train: Path,
    val: Path,
    *,
    loader: str = "ffcv",
    epochs: int = 10,
    image_size: int = 64,
    batch_size: int = 64,
    workers: int = 2,
) -> None:
    """Train on one folder that `loaderbench prepare` prints, and validate on another."""
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images_to_train, images_to_validate = Artifact.load(train), Artifact.load(val)
    network = small(images_to_train.classes).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.003)
    work = Work(batch_size=batch_size, workers=workers, image_size=image_size, dtype="float32", lasting=True)
    validation = replace(work, augment="validation", shuffle=False)
    stream = registry.loader(loader).stream
    with stream(images_to_train, work) as batches, stream(images_to_validate, validation) as val_batches:
        for epoch in range(epochs):  # each pass over `batches` is an epoch in a new order
            network.train()
            for images, labels in batches:
                loss = cross_entropy(network(images.to(device)), labels.to(device, torch.int64))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            network.eval()
            with torch.inference_mode():
                right = [(network(i.to(device)).argmax(1).cpu() == n).float() for i, n in val_batches]
            print(f"epoch {epoch}: validation accuracy {torch.cat(right).mean():.3f}", flush=True)


if __name__ == "__main__":
    typer.run(main)
