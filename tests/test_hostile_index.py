"""An index of LitData that a stranger made runs nothing, and names nothing outside its folder."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import pytest

from loaderbench.api import Artifact, Encoding, Work
from loaderbench.loaders import litdata as loader
from loaderbench.writers import litdata as writer

SPEC = [
    1,
    {
        "type": "builtins.dict",
        "context": '["image", "label"]',
        "children_spec": 2 * [{"type": None, "context": None, "children_spec": []}],
    },
]


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.mark), "w")


def index(folder: Path, chunk: str = "chunk-0-0.bin") -> Path:
    """Write a format of one pickled sample, which creates the file `folder`/ran; return its folder."""
    out = folder / "files"
    out.mkdir()
    sample = pickle.dumps(Evil(folder / "ran"))
    item = struct.pack("<2I", len(sample), 8) + sample + struct.pack("<q", 0)
    (out / chunk).write_bytes(struct.pack("<3I", 1, 12, 12 + len(item)) + item)
    config = dict.fromkeys(("compression", "encryption", "chunk_size")) | {"item_loader": "PyTreeLoader"}
    config |= {"chunk_bytes": 64_000_000, "data_format": ["pickle", "int"], "data_spec": json.dumps(SPEC)}
    chunks = [{"chunk_bytes": len(item) + 12, "chunk_size": 1, "dim": None, "filename": chunk}]
    (out / "index.json").write_text(json.dumps({"chunks": chunks, "config": config, "updated_at": "0"}))
    return out


def test_reading_back_refuses_a_serializer_that_the_writer_does_not_use(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"asks for the serializers \['pickle'\]"):
        list(writer.payloads(index(tmp_path)))
    assert not (tmp_path / "ran").exists()


def test_reading_back_refuses_a_chunk_outside_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"names a file outside of it, '\.\./chunk-0-0\.bin'"):
        list(writer.payloads(_decoded(index(tmp_path, "../chunk-0-0.bin"))))


def _decoded(out: Path) -> Path:
    path = out / "index.json"
    path.write_text(path.read_text().replace("pickle", "jpeg"))
    return out


def test_the_loader_refuses_a_serializer_that_the_writer_does_not_use(tmp_path: Path) -> None:
    artifact = Artifact("f", str(index(tmp_path)), 1, 1, 1, 1, Encoding("jpeg"), classes=1)
    work = Work(batch_size=1, workers=1, image_size=8)
    with loader.stream(artifact, work) as batches, pytest.raises(ValueError, match="serializer 'pickle'"):
        list(batches)
    assert not (tmp_path / "ran").exists()
