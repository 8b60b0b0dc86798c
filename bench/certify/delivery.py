"""Check that every sample comes once an epoch, in the requested form, and matches its label."""

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np

from loaderbench.api import CHANNELS, Work
from loaderbench.campaign import pixel_values
from loaderbench.certify.identity import Shown
from loaderbench.certify.observation import EPOCHS, Observation

_MISTAKEN_SHARE = 0.02
"""Maximum share of crops that are too small or too plain to be distinguished from those of another image."""
_MISTAKEN = 2
"""As many may be, however few crops there are: one of the 40 crops of a probe of 20 images is more than that share."""
_DARKEST, _LIGHTEST = 40, 215
"""Every epoch of the probe has values below the first and above the second, of 0 to 255."""


def faults(seen: Observation, shown: Shown, work: Work, samples: int) -> Iterator[str]:
    """Yield in words how the delivery differs from the request. `samples`: number of samples in the probe."""
    yield from _form(seen, work)
    yield from _range(seen, work)
    if seen.changed_in_use:
        yield "a batch is overwritten while it is still in use, before the next one is requested"
    coverage = list(_coverage(seen, work, samples))
    yield from coverage
    if not coverage:
        yield from _sizes(seen, work)
    yield from _labels(shown)


def _form(seen: Observation, work: Work) -> Iterator[str]:
    requested = f"({CHANNELS}, {work.image_size}, {work.image_size}), {work.dtype}"
    for form in seen.forms:
        shape_and_type, memory, device = str(form).split("; ")
        if shape_and_type != requested:
            yield f"images are {shape_and_type} instead of {requested}"
        if memory not in {"contiguous", "channels_last"}:
            yield f"images lie in memory with {memory}"
        if device != work.device:
            yield f"images are delivered on {device}"
    for form in seen.label_forms:
        if not re.fullmatch(r"1-dimensional, int\d+", str(form)):
            yield f"labels are {form} instead of 1-dimensional, integer, on cpu"


def _range(seen: Observation, work: Work) -> Iterator[str]:
    full = pixel_values.LEVELS if work.dtype == "uint8" else 1
    slack = pixel_values.rounding(work) if work.normalised else 0  # 0 and 1 themselves are exact in any dtype
    dark, light = (level / pixel_values.LEVELS * full for level in (_DARKEST, _LIGHTEST))
    if not (-slack <= seen.lowest < dark and light < seen.highest <= full + slack):
        before = " before they were normalised" if work.normalised else ""
        yield f"values range from {seen.lowest:.4g} to {seen.highest:.4g} instead of 0 to {full}{before}"


def _coverage(seen: Observation, work: Work, samples: int) -> Iterator[str]:
    for epoch in range(EPOCHS):
        here = seen.image_epoch == epoch
        labels, batches = seen.image_label[here], seen.image_batch[here]
        counts = Counter(labels.tolist())
        missing = samples - sum(label in counts for label in range(samples))
        again = {label: count - 1 for label, count in counts.items() if count > 1}
        # To give all ranks equally many, up to `ranks` - 1 samples may come once more.
        if not missing and sum(again.values()) < work.ranks and len(counts) == samples:
            continue
        if not len(labels):
            yield f"epoch {epoch + 1} delivers no images"
            return
        last = batches == batches.max()
        if not missing and sum(again.values()) == len(labels) - samples and set(again) <= set(labels[last].tolist()):
            yield f"the last batch is filled up with {len(labels) - samples} samples that came before"
        elif again and len(counts) <= work.batch_size:
            yield f"the same {len(counts)} samples come again and again"
        else:
            parts = [f"{missing} of {samples:,} samples never come"] if missing else []
            parts += [f"{len(again)} come more than once"] if again else []
            unknown = len(counts) - (samples - missing)
            parts += [f"{unknown} labels name no sample"] if unknown else []
            yield f"in epoch {epoch + 1}, " + ", ".join(parts)
        return


def _sizes(seen: Observation, work: Work) -> Iterator[str]:
    here = seen.image_epoch == 0
    sizes = np.bincount(seen.image_batch[here])
    partial = int((sizes != work.batch_size).sum())
    if sizes.max() > work.batch_size:
        yield f"a batch has {sizes.max()} images instead of {work.batch_size}"
    elif partial > max(1, work.workers) * work.ranks:  # a loader may leave one partial batch per worker
        yield f"{partial} of {len(sizes)} batches are smaller than the {work.batch_size} images requested"


def _labels(shown: Shown) -> Iterator[str]:
    if np.count_nonzero(~shown.right) <= max(_MISTAKEN, _MISTAKEN_SHARE * len(shown.right)):
        return
    offsets = Counter((shown.label - shown.found).tolist())
    offset, count = offsets.most_common(1)[0] if offsets else (0, 0)
    if offset and count > 0.9 * len(shown.found):
        yield f"labels are shifted: an image comes with the label of the sample {abs(offset)} {_side(offset)}"
    elif len(shown.found) and len(set(shown.found.tolist())) < 0.5 * len(shown.found):
        yield f"{100 * shown.wrong_share:.0f} % of the images are not what their labels say: the same images come again"
    else:
        yield f"{100 * shown.wrong_share:.0f} % of the images are not what their labels say"


def _side(offset: int) -> str:
    return "after it" if offset > 0 else "before it"
