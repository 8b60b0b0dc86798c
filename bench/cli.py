"""The command line: one verb per step."""
# long, because each option is declared once, in the one file where a reader looks for it

import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from loaderbench.campaign import campaign as config
from loaderbench.campaign import registry, selection
from loaderbench.campaign.campaign import Campaign, CampaignError
from loaderbench.machine.disk import obstacle
from loaderbench.machine.errors import FixableError
from loaderbench.machine.files import BusyError, expanded
from loaderbench.machine.machine_lock import machine_lock
from loaderbench.machine.process import SAFE_PATH
from loaderbench.machine.reasons import reason
from loaderbench.machine.scratch import scratch
from loaderbench.machine.text import one_line, printable_lines, quoted

_CANNOT_RUN = 3
"""Exit status of `certify`; typer itself exits with 2 if an option is wrong."""
app = typer.Typer(
    help="Find the image data loader that this machine should train with.", no_args_is_help=True, add_completion=False
)


def path(given: str) -> Path:
    """Return a path of the command line with `~` expanded; the parser of each parameter that is a path."""
    return Path(expanded(given))


def name_or_path(given: str) -> str:
    """Return a name or a URL as given, and a path with `~` expanded."""
    return expanded(given)


StrictOption = Annotated[bool, typer.Option("--strict", help="Fail if any image cannot be read.")]
ResultsOption = Annotated[
    Path, typer.Option("--results", parser=path, help="Folder for the campaigns' rows and raw times.")
]
ReportsOption = Annotated[Path, typer.Option("--reports", parser=path, help="Folder for the reports.")]
ArtifactsOption = Annotated[
    str | None,
    typer.Option("--artifacts", help="Use formats published at s3://bucket/prefix instead of writing them."),
]
_IMAGES = (
    "Images: an ImageFolder tree, ImageNet's or CIFAR's archives, WebDataset shards or Parquet files; a path, "
    "s3://bucket/prefix, s3://bucket/key, or module:dataset. Only read."
)
DataOption = Annotated[
    str | None,
    typer.Option("--data", parser=name_or_path, help=f"{_IMAGES} Default: a synthetic set like ImageNet."),
]
CacheOption = Annotated[
    Path,
    typer.Option("--cache", parser=path, envvar="LOADERBENCH_CACHE", help="Folder for prepared data, which is reused."),
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="Which files to read if they are named by split: train, val or test. "
        "Default: train, or the only split that is there.",
    ),
]
SamplesOption = Annotated[int | None, typer.Option("--samples", min=1, help="Draw at most this many images.")]
BatchSizeOption = Annotated[int | None, typer.Option("--batch-size", min=1, help="Images per batch.")]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, help="Decoding threads or processes of each rank and job.")
]
FolderArgument = Annotated[Path, typer.Argument(parser=path, help="A campaign's folder, for example results/quick.")]


@dataclass(frozen=True)
class Chosen:
    """What the shared options say: the campaign with its overrides and selection, the images, and the cache."""

    campaign: Campaign
    campaign_file: str
    """As the command line names it."""
    data: str | None
    cache: Path


def choose(  # noqa: PLR0913 - each is an option; # long, because each has its help
    *,
    campaign: Annotated[
        str, typer.Argument(parser=name_or_path, help="Name of a shipped campaign, or path of a .toml file.")
    ] = "quick",
    data: DataOption = None,
    cache: CacheOption = Path("data"),
    split: SplitOption = None,
    samples: SamplesOption = None,
    batch_size: BatchSizeOption = None,
    workers: WorkersOption = None,
    blocks: Annotated[
        int | None, typer.Option("--blocks", min=1, help="Number of blocks. A block runs every contestant once.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            help="Leave out all contestants but these: a contestant, loader or format by name, * for any characters. "
            "Can be repeated.",
        ),
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option("--skip", help="Leave out these contestants, in the same way.")
    ] = None,
) -> Chosen:
    """Return what the options choose. Raises CampaignError."""
    given: dict[str, dict[str, Any]] = {
        "data": {"split": split, "samples": samples},
        "work": {"batch_size": batch_size, "workers": workers},
        "timing": {"blocks": blocks},
    }
    chosen = config.load(campaign, _given(given))
    return Chosen(selection.select(chosen, only or (), skip or ()), campaign, data, cache)


def _given(tables: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the keys by table that have a value, without empty tables."""
    overrides = {table: {k: v for k, v in values.items() if v is not None} for table, values in tables.items()}
    return {table: values for table, values in overrides.items() if values}


def on_campaign(command: Callable[..., None]) -> Callable[..., None]:
    """Register a command that takes a `Chosen`, and give it the options of `choose` beside its own.

    It has the machine for itself: preparing takes all cores and the disk, and would change what others measure.
    """
    shared = inspect.signature(choose, eval_str=True).parameters
    own = [
        parameter
        for name, parameter in inspect.signature(command, eval_str=True).parameters.items()
        if name != "chosen"
    ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        with scratch(given["cache"]):  # for adapters of other packages, which are imported in child processes
            chosen = choose(**{name: given.pop(name) for name in shared})
            with machine_lock():
                command(chosen, **given)

    parameters = [*own, *shared.values()]
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    )
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return app.command()(run)


@on_campaign
def bench(
    chosen: Chosen,
    *,
    results: ResultsOption = Path("results"),
    reports: ReportsOption = Path("reports"),
    artifacts: ArtifactsOption = None,
    strict: StrictOption = False,
) -> None:
    """Prepare the data, measure every contestant, and write the report after each block. Resume an unfinished run.

    With --only or --skip the reference and the controls stay. Without them, a later run measures what was left out.

    Exit 1 if the reference or most contestants have no speed.
    """
    from loaderbench.machine.progress import Display
    from loaderbench.run import preflight

    campaign, display = selection.with_yardsticks(chosen.campaign), Display()
    display.say(selection.headline(campaign))
    preflight.check(campaign, chosen.data, chosen.cache, results, reports, artifacts, display)

    from loaderbench import certify as certifying  # libraries look for a home folder as they are imported
    from loaderbench.formats import prepare as make_ready
    from loaderbench.report import report
    from loaderbench.run import outcome, runner

    try:
        prepared = make_ready(campaign, chosen.data, chosen.cache, display, strict=strict, artifacts=artifacts)
        if prepared.rejected:
            listed = results / campaign.name / "unreadable.csv"
            display.say(f"{len(prepared.rejected)} unreadable images are skipped in every format; see {listed}")
        folder = runner.run(
            campaign,
            prepared,
            results,
            display,
            certify=lambda tuned: certifying.certify(campaign, prepared, chosen.cache, display, tuned),
            after_block=lambda folder: display.say(f"report so far: {report.write(folder, reports / folder.name)}"),
            artifacts=artifacts,
            campaign_file=chosen.campaign_file,
        )
    except KeyboardInterrupt:
        display.say("stopped; run the same command to resume")
        raise typer.Exit(128 + signal.SIGINT) from None
    display.say(f"measured: {folder / 'trials.csv'}")
    display.say(f"report: {reports / folder.name / report.REPORT}")
    if why := outcome.failure(campaign, folder):
        _fail(why)


@on_campaign
def prepare(chosen: Chosen, *, artifacts: ArtifactsOption = None, strict: StrictOption = False) -> None:
    """Prepare the images and every format of a campaign, without measuring any loader.

    Exit 1 if a format failed, 3 if the only trouble is that the library of one is not installed.
    """
    from loaderbench.formats import prepare as make_ready
    from loaderbench.machine.progress import Display
    from loaderbench.run import preflight

    display = Display()
    preflight.check_cache(chosen.campaign, chosen.cache)
    prepared = make_ready(chosen.campaign, chosen.data, chosen.cache, display, strict=strict, artifacts=artifacts)
    for record in prepared.records:
        if record.format in prepared.artifacts:
            folder = Path(prepared.artifacts[record.format].path).parent
            display.say(f"{record.title}: {record.bytes_per_image:,.0f} bytes per image, in {folder}")
        else:
            display.say(f"{record.title}: {record.status}: {record.reason}")
    for rejected in prepared.rejected:
        display.say(f"skipped: {rejected}")
    if states := {record.status for record in prepared.records} - {"ok"}:
        raise typer.Exit(_CANNOT_RUN if states == {"unavailable"} else 1)


@on_campaign
def estimate(
    chosen: Chosen,
    *,
    usd_per_hour: Annotated[float | None, typer.Option("--usd-per-hour", min=0, help="Price of the machine.")] = None,
) -> None:
    """Measure on samples how much time, disk and money it takes to prepare the images in every format."""
    from loaderbench.formats import estimate as estimate_formats
    from loaderbench.machine.progress import Display
    from loaderbench.run import preflight

    preflight.check_cache(chosen.campaign, chosen.cache)
    for line in estimate_formats(chosen.campaign, chosen.data, chosen.cache, Display()).lines(usd_per_hour):
        _echo(line)


@on_campaign
def publish(
    chosen: Chosen,
    *,
    to: Annotated[str, typer.Argument(help="Where to, as s3://bucket/prefix.")],
    strict: StrictOption = False,
) -> None:
    """Upload the formats of a campaign, except links to images, to a bucket where `--artifacts` finds them."""
    from loaderbench.formats import prepare as make_ready
    from loaderbench.formats import publish as upload
    from loaderbench.machine.progress import Display
    from loaderbench.run import preflight

    display = Display()
    preflight.check_cache(chosen.campaign, chosen.cache)
    upload(make_ready(chosen.campaign, chosen.data, chosen.cache, display, strict=strict), to, display)


@on_campaign
def certify(chosen: Chosen, *, strict: StrictOption = False) -> None:
    """Check each contestant's output against the requested work.

    Exit 1 if one does different work or cannot be checked, 3 if the only trouble is that one cannot run here, for
    example because its library is not installed.
    """
    from loaderbench import certify as certifying
    from loaderbench.formats import prepare as make_ready
    from loaderbench.machine.progress import Display
    from loaderbench.run import preflight

    display = Display()
    preflight.check_cache(chosen.campaign, chosen.cache)
    prepared = make_ready(chosen.campaign, chosen.data, chosen.cache, display, strict=strict)
    certificates = certifying.certify(chosen.campaign, prepared, chosen.cache, display)
    for contestant in chosen.campaign.competing:
        display.say(f"{contestant.title}: {certificates[contestant.name]}")
    states = {certificate.state for certificate in certificates.values()} - {"as requested"}
    if states:
        raise typer.Exit(_CANNOT_RUN if states == {"unavailable"} else 1)


@app.command()
def doctor(  # noqa: PLR0913 - each is an option; # long, because each has its help
    target: Annotated[
        str | None,
        typer.Argument(
            help="module:function; the function returns an iterable of batches, such as a torch DataLoader, or a "
            "Lightning DataModule. Or the command that trains, in quotes, such as 'python main.py /data'."
        ),
    ] = None,
    *,
    step_ms: Annotated[
        float | None, typer.Option("--step-ms", min=0, help="Time of a training step, for which a batch is needed.")
    ] = None,
    step: Annotated[
        str | None, typer.Option("--step", help="module:function that does a training step on a batch. It is timed.")
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.5, help="Length of each experiment's window.")] = 4.0,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", parser=path, help="File for the answer with all experiments.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", parser=name_or_path, help=_IMAGES)] = None,
    demand: Annotated[
        float | None, typer.Option("--demand", min=1, help="With --data: images/s that the training takes.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="With --data: a model of torchvision, like resnet50. What its training takes here is measured.",
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory", help="With --data: memory that the training may use, like 16GiB. Default: the machine's."
        ),
    ] = None,
    loader: Annotated[
        str | None,
        typer.Option(
            "--loader",
            help="With --data: what training uses today, a contestant of campaign doctor. Default: ImageFolder with "
            "PIL on the original files.",
        ),
    ] = None,
    split: SplitOption = None,
    samples: SamplesOption = None,
    batch_size: BatchSizeOption = None,
    workers: WorkersOption = None,
    cache: CacheOption = Path("data"),
    results: ResultsOption = Path("results"),
    reports: ReportsOption = Path("reports"),
) -> None:
    """Find what holds training back, and measure what would help: on your images, or in a loader of your own.

    Name either images, with --data, or a loader. Of images, a sample is measured in each way to load it. A loader runs
    in child processes of this Python, about ten times, each time with one thing changed. Your images, code and
    environment stay as they are.
    """
    if (target is None) == (data is None):
        _fail(
            "name either images with --data, or a loader of your own as module:function or by the command that trains, "
            "in quotes"
        )
    if target is not None:
        _only("with --data", {"--demand": demand, "--model": model, "--memory": memory, "--loader": loader})
        _examine(target, step_ms, step, seconds, markdown)
        return

    _only("with a loader of your own", {"--step-ms": step_ms, "--step": step, "--markdown": markdown})
    from loaderbench.doctor import on_data

    tables: dict[str, dict[str, Any]] = {
        "data": {"split": split, "samples": samples},
        "work": {"batch_size": batch_size, "workers": workers},
    }
    try:
        diagnosis = on_data.examine_data(
            data,
            loader=loader,
            demand=demand,
            model=model,
            memory_bytes=on_data.size_bytes(memory) if memory else None,
            overrides=_given(tables),
            cache=cache,
            results=results,
            reports=reports,
        )
    except KeyboardInterrupt:
        _echo("stopped; run the same command to resume")
        raise typer.Exit(128 + signal.SIGINT) from None
    if diagnosis.present is None:
        raise typer.Exit(1)


def _only(when: str, options: dict[str, object]) -> None:
    """Refuse options that were given, but mean something only in another case."""
    if given := [name for name, value in options.items() if value is not None]:
        _fail(f"{' and '.join(given)}: only {when}")


def _examine(target: str, step_ms: float | None, step: str | None, seconds: float, markdown: Path | None) -> None:
    """Examine a loader of the user's own, and print the answer."""
    if markdown and (why := obstacle(markdown.parent)):
        _fail(f"--markdown: {why}")
    from loaderbench import doctor as examining
    from loaderbench.doctor import answer

    with machine_lock():
        step_s = examining.step_time(target, step) if step else step_ms and step_ms / 1000
        diagnosis = examining.examine(target, seconds=seconds, step_s=step_s, say=_echo)
    page = answer.text(diagnosis, target)
    _echo(f"\n{page}")
    if markdown:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        markdown.write_text(page, encoding="utf-8")


@app.command()
def report(
    folder: FolderArgument,
    reports: ReportsOption = Path("reports"),
) -> None:
    """Write the report of a campaign from its folder alone."""
    from loaderbench.report import report as writing

    _need_campaign(folder)
    if why := obstacle(reports):
        _fail(f"{why}; use --reports DIR for another folder")
    with _reading(folder):
        _echo(writing.write(folder, reports / folder.resolve().name))


@app.command()
def check(folder: FolderArgument) -> None:
    """Judge a campaign and each of its rows valid, valid with caveats or invalid; exit 1 if any is invalid."""
    from loaderbench.findings import check as checking

    _need_campaign(folder)
    with _reading(folder):
        judgements = checking.check(folder)
    for judgement in judgements:
        _echo(one_line(str(judgement)))
    if any(judgement.state == "invalid" for judgement in judgements):
        raise typer.Exit(1)


@app.command()
def compare(
    earlier: Annotated[Path, typer.Argument(parser=path, help="File that `make perf` saved before a change.")],
    later: Annotated[Path, typer.Argument(parser=path, help="File that it saved after the change.")],
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="How much slower a contestant may become, 0 to 1.")
    ] = 0.1,
) -> None:
    """Fail if a contestant became slower, by its ratio to the reference of the same run, or is no longer there."""
    from loaderbench.findings import regression

    try:
        changes = regression.compare(earlier, later, tolerance)
    except ValueError as error:
        _fail(str(error))
    for change in changes:
        _echo(change)
    if any(change.failed for change in changes):
        raise typer.Exit(1)


@app.command()
def classes(
    folder: Annotated[
        Path, typer.Argument(parser=path, help="Class folders; with --undo, the class-index folders made from them.")
    ],
    out: Annotated[Path | None, typer.Argument(parser=path, help="Folder for the class-index folders.")] = None,
    *,
    move: Annotated[bool, typer.Option("--move", help="Rename the folders instead of linking to them.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Restore the class folders.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Move folders back without asking.")] = False,
) -> None:
    """Make class-index folders from class folders: 000000 for the first of the sorted names, and so on."""
    from loaderbench.images import classes as numbering

    if undo:
        if moved := numbering.moves_back(folder):
            _echo(f"moving {moved}")
            yes or typer.confirm("Move them?", abort=True)
        _echo(f"removed {numbering.undo(folder)} class-index folders of {folder}")
    elif out is None:
        _fail(f"name a folder for the class-index folders: loaderbench classes {quoted(folder)} OUT")
    else:
        _echo(f"made {numbering.number(folder, out, move=move)} class-index folders in {out}")


@app.command()
def adapters() -> None:
    """List every loader and writer, whether it can run here, and if not, the command that installs it."""
    for kind in ("loader", "writer"):
        for name, adapter in registry.adapters(kind).items():
            reason = adapter.why_unavailable()
            state = f"unavailable, {reason}" if reason else f"available ({adapter.versions() or 'needs no library'})"
            _echo(f"{kind:<7}{name:<13} {state}")


@app.command()
def campaigns() -> None:
    """List the shipped campaigns and the question that each of them answers."""
    for path in sorted(config.CAMPAIGNS.glob("*.toml")):
        _echo(f"{path.stem:<14}{config.load(path.stem).question}")


def _need_campaign(folder: Path) -> None:
    if not (folder / "env.json").exists():
        _fail(f"{folder} holds no campaign (no env.json); measure one with: loaderbench bench")


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Print the reason and exit if a campaign's folder is not as this version writes it: it may be a stranger's."""
    try:
        yield
    except ValueError as error:
        _fail(str(error))
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as error:
        _fail(f"{folder} holds what no loaderbench has written: {reason(error)}; restore it, or measure again")


def _echo(text: object, *, err: bool = False) -> None:
    """Print a text of one or more lines; control characters in it are shown, and do nothing to the terminal."""
    typer.echo(printable_lines(str(text)), err=err)


def _fail(message: str) -> NoReturn:
    _echo(message, err=True)
    raise typer.Exit(1)


def main() -> None:
    """Run the command line. Print errors that the user can fix in plain words, without a traceback."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    os.environ.update(SAFE_PATH)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # names of files may be any bytes
    try:
        app()
    except (CampaignError, FixableError, BusyError) as error:
        _echo(f"loaderbench: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
