"""Turn the observations of one contestant into its certificate."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loaderbench.api import Mode, Work
from loaderbench.certify import augmentation, delivery, pixels, shuffle
from loaderbench.certify.identity import identify, small
from loaderbench.certify.observation import EMPTIED, HELD_BATCHES, SEEN, Observation
from loaderbench.certify.pixels import SURE_DB, Making
from loaderbench.formats.modes import ORIGINALS
from loaderbench.images import CanonicalImages
from loaderbench.records.certificates import Certificate

_HALF = 0.5


def judge(scratch: Path, source: CanonicalImages, work: Work, mode: Mode) -> Certificate:
    """Return the certificate for the observations that `observe.run` left in `scratch`. `source`: of the probe."""
    seen, emptied = _of_all_ranks(scratch, SEEN), _of_all_ranks(scratch, EMPTIED)
    assert seen
    samples = len(source)
    images = [small(source.original(label)) for label in range(samples)]
    shown = identify(seen, images)
    order = shuffle.figures(seen, samples)
    drawn, ill_drawn = augmentation.examine(seen)
    made = pixels.making(seen, source, mode) if shown.wrong_share < _HALF else None
    return Certificate(
        faults=(
            *delivery.faults(seen, shown, work, samples),
            *shuffle.faults(seen, work, order, samples),
            *ill_drawn,
            *(made.faults(mode) if made else ()),
            *_kept_in_memory(emptied, images),
        ),
        of_originals=made is not None and made.base == ORIGINALS,
        traits=dict(_traits(seen, made, work.ranks)),
        figures=order | drawn | (made.figures() if made else {}) | {"intact_batches": int(seen.intact_batches)},
        seen_on=f"{samples:,} probe images, 2 epochs, batches of {work.batch_size}, {work.workers} workers"
        + (f" in each of {work.ranks} ranks" if work.ranks > 1 else ""),
    )


def _of_all_ranks(scratch: Path, name: str) -> Observation | None:
    ranks = [Observation.load(path) for path in sorted(scratch.glob(f"rank*/{name}"))]
    return Observation.together(ranks) if ranks else None


def _kept_in_memory(emptied: Observation | None, images: Sequence[NDArray[np.uint8]]) -> Iterator[str]:
    if emptied is not None and len(emptied.signatures) and identify(emptied, images).wrong_share < _HALF:
        yield "images still come when their files are empty: they are held in memory instead of being decoded again"


def _own_memory(seen: Observation, ranks: int) -> str:
    """Return that no batch was used again, and for how many further ones of its epoch if they were few."""
    further = (seen.image_batch.max(initial=0) + 1) // ranks - 1
    return "its own" if further >= HELD_BATCHES else f"its own while {further} further ones come"


def _traits(seen: Observation, made: Making | None, ranks: int) -> Iterator[tuple[str, str]]:
    yield "batches", " and ".join(seen.forms.tolist())
    if made:
        yield "crops of", f"{made.base}{f', decoded {made.decode}' if made.decode else ''}"
        yield "resampling", made.resampling if made.own_db >= SURE_DB else f"closest to {made.resampling}"
    intact = seen.intact_batches >= HELD_BATCHES
    yield "memory of a batch", _own_memory(seen, ranks) if intact else "used again for later ones"
    if len(again := seen.again_label):
        reproduced = np.array_equal(seen.image_label[: len(again)], again)
        yield "order by seed", "reproduced" if reproduced else "not reproduced"
