"""A campaign file is read completely, or refused with the wrong key and value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from loaderbench.campaign import campaign as config
from loaderbench.campaign import plan
from loaderbench.campaign.campaign import CampaignError

VALID = """
name = "mine"
question = "Which?"
reference = "a"
[timing]
blocks = 1
warmup_s = 0
window_s = 1
window_batches = 1
limit_s = 9
[[formats]]
name = "files"
title = "Files"
writer = "imagefolder"
mode = "jpeg"
[[contestants]]
name = "a"
title = "A"
loader = "imagefolder"
format = "files"
options = { decode = "pil" }
"""
PUBLISHED = """
[published]
source = "?"
images = 9
contestants = {{ {} = {{ images_per_s = [1] }} }}
"""
BEST = """
[best.a]
title = "A"
settings = { decode = ["torchvision", "pil"], workers = ["cores-1", "cores", "cores+1", "cores*2", "cores/2", 9] }
"""


def load(folder: Path, text: str) -> config.Campaign:
    path = folder / "mine.toml"
    path.write_text(text)
    return config.load(str(path))


def test_a_valid_file_is_read(tmp_path: Path) -> None:
    campaign = load(tmp_path, VALID)
    assert campaign.contestants[0].options == {"decode": "pil"}
    assert campaign.format_of(campaign.contestants[0]).encoding.quality == 90


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("blocks = 1", "blocks = 0", "timing.blocks"),
        ("limit_s = 9", "limit_s = inf", "timing.limit_s: Input should be a finite number"),
        ("blocks = 1", "blocks = 1\nseed = -1", "timing.seed: Input should be greater than or equal to 0"),
        ("[timing]", "[work]\nworkers = 0\n[timing]", "work.workers"),
        ("[timing]", f"{BEST.replace('9]', '0]')}[timing]", "workers must be 1 or more, or like cores"),
        (
            "[timing]",
            PUBLISHED.format("a").replace("[1]", "[0]") + "[timing]",
            "published.contestants.a.images_per_s.0",
        ),
        ("blocks = 1", "blocks = 1\nspeed = 3", "timing.speed"),
        ('loader = "imagefolder"', 'loader = "dali"', "unknown loader dali; there are: ffcv"),
        ('writer = "imagefolder"', 'writer = "tar"', "unknown writer tar; there are: ffcv"),
        ('mode = "jpeg"', 'mode = "smart"', "writer imagefolder has no mode smart; there are: original, jpeg"),
        ('loader = "imagefolder"', 'loader = "ffcv"', "loader ffcv reads what ffcv writes"),
        ("decode =", "decoder =", "loader imagefolder has no option decoder; there are: decode"),
        ('decode = "pil"', 'decode = "gif"', "cannot take decode = 'gif': Input should be 'pil' or 'torchvision'"),
        ('decode = "pil"', "prefetch_factor = 0", "cannot take prefetch_factor = 0: Input should be greater than or"),
        ('decode = "pil"', "prefetch_factor = '2'", "take prefetch_factor = '2': Input should be a valid integer"),
        ('decode = "pil"', "pin_memory = 1", "contestant a: loader imagefolder cannot take pin_memory = 1: Input"),
        ('decode = "pil"', "decode = 2026-01-01", "a date is no option; use text, a number, true, false, a list or a"),
        ("[timing]", f"{BEST.replace('pil', 'gif')}[timing]", "cannot take decode = 'gif'"),
        ('format = "files"', 'format = "tars"', "contestant a: unknown format tars; there are: files"),
        ('reference = "a"', 'reference = "b"', "unknown reference b; there are: a"),
        ('reference = "a"', 'reference = "a"\ncold = ["b"]', "cold: unknown contestant b; there are: a"),
        ("[timing]", f"{BEST.replace('best.a', 'best.b')}[timing]", "best: unknown contestant b; there are: a"),
        ("[timing]", f"{BEST.replace('decode', 'decoder')}[timing]", "has no option decoder; there are: decode"),
        ("[timing]", f"{BEST.replace('cores*2', 'kernels')}[timing]", "or cores/2, and not kernels"),
        ("[timing]", f"{BEST.replace('title', 'name')}[timing]", "best.a.title"),
        ("[timing]", "tuning = { trials = 3 }\n[timing]", "tuning.trials"),
        ('reference = "a"', 'reference = "a"\ncold = ["a", "a"]', "cold contestant named more than once: a"),
        ('title = "A"', 'title = "A"\ncontrol = "twin"', "reference a is a control"),
        ('reference = "a"', 'reference = "a"\nextends = "mine.toml"', "extends must name a shipped campaign"),
        ('reference = "a"', 'reference = "a"\nextends = "slow"', "shipped are "),
        (
            "[timing]",
            '[[changes]]\nfrom = "a"\nto = "b"\nwhat = "?"\n[timing]',
            "changes: unknown contestant b; there are: a",
        ),
        (
            "[timing]",
            '[[changes]]\nfrom = "a"\nto = "a"\nwhat = "?"\n[timing]',
            "changes: those from a lead back to it",
        ),
        ("[timing]", PUBLISHED.format("b") + "[timing]", "published: unknown contestant b; there are: a"),
        ("[timing]", "[work]\ndtype = 'float64'\n[timing]", "work.dtype"),
        ("[timing]", "[work]\nnormalised = true\n[timing]", "normalised values do not fit into uint8"),
        (
            "[timing]",
            "[work]\nranks = 2\njobs = 2\n[timing]",
            "set ranks or jobs to 1",
        ),
        ("[timing]", 'cold = ["a"]\n[work]\njobs = 2\n[timing]', "cold trials need a single process: set cold = []"),
        ("name = ", "name : ", "is not TOML"),
    ],
)
def test_error_names_the_wrong_key_or_value(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(CampaignError) as error:
        load(tmp_path, VALID.replace(old, new, 1))
    assert said in str(error.value)


@pytest.mark.parametrize("speed", ["", "images_per_s = 0", "images_per_s = -1", 'images_per_s = "fast"'])
def test_a_loader_of_known_speed_needs_a_speed_above_0(tmp_path: Path, speed: str) -> None:
    control = OTHER.replace('"imagefolder"', '"pace"') + f'control = "known"\noptions = {{ {speed} }}'
    with pytest.raises(CampaignError, match="set the option images_per_s, its known speed, above 0"):
        load(tmp_path, VALID + control)


@pytest.mark.parametrize("consumer", ["train", "lightning", "paced"])
@pytest.mark.parametrize("control", ["known", "ceiling"])
def test_only_a_loader_of_known_speed_is_a_control_in_training(tmp_path: Path, consumer: str, control: str) -> None:
    added = OTHER.replace('"imagefolder"', '"pace"') + f'control = "{control}"\noptions = {{ images_per_s = 1000.0 }}\n'
    feeding = f'[consumers.{consumer}]\ncontestants = ["b"]\nwarmup_s = 0\nwindow_s = 1\nwindow_batches = 1\n'
    if (consumer, control) == ("train", "known"):
        assert load(tmp_path, VALID + added + feeding).consumers.train
    else:
        with pytest.raises(CampaignError, match=f"consumers.{consumer}: unknown contestant b"):
            load(tmp_path, VALID + added + feeding)


def test_a_repeated_contestant_name_is_refused(tmp_path: Path) -> None:
    contestant = VALID[VALID.index("[[contestants]]") :]
    with pytest.raises(CampaignError, match="contestant named more than once: a"):
        load(tmp_path, VALID + contestant)


OTHER = """
[[contestants]]
name = "b"
title = "B"
loader = "imagefolder"
format = "files"
"""


def test_published_figures_require_those_of_the_reference(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match="published: images_per_s of the reference, a, are missing"):
        load(tmp_path, VALID + OTHER + PUBLISHED.format("b"))
    campaign = load(tmp_path, VALID + OTHER + PUBLISHED.format("a"))
    assert campaign.published
    assert campaign.published.contestants["a"].images_per_s == (1,)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["ab", "ab"], "changes: more than one starts from a"),
        (["ab", "ba"], "changes: those from b lead back to it"),
    ],
)
def test_changes_that_fork_or_loop_are_refused(tmp_path: Path, pairs: list[str], said: str) -> None:
    changes = "".join(f'[[changes]]\nfrom = "{one}"\nto = "{other}"\nwhat = "?"\n' for one, other in pairs)
    with pytest.raises(CampaignError, match=said):
        load(tmp_path, VALID + OTHER + changes)


def test_requested_order_and_dtype_reach_the_loaders(tmp_path: Path) -> None:
    settings = "shuffle = false\ndtype = 'bfloat16'\nnormalised = true"
    asked = load(tmp_path, VALID.replace("[timing]", f"[work]\n{settings}\n[timing]")).work_on(1, 1)
    assert (asked.shuffle, asked.dtype, asked.normalised) == (False, "bfloat16", True)
    usual = load(tmp_path, VALID)
    assert (usual.work_on(1, 1).shuffle, usual.work_on(1, 1).dtype) == (True, "uint8")


HALF = """
[[contestants]]
name = "b"
title = "B"
loader = "imagefolder"
format = "files"
work = { dtype = "float16", normalised = true }
"""


def test_a_contestant_can_have_its_own_work(tmp_path: Path) -> None:
    read = load(tmp_path, VALID + HALF)
    one, other = (read.work_on(1, 1, contestant) for contestant in read.contestants)
    assert one == read.work_on(1, 1)
    assert other == replace(one, dtype="float16", normalised=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (VALID + HALF.replace("float16", "uint8"), "contestant b: normalised values do not fit into uint8"),
        (
            VALID + 'work = { dtype = "float16" }',
            "reference a has work of its own, so no contestant could be ranked",
        ),
        (VALID + 'apart = "of another kind"', "reference a has work of its own"),
    ],
)
def test_impossible_work_and_an_unranked_reference_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(CampaignError, match=said):
        load(tmp_path, text)


def test_a_campaign_cannot_extend_itself(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match="extends must name a shipped campaign, for example quick, and not a file"):
        load(tmp_path, f'extends = "{tmp_path / "small"}"')


def test_a_campaign_can_extend_a_shipped_one(tmp_path: Path) -> None:
    campaign = load(tmp_path, 'extends = "quick"\nname = "mine"\ncold = ["ffcv-raw-mapped"]\ntiming = { blocks = 9 }')
    quick = config.load("quick")
    assert (campaign.name, campaign.timing.blocks) == ("mine", 9)
    assert campaign.contestants == quick.contestants
    assert campaign.timing.window_s == quick.timing.window_s
    assert [t.contestant.name for t in plan.trials(campaign, 1) if t.variant.cache == "cold"] == ["ffcv-raw-mapped"]


@pytest.mark.parametrize(
    ("cores", "workers"), [(1, (1, 2, 9)), (2, (2, 1, 3, 4, 9)), (8, (8, 7, 9, 16, 4)), (9, (9, 8, 10, 18, 4))]
)
def test_search_starts_with_the_contestants_settings_and_counts_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, workers: tuple[int, ...]
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    settings = load(tmp_path, VALID.replace("[timing]", f"{BEST}[timing]")).best["a"].settings
    assert settings == {"decode": ("pil", "torchvision"), "workers": workers}
