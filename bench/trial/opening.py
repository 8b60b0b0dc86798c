"""Open a loader so that whatever it does wrong ends as a failure with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from loaderbench.api import Artifact, Loader, Work
from loaderbench.trial.checks import InvalidWorkError, described

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def opened(
    loader: Loader, artifact: Artifact, work: Work, options: Mapping[str, Any]
) -> Iterator[Iterable[tuple[Tensor, Tensor]]]:
    """Open a loader until the end of the block.

    Raises NotImplementedError only if the loader refuses the work at once; later it is a RuntimeError. What is raised
    in the block is raised here, even if the loader catches it.
    """
    stream, failure, refusing = loader.stream(artifact, work, **options), None, True
    if not hasattr(stream, "__enter__"):
        raise InvalidWorkError(
            f"stream() returns {described(stream)} instead of a context manager; decorate it with "
            "contextlib.contextmanager"
        )
    try:
        with ExitStack() as stack:
            batches = [stack.enter_context(stream)]
            refusing = False
            try:
                yield batches.pop()  # so that the loader's object lives no longer than the caller keeps it
            except BaseException as error:
                failure = error
                raise
        if failure:
            raise failure
    except NotImplementedError as error:
        if refusing:
            raise
        raise RuntimeError("that is no refusal, because the loader was already open") from error
