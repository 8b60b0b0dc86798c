"""A training script of the shape of PyTorch's examples. It builds its loaders in `main`, and validates first."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torchvision import datasets, transforms

parser = argparse.ArgumentParser()
parser.add_argument("data", type=Path)
parser.add_argument("--workers", type=int, default=1)
parser.add_argument("--checkpoint", type=Path, required=True)


def main() -> None:
    """Train a tiny model."""
    args = parser.parse_args()
    transform = transforms.Compose([transforms.RandomResizedCrop(32), transforms.ToTensor()])
    dataset = datasets.ImageFolder(str(args.data), transform)
    of_all = {"batch_size": 8, "num_workers": args.workers}
    train_loader = torch.utils.data.DataLoader(dataset, shuffle=True, **of_all)
    val_loader = torch.utils.data.DataLoader(dataset, batch_size=4)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    try:
        for _ in range(2):
            with torch.no_grad():
                for images, _ in val_loader:
                    model(images)
            for images, target in train_loader:
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(images), target).backward()
                optimizer.step()
    finally:
        torch.save(model.state_dict(), args.checkpoint)


if __name__ == "__main__":
    main()
