"""The command line: one verb per step."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from loaderbench.campaign import campaign as config
from loaderbench.campaign import registry
from loaderbench.campaign.campaign import Campaign, CampaignError
from loaderbench.machine.errors import FixableError
from loaderbench.machine.files import BusyError

app = typer.Typer(
    help="Which image data loader should this machine train with?", no_args_is_help=True, add_completion=False
)

CampaignName = Annotated[str, typer.Argument(help="A shipped campaign's name, or the path of a .toml file.")]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="An ImageFolder tree, ImageNet's or CIFAR's archives, WebDataset shards or Parquet files, or "
        "s3://bucket/prefix or s3://bucket/key with any of them, only read. Default: a synthetic set like ImageNet.",
    ),
]
ArtifactsOption = Annotated[
    str | None,
    typer.Option("--artifacts", help="Where published formats are found, as s3://bucket/prefix, instead of written."),
]
CacheOption = Annotated[
    Path, typer.Option("--cache", envvar="LOADERBENCH_CACHE", help="Where prepared data is kept and found again.")
]
ResultsOption = Annotated[Path, typer.Option("--results", help="Where campaign folders are written.")]
ReportsOption = Annotated[Path, typer.Option("--reports", help="Where reports are written.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Refuse if any image cannot be read.")]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="Which files, where they are named by split: train (or else the only one there), val or test.",
    ),
]
SamplesOption = Annotated[int | None, typer.Option("--samples", help="Draw at most this many images.")]
BatchSizeOption = Annotated[int | None, typer.Option("--batch-size", help="Images per batch.")]
WorkersOption = Annotated[int | None, typer.Option("--workers", help="Decoding threads or processes.")]
BlocksOption = Annotated[int | None, typer.Option("--blocks", help="How often each contestant runs.")]


@app.command()
def bench(  # noqa: PLR0913 - each is an option of the command
    campaign: CampaignName = "quick",
    data: DataOption = None,
    cache: CacheOption = Path("data"),
    results: ResultsOption = Path("results"),
    reports: ReportsOption = Path("reports"),
    *,
    artifacts: ArtifactsOption = None,
    strict: StrictOption = False,
    split: SplitOption = None,
    samples: SamplesOption = None,
    batch_size: BatchSizeOption = None,
    workers: WorkersOption = None,
    blocks: BlocksOption = None,
) -> None:
    """Prepare the data, measure every contestant, and write the report. Goes on where an earlier run stopped."""
    from loaderbench.certify import certify as certifying
    from loaderbench.formats.prepare import prepare as make_ready
    from loaderbench.machine.progress import Display
    from loaderbench.report import report
    from loaderbench.run import bucket_under_test as remote
    from loaderbench.run import runner

    chosen = _campaign(campaign, split, samples, batch_size, workers, blocks)
    display = Display()
    display.say(f"{chosen.name}: {chosen.question}")
    remote.check(chosen, artifacts)
    try:
        prepared = make_ready(chosen, data, cache, display, strict=strict, artifacts=artifacts)
        for note in prepared.data["notes"]:
            display.say(note)
        if prepared.rejected:
            display.say(
                f"{len(prepared.rejected)} unreadable images are left out of every format; the report lists them"
            )
        folder = runner.run(
            chosen,
            prepared,
            results,
            display,
            certify=lambda: certifying.certify(chosen, prepared, cache, display),
            after_block=lambda folder: display.say(f"report so far: {report.write(folder, reports / folder.name)}"),
            artifacts=artifacts,
        )
    except KeyboardInterrupt:
        display.say("stopped; the same command goes on from here")
        raise typer.Exit(128 + signal.SIGINT) from None
    display.say(f"measured: {folder / 'trials.csv'}")
    display.say(f"report: {reports / folder.name / report.REPORT}")


@app.command()
def prepare(  # noqa: PLR0913 - each is an option of the command
    campaign: CampaignName = "quick",
    data: DataOption = None,
    cache: CacheOption = Path("data"),
    *,
    artifacts: ArtifactsOption = None,
    strict: StrictOption = False,
    split: SplitOption = None,
    samples: SamplesOption = None,
    batch_size: BatchSizeOption = None,
    workers: WorkersOption = None,
) -> None:
    """Make the images and every format of a campaign, without measuring any loader."""
    from loaderbench.formats.prepare import prepare as make_ready
    from loaderbench.machine.progress import Display

    display = Display()
    chosen = _campaign(campaign, split, samples, batch_size, workers)
    prepared = make_ready(chosen, data, cache, display, strict=strict, artifacts=artifacts)
    for record in prepared.records:
        display.say(
            f"{record.title}: {record.bytes_per_image:,.0f} bytes per image, "
            f"in {Path(prepared.artifacts[record.format].path).parent}"
            if record.bytes_per_image
            else record.reason
        )
    for rejected in prepared.rejected:
        display.say(f"left out: {rejected}")


@app.command()
def estimate(  # noqa: PLR0913 - each is an option of the command
    campaign: CampaignName = "quick",
    data: DataOption = None,
    cache: CacheOption = Path("data"),
    *,
    split: SplitOption = None,
    samples: SamplesOption = None,
    workers: WorkersOption = None,
    usd_per_hour: Annotated[float | None, typer.Option("--usd-per-hour", help="What the machine costs.")] = None,
) -> None:
    """Measure on samples what preparing the images in every format will take: time, disk and money."""
    from loaderbench.formats.prepare import foresee
    from loaderbench.machine.progress import Display

    foreseen = foresee(_campaign(campaign, split, samples, None, workers), data, cache, Display())
    for line in foreseen.lines(usd_per_hour):
        typer.echo(line)


@app.command()
def publish(  # noqa: PLR0913 - each is an option of the command
    to: Annotated[str, typer.Argument(help="Where to, as s3://bucket/prefix.")],
    campaign: CampaignName = "quick",
    data: DataOption = None,
    cache: CacheOption = Path("data"),
    *,
    strict: StrictOption = False,
    split: SplitOption = None,
    samples: SamplesOption = None,
    batch_size: BatchSizeOption = None,
    workers: WorkersOption = None,
) -> None:
    """Put every format of a campaign into a bucket, where `--artifacts` finds it for the same images anywhere."""
    from loaderbench.formats.prepare import prepare as make_ready
    from loaderbench.formats.prepare import publish as put
    from loaderbench.machine.progress import Display

    display = Display()
    prepared = make_ready(_campaign(campaign, split, samples, batch_size, workers), data, cache, display, strict=strict)
    put(prepared, to, display)


@app.command()
def certify(  # noqa: PLR0913 - each is an option of the command
    campaign: CampaignName = "quick",
    data: DataOption = None,
    cache: CacheOption = Path("data"),
    *,
    strict: StrictOption = False,
    split: SplitOption = None,
    samples: SamplesOption = None,
    batch_size: BatchSizeOption = None,
    workers: WorkersOption = None,
) -> None:
    """Tell what work each contestant of a campaign does, from what it delivers; fail if one does other work."""
    from loaderbench.certify import certify as certifying
    from loaderbench.formats.prepare import prepare as make_ready
    from loaderbench.machine.progress import Display

    display = Display()
    chosen = _campaign(campaign, split, samples, batch_size, workers)
    prepared = make_ready(chosen, data, cache, display, strict=strict)
    certificates = certifying.certify(chosen, prepared, cache, display)
    for contestant in chosen.competing:
        display.say(f"{contestant.title}: {certificates[contestant.name]}")
    if any(certificate.state != "as asked" for certificate in certificates.values()):
        raise typer.Exit(1)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A campaign's folder, for example results/quick.")],
    reports: ReportsOption = Path("reports"),
) -> None:
    """Write the report of a campaign from its folder alone."""
    from loaderbench.report import report as writing

    _need_campaign(folder)
    try:
        typer.echo(writing.write(folder, reports / folder.resolve().name))
    except ValueError as error:  # written by another version
        _fail(str(error))


@app.command()
def check(folder: Annotated[Path, typer.Argument(help="A campaign's folder, for example results/quick.")]) -> None:
    """Judge every row of a campaign CLOSED, OPEN or INVALID; fail if one, or the campaign, is INVALID."""
    from loaderbench.findings import check as checking

    _need_campaign(folder)
    try:
        judgements = checking.check(folder)
    except ValueError as error:  # written by another version
        _fail(str(error))
    for judgement in judgements:
        typer.echo(judgement)
    if any(judgement.state == "INVALID" for judgement in judgements):
        raise typer.Exit(1)


@app.command()
def compare(
    earlier: Annotated[Path, typer.Argument(help="A file that `make perf` saved before a change.")],
    later: Annotated[Path, typer.Argument(help="One that it saved after it.")],
    tolerance: Annotated[float, typer.Option(min=0, max=1, help="How much slower a contestant may become.")] = 0.1,
) -> None:
    """Fail if a contestant has become slower, by its ratio to the reference measured in the same run."""
    from loaderbench.findings import regression

    try:
        changes = regression.compare(earlier, later, tolerance)
    except (OSError, ValueError) as error:
        _fail(str(error))
    for change in changes:
        typer.echo(change)
    if any(change.slower for change in changes):
        raise typer.Exit(1)


@app.command()
def classes(
    folder: Annotated[Path, typer.Argument(help="Class folders; with --undo, the class-index folders made of them.")],
    out: Annotated[Path | None, typer.Argument(help="Where the class-index folders are made.")] = None,
    *,
    move: Annotated[bool, typer.Option("--move", help="Rename the folders instead of linking to them.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Put everything back as it was.")] = False,
) -> None:
    """Make class-index folders of class folders: 000000 for the first of the sorted names, and so on."""
    from loaderbench.images import classes as numbering

    if undo:
        typer.echo(f"{numbering.undo(folder)} class-index folders of {folder} are undone")
    elif out is None:
        _fail(f"name a folder for the class-index folders: loaderbench classes '{folder}' OUT")
    else:
        typer.echo(f"{numbering.number(folder, out, move=move)} class-index folders are in {out}")


@app.command()
def adapters() -> None:
    """List every loader and writer, whether it can run here, and if not, what installs it."""
    for kind in ("loader", "writer"):
        for adapter in registry.adapters(kind).values():
            state = adapter.why_unavailable() or f"available ({adapter.versions() or 'needs no library'})"
            typer.echo(f"{kind:<7}{adapter.name:<14}{f'unavailable, {state}' if adapter.missing() else state}")


@app.command()
def campaigns() -> None:
    """List the shipped campaigns and the question that each answers."""
    for path in sorted(config.CAMPAIGNS.glob("*.toml")):
        typer.echo(f"{path.stem:<14}{config.load(path.stem).question}")


def _campaign(  # noqa: PLR0913, PLR0917
    name: str,
    split: str | None,
    samples: int | None,
    batch_size: int | None,
    workers: int | None,
    blocks: int | None = None,
) -> Campaign:
    """Return the campaign with what the command line changes of it."""
    given: dict[str, dict[str, Any]] = {
        "data": {"split": split, "samples": samples},
        "work": {"batch_size": batch_size, "workers": workers},
        "timing": {"blocks": blocks},
    }
    overrides = {table: {k: v for k, v in values.items() if v is not None} for table, values in given.items()}
    return config.load(name, {table: values for table, values in overrides.items() if values})


def _need_campaign(folder: Path) -> None:
    if not (folder / "env.json").exists():
        _fail(f"{folder} holds no campaign (no env.json); measure one with: loaderbench bench")


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)


def main() -> None:
    """Run the command line; what a person can mend is said in plain words, without a traceback."""
    from loaderbench.formats.prepare import PrepareError

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        app()
    except (CampaignError, PrepareError, FixableError, BusyError) as error:
        typer.echo(f"loaderbench: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
