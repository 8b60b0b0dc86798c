"""The picture of the doctor's answer: the speed of each way to load the images, against the demand and the limit."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib import rc_context

from loaderbench.findings.findings import shown
from loaderbench.report.plots.bars import Bar, Label, Row, bars
from loaderbench.report.plots.style import ALARM, COLOURS, GREY, STYLE, Look, add_title


class Speed(NamedTuple):
    """One way to load the images. Speeds are in images/s."""

    title: str
    images_per_s: float
    limit: float | None
    note: str
    present: bool


def draw(speeds: Sequence[Speed], demand: float | None, title: str, caption: str, file: Path) -> None:
    """Write the picture. `demand`: images/s that the training takes, a vertical line."""
    rows = [
        Row(
            speed.title,
            [
                Bar(
                    look=Look(GREY if speed.present else COLOURS[0]),
                    parts=[(speed.images_per_s, 1.0)],
                    outline=max(speed.limit, speed.images_per_s) if speed.limit else None,
                )
            ],
            Label(shown(speed.images_per_s), speed.note),
        )
        for speed in speeds
    ]
    line = f"\nred line: the {shown(demand)} images/s that training takes" if demand else ""
    with rc_context(STYLE):
        figure = bars(rows, f"images/s on the whole data set; outline: limit of the slowest required step{line}")
        if demand:
            [ax] = figure.axes
            ax.axvline(demand, color=ALARM, linewidth=1.5)
            ax.set_xlim(right=max(ax.get_xlim()[1], 1.1 * demand))
        add_title(figure, title, caption)
        figure.savefig(file)
