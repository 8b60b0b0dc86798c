"""Plots show what was measured, and warn in words."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from matplotlib.text import Annotation, Text

from loaderbench.findings.analysis import analyse
from loaderbench.findings.comparison import RANKING_BLOCKS
from loaderbench.findings.crossover import DeliveryCurve
from loaderbench.findings.findings import Analysis
from loaderbench.report import plots
from tests import fabricate
from tests.fabricate import CAST, Actor, load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from loaderbench.records.record import Record

FAST, REFERENCE = CAST[0], CAST[8]
BLOCKS = range(1, RANKING_BLOCKS + 1)
UNMEASURED = {
    "bound.png": {"pct_of_bound": None},
    "cold.png": {"epoch1_s": None},
    "waits.png": {"wait_p99_ms": None},
    "memory.png": {"anon_memory_mib": None},
}
"""Which column a plot cannot do without."""


def analysis_of(rows: Sequence[Record], cast: Sequence[Actor] = (FAST, REFERENCE), blocks: int = 3) -> Analysis:
    environment = fabricate.environment(cast, blocks, REFERENCE.name, [actor.name for actor in cast])
    return analyse(rows, environment["campaign"])


def runs(actor: Actor, blocks: Sequence[int] = (1, 2, 3), **changes: Any) -> list[Record]:
    return [load(actor, block, **changes) for block in blocks]


def drawn(analysis: Analysis, file: str = "") -> dict[str, Figure]:
    """Draw all plots, or only one of them, which takes a tenth of the time."""
    with patch.object(plots, "PLOTS", [plot for plot in plots.PLOTS if file in {"", plot.file}]):
        return {plot.file: figure for plot, figure in plots.figures(analysis, "a machine, 3 blocks").items()}


def said(file: str, *rows: Record) -> str:
    """Return all words of a plot of FAST and the reference, on one line."""
    blocks = max(row.block or 1 for row in rows)
    figure = drawn(analysis_of(rows, blocks=blocks), file)[file]
    return " ".join(" ".join(text.get_text() for text in figure.findobj(Text)).split())


@pytest.mark.parametrize("file", UNMEASURED)
def test_a_plot_is_drawn_only_if_its_column_was_measured(file: str) -> None:
    whole = [*runs(FAST), *runs(FAST, cache="cold")]
    bare = [replace(row, **UNMEASURED[file]) for row in whole]
    assert file in drawn(analysis_of(whole), file)
    assert file not in drawn(analysis_of(bare), file)


def test_warm_trials_alone_draw_no_cold_plot() -> None:
    assert "cold.png" not in drawn(analysis_of(runs(FAST)), "cold.png")


def test_an_empty_campaign_draws_no_plot() -> None:
    assert drawn(analysis_of([])) == {}


def test_limit_plot_names_the_limiting_step_and_the_share_of_it() -> None:
    assert "78% of decode + crop" in said("bound.png", *runs(FAST, pct_of_bound=78.2, bound_by="decode + crop"))


@pytest.mark.parametrize("file", ["headline.png", "bound.png"])
@pytest.mark.parametrize(("pct", "unequal"), [(101.9, False), (102.1, True)])
def test_a_contestant_faster_than_the_machine_limit_is_flagged(file: str, pct: float, unequal: bool) -> None:  # noqa: FBT001
    words = said(file, *runs(FAST, pct_of_bound=pct), *runs(REFERENCE))
    assert ("faster than the machine limit" in words) is unequal
    assert ("different work, or a wrong limit" in words) is unequal


def test_a_contestant_beyond_the_limit_shows_no_ratio() -> None:
    rows = [*runs(FAST, images_per_s=4600.0), *runs(REFERENCE, images_per_s=2300.0)]
    assert "2.0×" in said("headline.png", *rows)  # noqa: RUF001 - times
    beyond = [replace(row, pct_of_bound=120.0) for row in rows]
    assert "2.0×" not in said("headline.png", *beyond)  # noqa: RUF001


@pytest.mark.parametrize(
    ("ratios", "note"),
    [
        ([1.01] * RANKING_BLOCKS, "1.01× (tie)"),  # noqa: RUF001
        ([0.9, 1.3] * (RANKING_BLOCKS // 2), "1.08× (unresolved)"),  # noqa: RUF001
        ([2.3] * RANKING_BLOCKS, "2.3×"),  # noqa: RUF001
        ([12.4] * RANKING_BLOCKS, "12×"),  # noqa: RUF001
        ([123.4] * RANKING_BLOCKS, "123×"),  # noqa: RUF001
    ],
)
def test_headline_plot_says_how_certain_a_ratio_is(ratios: list[float], note: str) -> None:
    fast = [load(FAST, block, images_per_s=100 * ratio) for block, ratio in zip(BLOCKS, ratios, strict=True)]
    words = said("headline.png", *fast, *runs(REFERENCE, BLOCKS, images_per_s=100.0))
    assert note in words
    assert ("(" in note) or not ("tie" in words or "unresolved" in words)


def test_a_descriptive_headline_plot_claims_no_verdict() -> None:
    words = said("headline.png", *runs(FAST, images_per_s=1010.0), *runs(REFERENCE, images_per_s=1000.0))
    assert "1.01×" in words  # noqa: RUF001
    assert "tie" not in words
    assert "unresolved" not in words


def test_headline_plot_claims_no_verdict_against_an_unranked_reference() -> None:
    rows = [*runs(FAST, BLOCKS, images_per_s=1300.0), *runs(REFERENCE, BLOCKS, images_per_s=1000.0)]
    environment = fabricate.environment((FAST, REFERENCE), len(BLOCKS), REFERENCE.name)["campaign"]
    environment["contestants"][1]["apart"] = "stores less"
    figure = drawn(analyse(rows, environment), "headline.png")["headline.png"]
    words = " ".join(text.get_text() for text in figure.findobj(Text))
    assert "1.3×" in words  # noqa: RUF001
    assert "unresolved" not in words


def epochs(cold_s: float, **changes: Any) -> list[Record]:
    """Trials of FAST whose first epoch of 1,000 images takes 10 s warm."""
    return [
        *runs(FAST, epoch1_s=10.0, epoch1_images_per_s=100.0),
        *runs(FAST, cache="cold", epoch1_s=cold_s, epoch1_images_per_s=1000 / cold_s, **changes),
    ]


def test_cold_plot_shows_added_seconds_and_remaining_speed() -> None:
    assert "+2.5 s keeps 80% of its speed" in said("cold.png", *epochs(12.5))


def test_added_seconds_are_differences_within_blocks() -> None:
    """The medians, 12 and 20 s, differ by 8 s; the blocks by 2, 11 and 12 s."""
    rows = [load(FAST, block, epoch1_s=epoch_s) for block, epoch_s in enumerate((9.0, 12.0, 28.0), 1)]
    rows += [load(FAST, block, cache="cold", epoch1_s=epoch_s) for block, epoch_s in enumerate((20.0, 14.0, 40.0), 1)]
    assert "+11.0 s" in said("cold.png", *rows)


def test_training_plot_calls_no_faster_training_slower() -> None:
    rows = [fabricate.fed(FAST, 1, "train", stall_vs_warm_cached_pct=-2.0)]
    rows += [fabricate.fed(REFERENCE, 1, "train", stall_vs_warm_cached_pct=None, warm_cached_images_per_s=None)]
    environment = fabricate.environment((FAST, REFERENCE), 1, REFERENCE.name, feeding=[FAST.name, REFERENCE.name])
    figure = drawn(analyse(rows, environment["campaign"]), "training.png")["training.png"]
    words = " ".join(" ".join(text.get_text() for text in figure.findobj(Text)).split())
    assert "2.00% faster than on one cached batch" in words
    assert "slower" not in words


@pytest.mark.parametrize("state", ["cold", "guest-cold", "client-cold"])
def test_a_verified_cold_cache_is_not_flagged(state: str) -> None:
    assert "not verified" not in said("cold.png", *epochs(12.5, cache_state=state))


def test_an_unverified_cold_cache_is_flagged() -> None:
    rows = epochs(12.5, cache_state="guest-cold")
    rows[-1] = replace(rows[-1], cache_state="unproven")
    assert "not verified as cold: guest-cold (2), unproven (1)" in said("cold.png", *rows)


@pytest.mark.parametrize(
    ("state", "who"), [("guest-cold", "host of this virtual machine"), ("client-cold", "server of this file system")]
)
def test_cold_plot_says_who_may_have_kept_the_data(state: str, who: str) -> None:
    assert who in said("cold.png", *epochs(12.5, cache_state=state))
    assert who not in said("cold.png", *epochs(12.5, cache_state="cold"))


def test_cold_plot_lists_a_failed_contestant_with_the_reason() -> None:
    failed = [fabricate.failed(REFERENCE, block, cache="cold", reason="it broke") for block in (1, 2, 3)]
    words = said("cold.png", *epochs(12.5), *runs(REFERENCE), *failed)
    assert f"{REFERENCE.title}" in words
    assert "from disk: failed: it broke" in words


def test_published_plot_shows_published_and_measured_ratios() -> None:
    rows = [*runs(FAST, images_per_s=4600.0), *runs(REFERENCE, images_per_s=2300.0)]
    published = fabricate.publication((FAST, REFERENCE))["published"]["contestants"]
    fast, reference = (published[actor.name]["images_per_s"] for actor in (FAST, REFERENCE))
    ratio = math.prod(one / other for one, other in zip(fast, reference, strict=True)) ** 0.5
    assert f"{ratio:.2f}× 2.00× not measured" in said("published.png", *rows)  # noqa: RUF001


def test_waits_of_zero_are_drawn_on_the_logarithmic_axis() -> None:
    columns = ("wait_p50_ms", "wait_p95_ms", "wait_p99_ms", "wait_max_ms")
    assert "p50 0.01 ms p99 0.01 ms" in said("waits.png", *runs(FAST, **dict.fromkeys(columns, 0.0)))


def test_memory_plot_shows_total_and_anonymous_memory() -> None:
    rows = runs(FAST, memory_mib=1500.0, anon_memory_mib=600.0)
    assert "1,500 MiB 600 anonymous + shared" in said("memory.png", *rows)
    widths = [bar.get_width() for bar in drawn(analysis_of(rows), "memory.png")["memory.png"].axes[0].patches]
    assert widths == [600, 900]


def test_gpu_plot_of_a_half_busy_gpu_is_half_full() -> None:
    analysis = replace(analysis_of([*runs(FAST), *runs(REFERENCE)]), gpu_uses=fabricate.gpu_uses([FAST, REFERENCE]))
    figure = drawn(analysis, "gpu-time.png")["gpu-time.png"]
    words = " ".join(text.get_text() for text in figure.findobj(Text))
    assert "mean 50.0%" in words
    assert "in training" in words
    strip = figure.axes[0].collections[0].get_paths()[0].vertices
    assert strip[:, 1].max() - strip[:, 1].min() == pytest.approx(0.6 * 0.8)


def test_a_campaign_without_gpu_samples_draws_no_gpu_plot() -> None:
    assert "gpu-time.png" not in drawn(analysis_of(runs(FAST)), "gpu-time.png")


def test_contestants_of_equal_colour_have_distinguishable_lines() -> None:
    alike = [actor for actor in CAST if actor.format == "jpeg-files"]
    rows = [row for actor in alike for row in (*runs(actor), *(fabricate.fed(actor, n, "paced") for n in (1, 2, 3)))]
    environment = fabricate.environment(alike, 3, REFERENCE.name, feeding=[actor.name for actor in alike])
    figure = drawn(analyse(rows, environment["campaign"]), "demand.png")["demand.png"]
    looks = {(line.get_linestyle(), line.get_markerfacecolor()) for line in figure.axes[0].lines[: len(alike)]}
    assert len(looks) == len(alike) == 2


def gained(actor: Actor, ratio: float, rows: Sequence[Record] = ()) -> str:
    """Return all words of the plot of what tuning gains an actor."""
    found = [*fabricate.searched(actor), *rows]
    found += runs(actor, BLOCKS, images_per_s=1000.0)
    found += [fabricate.at_best(actor, block, images_per_s=1000 * ratio) for block in BLOCKS]
    environment = fabricate.environment([actor], len(BLOCKS), actor.name, (), [actor.name])
    figure = drawn(analyse(found, environment["campaign"]))["best.png"]
    return " ".join(" ".join(text.get_text() for text in figure.findobj(Text)).split())


def test_tuning_plot_shows_the_gain_and_the_settings() -> None:
    assert "1.24× os_cache = False, workers = 3" in gained(FAST, 1.24)  # noqa: RUF001 - times
    assert "1.01× os_cache = False, workers = 3 (tie)" in gained(FAST, 1.01)  # noqa: RUF001


def test_tuning_plot_says_that_the_own_settings_were_best() -> None:
    assert "1.01× its own settings were the best" in gained(CAST[4], 1.01)  # noqa: RUF001


def test_a_search_without_tuned_trials_draws_no_tuning_plot() -> None:
    environment = fabricate.environment([FAST], 1, FAST.name, (), [FAST.name])
    assert "best.png" not in drawn(analyse([*fabricate.searched(FAST), *runs(FAST, [1])], environment["campaign"]))


def test_delivery_curves_are_drawn_from_the_start_of_each_contestant() -> None:
    stream = fabricate.STREAM | {"streaming": [FAST.name], "bounded": [], "downloading": [REFERENCE.name]}
    environment = fabricate.environment((FAST, REFERENCE), 2, REFERENCE.name, stream=stream)
    rows = [fabricate.fetched(FAST, block, "stream") for block in (1, 2)]
    rows += [fabricate.fetched(REFERENCE, block, "download") for block in (1, 2)]
    began_s = {"1": 5.0, "2": 7.0}  # of which 6.0 is the median
    curves = {row.trial: DeliveryCurve.of(fabricate.course(row), began_s[row.trial[0]]) for row in rows}
    figure = drawn(analyse(rows, environment["campaign"], curves=curves), "streaming.png")["streaming.png"]
    lines = {str(line.get_label()): line for line in figure.axes[0].lines if len(line.get_xdata()) > 1}  # type: ignore[arg-type]
    fast = lines["FFCV raw, os_cache on, streamed"]
    assert fast.get_xydata()[1].tolist() == pytest.approx([6.0 + FAST.start_s[2], 0])  # type: ignore[index]
    assert fast.get_xydata()[-1, 1] == 4 * fabricate.SAMPLES  # type: ignore[index]
    assert lines["ImageFolder 256 px, PIL, downloaded first"].get_linestyle() != fast.get_linestyle()


LONG = [replace(a, name=f"{a.name}-{i}", title=f"{a.title} {i} with a long title") for i in (1, 2) for a in CAST][:13]


@pytest.mark.parametrize(
    "cast", [CAST[-2:], pytest.param(CAST, marks=pytest.mark.slow), LONG], ids=["two", "ten", "long"]
)
def test_plots_cut_off_no_text(cast: Sequence[Actor]) -> None:
    names = [actor.name for actor in cast]
    stream = fabricate.STREAM | {"streaming": names[:1], "bounded": names[1:2], "downloading": names}
    rows = fabricate.finished(cast, 3, names, names, names, stream)
    changes = {"cache_state": "unproven", "pct_of_bound": 101.0, "read_bytes_per_image": 4e5, "starved_pct": 20.0}
    rows = [replace(row, **changes) if row.kind == "load" else row for row in rows]
    rows += [replace(row, track="scaling", workers=4) for row in rows if row.trial in {f"1/{name}" for name in names}]
    environment = fabricate.environment(cast, 3, cast[0].name, names, names, feeding=names, stream=stream)
    environment["campaign"]["scaling"] = {"contestants": names, "workers": [4]}
    curves = {row.trial: DeliveryCurve.of(fabricate.course(row), 5.0) for row in rows if row.transport}
    analysis = analyse(rows, environment["campaign"], curves=curves)
    curves_of_training = [replace(curve, trains=True) for curve in analysis.scaling]
    scaling = (*analysis.scaling, *curves_of_training)
    figures = drawn(replace(analysis, gpu_uses=fabricate.gpu_uses(cast), scaling=scaling))
    assert len(figures) == len(plots.PLOTS)
    for file, figure in figures.items():
        figure.draw_without_rendering()
        axis_names = [axis.label for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]
        row_names = [name for ax in figure.axes for name in ax.get_yticklabels()]
        for text in (*figure.texts, *figure.findobj(Annotation), *axis_names, *row_names):
            box = text.get_window_extent()
            inside = figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y0 >= figure.bbox.y0
            assert inside or not text.get_text(), f"{file}: {text.get_text()}"
