"""How is a bucket reached, and what went wrong there, in words?

boto3 finds credentials, endpoint and region as it always does, lists, and carries large objects piece by piece. obstore
carries small ones: about four times as many a second pass through one process.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from loaderbench.bucket.listing import read_objects
from loaderbench.bucket.pieces import PIECES_AT_ONCE
from loaderbench.machine.errors import FixableError
from loaderbench.machine.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEME = "s3://"
TRIES = 5
"""How often a request is made before its failure counts, after a longer wait each time."""
_CONNECTS_WITHIN_S, _ANSWERS_WITHIN_S = 10, 30
GO_ON = "run the same command again: what was copied stays"
_RENEW = "renew them (aws sso login, or whatever gave them), and " + GO_ON
_MEANINGS = {
    "NoSuchBucket": "{endpoint} has no bucket {bucket}; see which it has: aws s3 ls",
    "AccessDenied": "{endpoint} denied {what}; see whose the credentials are (aws sts get-caller-identity) and let "
    "them do s3:ListBucket and s3:GetObject there, and s3:PutObject to publish",
    "ExpiredToken": "the credentials expired, seen at {what}; " + _RENEW,
    "InvalidAccessKeyId": "{endpoint} does not accept these credentials; see where they come from: aws configure list",
    "NoCredentialsError": "there are no AWS credentials for {what}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "or: aws configure",
    "500": "{endpoint} gave no answer that can be read at {what}, asked again and again; see that AWS_ENDPOINT_URL "
    "names an S3 endpoint, wait, and " + GO_ON,
    "EndpointConnectionError": "{endpoint} does not answer; see that it runs and that AWS_ENDPOINT_URL names it, and "
    + GO_ON,
    "SlowDown": "{endpoint} was overloaded at {what}, asked again and again; wait, and " + GO_ON,
    "InvalidObjectState": "{what} failed: it is archived; restore it first: aws s3api restore-object",
}
"""By S3's error code, or botocore's exception."""
_SAME_AS = {
    "401": "InvalidAccessKeyId",
    "403": "AccessDenied",
    "429": "SlowDown",
    "503": "SlowDown",
    "AllAccessDisabled": "AccessDenied",
    "AuthorizationHeaderMalformed": "InvalidAccessKeyId",
    "ConnectTimeoutError": "EndpointConnectionError",
    "ConnectionClosedError": "EndpointConnectionError",
    "ExpiredTokenException": "ExpiredToken",
    "IncompleteReadError": "GenericError",
    "InternalError": "SlowDown",
    "InvalidToken": "InvalidAccessKeyId",
    "LoginRefreshRequired": "ExpiredToken",
    "ReadTimeoutError": "EndpointConnectionError",
    "RequestExpired": "ExpiredToken",
    "RequestLimitExceeded": "SlowDown",
    "ResponseStreamingError": "GenericError",
    "SSOTokenLoadError": "ExpiredToken",
    "ServiceUnavailable": "SlowDown",
    "SignatureDoesNotMatch": "InvalidAccessKeyId",
    "Throttling": "SlowDown",
    "ThrottlingException": "SlowDown",
    "TokenRefreshRequired": "ExpiredToken",
    "TokenRetrievalError": "ExpiredToken",
    "TooManyRequests": "SlowDown",
    "UnauthorizedSSOTokenError": "ExpiredToken",
}
_BROKEN = "GenericError"
"""obstore's exception for what has no code of S3's: a connection that broke. boto3 has names for that."""
_CODES = tuple(
    map(re.compile, (r"<Code>(\w+)</Code>", r"An error occurred \((\w+)\)", r"provider: (\w+)", r"status code: (\d+)"))
)
"""In the texts of botocore's and obstore's errors; the first one that is found tells the most."""


class S3Error(FixableError):
    """A bucket that cannot be used. The message says what, where, and what mends it."""


class DeniedError(S3Error):
    """What was asked for is not permitted."""


class PassingError(S3Error):
    """One that may pass if the same is tried again after a while."""


_KINDS = {
    "AccessDenied": DeniedError,
    **dict.fromkeys(("EndpointConnectionError", "SlowDown", "500", _BROKEN), PassingError),
}


@dataclass(frozen=True)
class Location:
    """Where objects lie: a bucket, and what their keys begin with."""

    bucket: str
    prefix: str
    """Empty, or ends with a slash."""
    name: str = ""
    """Of the one object below the prefix that is meant; empty: all of them are."""

    @classmethod
    def parse(cls, url: str) -> Location:
        """Read `s3://bucket/prefix`. Raises S3Error."""
        bucket, _, prefix = url.removeprefix(SCHEME).partition("/")
        if not url.startswith(SCHEME) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]+", bucket):
            raise S3Error(f"{printable(url)} names no bucket; write s3://bucket/prefix")
        prefix = prefix.rstrip("/")
        return cls(bucket, f"{prefix}/" if prefix else "")

    def __truediv__(self, name: str) -> Location:
        """Return the location of this name below."""
        return Location(self.bucket, f"{self.prefix}{name}/")

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{printable(self.prefix + self.name)}"


class Bucket:
    """A bucket with the clients that reach it, for any number of threads."""

    def __init__(self, location: Location) -> None:
        """Connect, and list the location once. Raises S3Error."""
        try:
            import boto3
            import botocore.exceptions
            import botocore.session
            import obstore.exceptions
            from botocore.config import Config
            from obstore.auth.boto3 import Boto3CredentialProvider
            from obstore.store import S3Store
        except ImportError as error:
            message = f"{location} needs {error.name}, which is missing: make setup, or pip install 'loaderbench[s3]'"
            raise S3Error(message) from None
        self.name = location.bucket
        self.endpoint = "S3"
        self.threads = ThreadPoolExecutor(PIECES_AT_ONCE)
        """The threads that carry pieces of large objects. They begin when there is something to do."""
        self._failures = (
            botocore.exceptions.BotoCoreError,
            botocore.exceptions.ClientError,
            obstore.exceptions.BaseError,
        )
        with self.explained(f"listing {location}"):
            found = botocore.session.get_session()
            found.register("before-parse.s3.ListObjectsV2", read_objects)
            session = boto3.Session(botocore_session=found)
            config = Config(
                connect_timeout=_CONNECTS_WITHIN_S,
                max_pool_connections=PIECES_AT_ONCE,
                read_timeout=_ANSWERS_WITHIN_S,
                # Not every server knows the others; what is needed is held against MD5s.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                retries={"mode": "standard", "total_max_attempts": TRIES},
            )
            self.client = session.client("s3", config=config)
            self.endpoint = self.client.meta.endpoint_url
            answer = self.page(location.prefix, MaxKeys=1)
            region = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region") or session.region_name
            if region and region != self.client.meta.region_name:
                self.client = session.client("s3", region_name=region, config=config)
                self.endpoint = self.client.meta.endpoint_url
            self.store = S3Store(
                self.name,
                endpoint=self.endpoint,
                region=region or "us-east-1",
                virtual_hosted_style_request=False,
                client_options={
                    "allow_http": self.endpoint.startswith("http://"),
                    "connect_timeout": timedelta(seconds=_CONNECTS_WITHIN_S),
                    "read_timeout": timedelta(seconds=_ANSWERS_WITHIN_S),  # of one read
                    "timeout": timedelta(days=1),
                },
                retry_config={"max_retries": TRIES, "retry_timeout": timedelta(minutes=1)},
                # boto3 renews credentials in time; what it gave is not held for long.
                credential_provider=Boto3CredentialProvider(session, ttl=timedelta(minutes=5)),
            )

    def page(self, prefix: str, **options: Any) -> dict[str, Any]:
        """Return one answer of ListObjectsV2, as `bucket.listing.read_objects` leaves it. Raises S3Error."""
        with self.explained(f"listing {SCHEME}{self.name}/{printable(prefix)}"):
            page: dict[str, Any] = self.client.list_objects_v2(Bucket=self.name, Prefix=prefix, **options)
        if "Contents" not in page:
            what = "what it answered is no list of objects"
            raise S3Error(f"{self.endpoint} is no S3 endpoint: {what}; see that AWS_ENDPOINT_URL names one")
        return page

    @contextmanager
    def explained(self, what: str) -> Iterator[None]:
        """Raise the clients' errors as S3Error. `what` was being done."""
        try:
            yield
        except self._failures as error:
            text = str(error)
            code = next((found[1] for pattern in _CODES if (found := pattern.search(text))), type(error).__name__)
            code = _SAME_AS.get(code, code)
            text = " ".join(text.partition("\n\nDebug source")[0].split())
            if code == _BROKEN:
                message = f"the connection to {self.endpoint} broke at {what}, again and again ({text}); {GO_ON}"
            elif meaning := _MEANINGS.get(code):
                message = meaning.format(endpoint=self.endpoint, bucket=self.name, what=what)
            else:
                message = f"{what} at {self.endpoint} failed: {text}"
            raise _KINDS.get(code, S3Error)(message) from None
