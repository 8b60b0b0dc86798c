"""An index of LitData that a stranger made runs nothing, and names nothing outside its folder."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Iterator
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


def index(folder: Path) -> Path:
    """Write a format of one pickled sample, which if it is read creates the file `folder`/ran; return its folder."""
    out = folder / "files"
    out.mkdir()
    sample = pickle.dumps(Evil(folder / "ran"))
    item = struct.pack("<2I", len(sample), 8) + sample + struct.pack("<q", 0)
    (out / "chunk-0-0.bin").write_bytes(struct.pack("<3I", 1, 12, 12 + len(item)) + item)
    config = dict.fromkeys(("compression", "encryption", "chunk_size")) | {"item_loader": "PyTreeLoader"}
    config |= {"chunk_bytes": 64_000_000, "data_format": ["pickle", "int"], "data_spec": json.dumps(SPEC)}
    chunks = [{"chunk_bytes": len(item) + 12, "chunk_size": 1, "dim": None, "filename": "chunk-0-0.bin"}]
    (out / "index.json").write_text(json.dumps({"chunks": chunks, "config": config, "updated_at": "0"}))
    return out


IMPORTED = '{"default_factory_module": "planted", "default_factory_name": "x", "dict_context": ["image", "label"]}'
FAULTS = {
    "pickle": ({"data_format": ["pickle", "int"]}, {}, r"asks for the serializers \['pickle'\]"),
    "outside": ({}, {"filename": "../chunk-0-0.bin"}, r"names a file outside of .*, '\.\./chunk-0-0\.bin'"),
    "absolute": ({}, {"filename": "/x/chunk-0-0.bin"}, "names a file outside of .*, '/x/chunk-0-0.bin'"),
    "import": (
        {"data_spec": json.dumps([1, SPEC[1] | {"type": "collections.defaultdict", "context": json.loads(IMPORTED)}])},
        {},
        "describes other samples than an image and a label",
    ),
    "compressed": ({"compression": "zstd"}, {}, "describes other samples than .* uncompressed"),
}
"""By name: what the index says instead, of all and of its chunk, and the reason for which it is refused."""


@pytest.fixture(params=FAULTS)
def hostile(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a format with one fault. No code that it brings runs, and nothing is written outside."""
    config, chunk, _ = FAULTS[request.param]
    out = index(tmp_path)
    found = json.loads((out / "index.json").read_text())
    found["config"] |= {"data_format": ["jpeg", "int"]} | config
    found["chunks"][0] |= chunk
    (out / "index.json").write_text(json.dumps(found))
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w'); x = list\n")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    yield out
    assert {path for path in tmp_path.rglob("*") if {"cache", "__pycache__"}.isdisjoint(path.parts)} == before


@pytest.fixture
def reason(request: pytest.FixtureRequest) -> str:
    return FAULTS[request.node.callspec.params["hostile"]][2]


def test_reading_back_refuses_what_the_writer_does_not_write(hostile: Path, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        list(writer.payloads(hostile))


@pytest.mark.parametrize("way", ["", "local:"], ids=["local", "streamed"])
def test_the_loader_refuses_what_the_writer_does_not_write_before_it_fetches_a_chunk(
    hostile: Path, reason: str, tmp_path: Path, way: str
) -> None:
    cache = tmp_path / "cache" / "below"
    cache.mkdir(parents=True)
    path, kept = f"{way}{hostile}", str(cache) if way else ""
    artifact = Artifact("f", path, 1, 1, 1, 1, Encoding("jpeg"), classes=1, cache=kept)
    work = Work(batch_size=1, workers=1, image_size=8)
    with pytest.raises(ValueError, match=reason), loader.stream(artifact, work) as batches:
        list(batches)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix == ".bin"]
