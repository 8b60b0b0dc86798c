"""Which objects are below a prefix? Page by page, asked for by several threads where the prefix has folders."""

from __future__ import annotations

from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loaderbench.bucket.client import Bucket, Location

LISTERS = 8
FOLDERS = 2 * LISTERS
"""With so many folders known, each is listed whole; before, its own folders are looked for."""


@dataclass(frozen=True, slots=True)
class Remote:
    """An object, as listed."""

    key: str
    size_bytes: int
    etag: str
    """Without quotes: the MD5 of the content for objects that were uploaded whole and are not encrypted by a key of
    one's own. Empty: not known."""


@dataclass(frozen=True)
class _Request:
    """One page to be asked for."""

    prefix: str
    by_folder: bool
    """Whether what lies deeper is left to requests of its own."""
    token: str | None = None


def one_object(bucket: Bucket, location: Location) -> Location | None:
    """Return the location of the object whose key is the location's prefix but for the slash; None if there is none, or
    it is empty: such a one only stands for a folder. Raises S3Error.
    """
    if not location.prefix:
        return None
    folder, slash, name = location.prefix.removesuffix("/").rpartition("/")
    found = replace(location, prefix=folder + slash, name=name)
    [remotes] = pages(bucket, found)
    return found if remotes and remotes[0].size_bytes else None


def pages(bucket: Bucket, location: Location) -> Iterator[list[Remote]]:
    """Yield all objects of the location, up to 1,000 at a time, in no order. Few pages are held at once.

    Raises S3Error.
    """
    if location.name:
        key = location.prefix + location.name  # it comes first of those that begin so
        page = _ask(bucket, _Request(key, by_folder=False), MaxKeys=1)
        yield [remote for remote in _remotes(page) if remote.key == key]
        return
    todo = deque([_Request(location.prefix, by_folder=True)])
    folders = 0
    asked: dict[Future[dict[str, Any]], _Request] = {}
    with ThreadPoolExecutor(LISTERS) as pool:
        while todo or asked:
            while todo and len(asked) < LISTERS:
                request = todo.popleft()
                asked[pool.submit(_ask, bucket, request)] = request
            for answered in wait(asked, return_when=FIRST_COMPLETED).done:
                request, page = asked.pop(answered), answered.result()
                if request.by_folder and page.get("IsTruncated"):
                    todo.append(replace(request, by_folder=False))  # too many to ask for one by one
                    continue
                if page.get("IsTruncated"):
                    todo.append(replace(request, token=page["NextContinuationToken"]))
                below = [folder["Prefix"] for folder in page.get("CommonPrefixes", ())]
                folders += len(below)
                todo += [_Request(prefix, by_folder=folders < FOLDERS) for prefix in below]
                yield _remotes(page)


def _remotes(page: dict[str, Any]) -> list[Remote]:
    return [Remote(found["Key"], int(found["Size"]), found["ETag"].strip('"')) for found in page["Contents"]]


def _ask(bucket: Bucket, request: _Request, **options: Any) -> dict[str, Any]:
    """Return one answer of ListObjectsV2."""
    if request.by_folder:
        options["Delimiter"] = "/"
    if request.token:
        options["ContinuationToken"] = request.token
    return bucket.page(request.prefix, **options)


def read_objects(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    """Read the objects of an answer of ListObjectsV2 in place of botocore, which takes several times as long for them.

    A handler of botocore's event `before-parse`: what is put into `customized_response_dict` is its result, and what is
    left of the body is botocore's to read: all of it, and no `Contents`, where it is no list of objects.
    """
    try:
        root = ET.fromstring(response_dict["body"])  # noqa: S314 - botocore reads it so too
    except ET.ParseError:
        return  # botocore says so
    namespace = root.tag[: root.tag.rfind("}") + 1]
    if root.tag != f"{namespace}ListBucketResult":
        return
    customized_response_dict["Contents"] = [
        {name: found.findtext(namespace + name, "") for name in ("Key", "Size", "ETag")}
        for found in root.findall(f"{namespace}Contents")
    ]
    root[:] = [element for element in root if element.tag != f"{namespace}Contents"]
    response_dict["body"] = ET.tostring(root)
