"""Write Parquet files as Hugging Face's datasets do."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq

FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog", "fox"], "_type": "ClassLabel"}}
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def dataset(  # noqa: PLR0913 - most tests need the first two only
    path, rows, features=None, columns=("image", "label"), *, row_group_size=3, compression=None, metadata=None, **extra
):
    """Write what `datasets` writes: a struct per image, an integer per label, the features in the schema's metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = pa.array([None if content is None else {"bytes": content, "path": None} for content, _ in rows], IMAGE)
    arrays = [images, pa.array([label for _, label in rows], pa.int64()), *extra.values()]
    schema = pa.schema([(name, array.type) for name, array in zip([*columns, *extra], arrays, strict=True)])
    metadata = {"huggingface": metadata or json.dumps({"info": {"features": features or FEATURES}})}
    table = pa.table(arrays, schema=schema.with_metadata(metadata))
    pq.write_table(table, path, row_group_size, compression=compression or "snappy", dictionary_pagesize_limit=1 << 30)
    return path
