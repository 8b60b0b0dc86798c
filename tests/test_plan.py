"""Trials run in a reproducible random order, and disturbed blocks are repeated."""

from __future__ import annotations

from dataclasses import replace

from loaderbench.campaign import campaign as config
from loaderbench.campaign import plan, tuning
from loaderbench.campaign.campaign import Campaign
from loaderbench.records.record import Record


def quick(**timing: int) -> Campaign:
    return config.load("quick", {"timing": {"blocks": 2, **timing}})


def rows(campaign: Campaign, block: int, attempt: int = 1, *, steal_pct: float = 0) -> dict[str, Record]:
    """Rows of a whole attempt at a block."""
    return {
        trial.name: Record(
            trial=trial.name,
            kind="load",
            started_at="",
            title="",
            adapter="",
            format="",
            status="ok",
            cache=trial.variant.cache,
            steal_pct=steal_pct,
        )
        for trial in plan.trials(campaign, block, attempt)
    }


def test_every_contestant_runs_once_in_each_block() -> None:
    campaign = quick()
    for block in (1, 2):
        trials = plan.trials(campaign, block)
        assert sorted(t.contestant.name for t in trials) == sorted(c.name for c in campaign.contestants)
        assert [trial.position for trial in trials] == list(range(1, len(trials) + 1))
        assert {trial.variant.cache for trial in trials} == {"warm"}


def test_cold_contestants_run_cold_once_in_each_block() -> None:
    campaign = config.load("standard")
    cold = [trial for trial in plan.trials(campaign, 3) if trial.variant.cache == "cold"]
    assert sorted(trial.contestant.name for trial in cold) == sorted(campaign.cold)
    assert {trial.name for trial in cold} == {f"3/{name}/cold" for name in campaign.cold}


def test_each_transport_runs_once_in_each_block() -> None:
    trials = {trial.name: trial for trial in plan.trials(config.load("stream"), 2)}
    assert {name: trial.variant.transport for name, trial in trials.items() if trial.variant.transport} == {
        "2/litdata-jpeg/stream": "stream",
        "2/litdata-jpeg/bounded": "bounded",
        "2/litdata-jpeg/download": "download",
        "2/ffcv-jpeg-mapped/download": "download",
        "2/imagefolder-256-torchvision/download": "download",
    }


def test_order_depends_on_block_attempt_and_seed() -> None:
    orders = [
        [trial.contestant.name for trial in plan.trials(*which)]
        for which in ((quick(), 1), (quick(), 2), (quick(), 1, 2), (quick(seed=1), 1))
    ]
    assert len({tuple(order) for order in orders}) == len(orders)
    assert plan.trials(quick(), 1) == plan.trials(quick(), 1)


def test_missing_trials_are_the_rest_of_the_first_unfinished_block() -> None:
    campaign = quick()
    first, *rest = plan.trials(campaign, 2)
    measured = rows(campaign, 1) | {first.name: rows(campaign, 2)[first.name]}
    assert plan.missing(campaign, measured) == tuple(rest)
    assert plan.missing(campaign, rows(campaign, 1) | rows(campaign, 2)) == ()


def test_a_disturbed_block_is_repeated_as_often_as_allowed() -> None:
    disturbed = rows(quick(), 1, steal_pct=9)
    assert plan.missing(quick(), disturbed) == plan.trials(quick(), 2)
    once = quick(reruns=1)
    assert plan.missing(once, disturbed) == plan.trials(once, 1, attempt=2)
    assert {trial.name.split("/")[0] for trial in plan.missing(once, disturbed)} == {"1.2"}
    again = disturbed | rows(once, 1, 2, steal_pct=9)
    assert plan.missing(once, again) == plan.trials(once, 2)


def test_a_quiet_second_attempt_needs_no_third() -> None:
    twice = quick(reruns=2)
    measured = rows(twice, 1, steal_pct=9) | rows(twice, 1, 2)
    assert plan.missing(twice, measured) == plan.trials(twice, 2)


def two_tracks(**timing: int) -> Campaign:
    return config.load("best", {"timing": {"blocks": 2, **timing}, "tuning": {"trials": 4}})


def searches(campaign: Campaign) -> dict[str, Record]:
    """Rows of all searches, in which more workers are faster and no other setting matters."""
    measured: dict[str, Record] = {}
    while not (trial := plan.missing(campaign, measured)[0]).block:
        workers = (trial.settings or {}).get("workers", 0)
        row = next(iter(rows(quick(), 1).values()))
        measured[trial.name] = replace(row, trial=trial.name, kind="tune", images_per_s=100.0 + workers)
    return measured


def test_tuned_contestants_run_once_more_in_each_block() -> None:
    campaign = two_tracks()
    best = [trial for trial in plan.trials(campaign, 2) if trial.variant.track == "best"]
    assert {trial.name for trial in best} == {f"2/{name}/best" for name in campaign.best}
    assert len(plan.trials(campaign, 2)) == len(campaign.contestants) + len(best)
    assert {trial.variant.cache for trial in best} == {"warm"}


def test_searches_precede_the_first_block_one_trial_at_a_time() -> None:
    campaign = two_tracks()
    [first] = plan.missing(campaign, {})
    assert (first.block, first.name) == (0, "tune/ffcv-raw-mapped/1")
    measured = searches(campaign)
    assert {name.split("/")[0] for name in measured} == {"tune"}
    assert {name.split("/")[1] for name in measured} == set(campaign.best)
    assert [trial.name for trial in plan.missing(campaign, measured)] == [t.name for t in plan.trials(campaign, 1)]
    assert plan.searching(campaign, measured) == (0, 0)


def test_trials_have_the_settings_of_their_track() -> None:
    campaign = two_tracks()
    for trial in plan.missing(campaign, searches(campaign)):
        own = tuning.own(campaign.best[trial.contestant.name]) if trial.variant.track == "best" else {}
        assert trial.settings == own  # 4 trials were too few to find anything


def test_a_disturbed_tuned_trial_repeats_its_block() -> None:
    campaign = two_tracks(reruns=1)
    measured = searches(campaign) | rows(campaign, 1)
    name = "1/litdata-raw/best"
    disturbed = measured | {name: replace(measured[name], steal_pct=9)}
    assert plan.missing(campaign, measured)[0].block == 2
    assert [t.name for t in plan.missing(campaign, disturbed)] == [t.name for t in plan.trials(campaign, 1, 2)]


def test_plan_counts_likely_and_maximum_search_trials() -> None:
    campaign = config.load("best", {"tuning": {"trials": 10}})
    likely, most = plan.searching(campaign, {})
    assert likely <= most == 10 * len(campaign.best)
