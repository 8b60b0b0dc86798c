"""Connect to a bucket, make single requests to it, and put its errors into words.

boto3 finds credentials, endpoint and region by AWS's usual chain. `loaderbench.bucket.rclone` copies the objects.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from loaderbench.machine.errors import FixableError
from loaderbench.machine.text import one_line, printable

SCHEME = "s3://"
TRIES = 5
"""Attempts at one request, after a longer wait each time."""
CONNECTS_WITHIN_S, ANSWERS_WITHIN_S = 10, 30
RESUME = "Run the same command to resume; what was copied is kept"
_RENEW = f"Renew them (aws sso login, or whatever issued them). {RESUME}"
_MEANINGS = {
    "NoSuchBucket": "{endpoint} has no bucket {bucket}. List its buckets: aws s3 ls",
    "AccessDenied": "{endpoint} denied {what}. See whose credentials these are (aws sts get-caller-identity) and allow "
    "them s3:ListBucket and s3:GetObject there, and s3:PutObject to publish",
    "ExpiredToken": "the credentials expired while {what}. " + _RENEW,
    "InvalidAccessKeyId": "{endpoint} does not accept these credentials. See where they come from: aws configure list",
    "NoCredentialsError": "there are no AWS credentials for {what}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "or run: aws configure",
    "500": "{endpoint} gave no readable answer while {what}; all retries failed. Check that AWS_ENDPOINT_URL names "
    "an S3 endpoint, and wait. " + RESUME,
    "EndpointConnectionError": "{endpoint} does not answer. Check that it runs and that AWS_ENDPOINT_URL names it. "
    + RESUME,
    "SlowDown": "{endpoint} was overloaded while {what}; all retries failed. Wait. " + RESUME,
    "InvalidObjectState": "{what} failed: the object is archived. Restore it first: aws s3api restore-object",
    "Full": "{what} failed: the disk is full ({text}). Make room there, or use --cache for another disk. " + RESUME,
    "Broken": "lost the connection to {endpoint} while {what}; all retries failed ({text}). " + RESUME,
    "Larger": "{what} failed: there is more than expected",
    "Damaged": "{what} failed: it arrived damaged, or changed meanwhile: its MD5 is not its ETag. " + RESUME,
}
"""By S3's error code, botocore's exception, or a name of `_WORDS`."""
_SYNONYMS = {
    "AccessDenied": "403 AllAccessDisabled",
    "Broken": "IncompleteReadError ResponseStreamingError",
    "EndpointConnectionError": "ConnectTimeoutError ConnectionClosedError ReadTimeoutError",
    "ExpiredToken": "ExpiredTokenException LoginRefreshRequired RequestExpired SSOTokenLoadError TokenRefreshRequired "
    "TokenRetrievalError UnauthorizedSSOTokenError",
    "InvalidAccessKeyId": "401 AuthorizationHeaderMalformed InvalidToken SignatureDoesNotMatch",
    "SlowDown": "429 503 InternalError RequestLimitExceeded ServiceUnavailable Throttling ThrottlingException "
    "TooManyRequests",
}
_SAME_AS = {other: code for code, others in _SYNONYMS.items() for other in others.split()}
_CODES = tuple(map(re.compile, (r"api error (\w+)", r"An error occurred \((\w+)\)", r"(?i)status ?code: (\d+)")))
"""Where botocore's and rclone's errors name S3's code."""
_WORDS = {
    "Damaged": re.compile("corrupted on transfer: md5"),
    "Larger": re.compile("(?i)max(imum)? transfer limit reached"),
    "ExpiredToken": re.compile(r"(?i)sso.*(expired|refresh)|token has expired"),
    "InvalidObjectState": re.compile("Object in GLACIER"),
    "EndpointConnectionError": re.compile("connection refused|no such host"),
    "Full": re.compile("(?i)no space left|quota exceeded|file too large|remaining disk space"),
    "Broken": re.compile(r"EOF|reset by peer|broken pipe|[Tt]imeout|closed network connection"),
}
"""What rclone says of errors without a code."""
_PASSING = {"Broken", "Damaged", "EndpointConnectionError", "SlowDown", "500"}


class S3Error(FixableError):
    """A bucket that cannot be used."""

    code = ""
    """S3's error code, or what stands for it in `_MEANINGS`."""
    damaged: Iterable[str] = ()
    """Names of objects that arrived with another MD5 than their ETag."""

    @property
    def passing(self) -> bool:
        """Whether another attempt may succeed."""
        return self.code in _PASSING


@dataclass(frozen=True)
class Location:
    """A place in a bucket: all objects whose keys begin with a prefix, or one object."""

    bucket: str
    prefix: str
    """Empty, or ends with a slash."""
    name: str = ""
    """Name of the one object below the prefix; empty: all objects below it."""

    @classmethod
    def parse(cls, url: str) -> Location:
        """Return the location that `s3://bucket/prefix` names. Raises S3Error."""
        bucket, _, prefix = url.removeprefix(SCHEME).partition("/")
        if not url.startswith(SCHEME) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]+", bucket):
            raise S3Error(f"{printable(url)} names no bucket; write s3://bucket/prefix")
        prefix = prefix.rstrip("/")
        if prefix and relative(prefix) is None:
            raise S3Error(f"{printable(url)}: the prefix is no path; it may hold no empty name, . or ..")
        return cls(bucket, f"{prefix}/" if prefix else "")

    def __truediv__(self, name: str) -> Location:
        """Return the location of this name below."""
        return Location(self.bucket, f"{self.prefix}{name}/")

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{printable(self.prefix + self.name)}"


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_NAME_BYTES, _LONGEST_PATH_BYTES, _DEEPEST = 255, 3000, 100


def relative(key: str) -> str | None:
    """Return a key, without its prefix, as the path of a file below a folder; None if it cannot be one."""
    names = key.split("/")
    if any(name in {"", ".", ".."} or len(os.fsencode(name)) > _LONGEST_NAME_BYTES for name in names):
        return None
    if len(os.fsencode(key)) > _LONGEST_PATH_BYTES or len(names) > _DEEPEST or _CONTROL.search(key):
        return None
    return key


def _time(text: Any) -> datetime:
    """Return the time in an answer. botocore's own parser takes most of the time of listing many objects."""
    from botocore.utils import parse_timestamp

    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):  # headers have another form
        parsed: datetime = parse_timestamp(text)
        return parsed


class Bucket:
    """A bucket, and a client that makes single requests to it."""

    def __init__(self, location: Location) -> None:
        """Connect, and list the location once. Raises S3Error."""
        try:
            import boto3
            import botocore.exceptions
            import botocore.session
            from botocore.config import Config
        except ImportError as error:
            message = (
                f"{location} needs {error.name}, which is missing: make setup, or pip install '.[s3]' in the checkout"
            )
            raise S3Error(message) from None
        self.name = location.bucket
        self.endpoint = "S3"
        self._failures = (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError)
        with self.explained(f"listing {location}"):
            core = botocore.session.get_session()
            core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_time)
            session = boto3.Session(botocore_session=core)
            config = Config(
                connect_timeout=CONNECTS_WITHIN_S,
                read_timeout=ANSWERS_WITHIN_S,
                # Not every server knows the newer checksums.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                retries={"mode": "standard", "total_max_attempts": TRIES},
            )
            self.client = session.client("s3", config=config)
            self.endpoint = self.client.meta.endpoint_url
            answer = self._page(location.prefix, MaxKeys=1)
            region = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region") or session.region_name
            if region and region != self.client.meta.region_name:
                self.client = session.client("s3", region_name=region, config=config)
                self.endpoint = self.client.meta.endpoint_url
            self.region = region or "us-east-1"

    def objects(self, prefix: str, **options: Any) -> Iterator[dict[str, Any]]:
        """Yield all objects whose keys begin with the prefix, with `Key`, `Size`, `LastModified`. Raises S3Error.

        `options`: of ListObjectsV2; with `MaxKeys` there is one page alone.
        """
        page = self._page(prefix, **options)
        yield from page.get("Contents", ())
        while page["IsTruncated"] and "MaxKeys" not in options:
            page = self._page(prefix, ContinuationToken=page["NextContinuationToken"])
            yield from page.get("Contents", ())

    def head(self, key: str) -> dict[str, Any]:
        """Return what is on record of an object; empty if there is none. Raises S3Error."""
        with self.explained(f"asking for {SCHEME}{self.name}/{printable(key)}"):
            try:
                found: dict[str, Any] = self.client.head_object(Bucket=self.name, Key=key)
            except self.client.exceptions.ClientError as error:
                if error.response["Error"]["Code"] != "404":
                    raise
                found = {}
        return found

    def is_encrypted(self, key: str) -> bool:
        """Return whether an object is encrypted by a key of its owner's: its ETag is then no MD5. Raises S3Error."""
        head = self.head(key)
        return "SSECustomerAlgorithm" in head or head.get("ServerSideEncryption", "AES256") != "AES256"

    def read(self, key: str, most_bytes: int) -> bytes | None:
        """Return the content of a small object; None if there is none. Raises S3Error, also if it is larger."""
        with self.explained(f"reading {SCHEME}{self.name}/{printable(key)}"):
            try:
                found = self.client.get_object(Bucket=self.name, Key=key)
            except self.client.exceptions.NoSuchKey:
                return None
            if found["ContentLength"] > most_bytes:
                raise S3Error(f"{SCHEME}{self.name}/{printable(key)} is larger than {most_bytes >> 20} MiB")
            content: bytes = found["Body"].read()
        return content

    def write(self, key: str, content: bytes) -> None:
        """Write a small object. Raises S3Error."""
        with self.explained(f"writing {SCHEME}{self.name}/{printable(key)}"):
            self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def _page(self, prefix: str, **options: Any) -> dict[str, Any]:
        with self.explained(f"listing {SCHEME}{self.name}/{printable(prefix)}"):
            page: dict[str, Any] = self.client.list_objects_v2(Bucket=self.name, Prefix=prefix, **options)
        if "IsTruncated" not in page:
            what = "its answer is no list of objects"
            raise S3Error(f"{self.endpoint} is no S3 endpoint: {what}. Check that AWS_ENDPOINT_URL names one")
        return page

    def error(self, what: str, text: str, code: str = "") -> S3Error:
        """Return the error that puts a client's text into words.

        `what`: what was being done. `code`: S3's error code, where the text has none.
        """
        code = next((found[1] for pattern in _CODES if (found := pattern.search(text))), code)
        code = code or next((name for name, pattern in _WORDS.items() if pattern.search(text)), "")
        code = _SAME_AS.get(code, code)
        meaning = _MEANINGS.get(code, "{what} at {endpoint} failed: {text}")
        told = meaning.format(endpoint=self.endpoint, bucket=self.name, what=what, text=text)
        error = S3Error(one_line(told))
        error.code = code
        return error

    @contextmanager
    def explained(self, what: str) -> Iterator[None]:
        """Raise the client's errors as S3Error. `what` is being done."""
        try:
            yield
        except self._failures as error:
            raise self.error(what, str(error), type(error).__name__) from None
