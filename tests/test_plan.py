"""The order of trials is fair and can be repeated, and disturbed blocks are run again."""

from __future__ import annotations

from bench import config, plan
from bench.config import Campaign
from bench.records import Record


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
            cache=trial.cache,
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
        assert {trial.cache for trial in trials} == {"warm"}


def test_who_also_runs_cold_does_so_once_in_each_block() -> None:
    campaign = config.load("standard")
    cold = [trial for trial in plan.trials(campaign, 3) if trial.cache == "cold"]
    assert sorted(trial.contestant.name for trial in cold) == sorted(campaign.cold)
    assert {trial.name for trial in cold} == {f"3/{name}/cold" for name in campaign.cold}


def test_the_order_differs_between_blocks_attempts_and_seeds_and_repeats_with_the_seed() -> None:
    orders = [
        [trial.contestant.name for trial in plan.trials(*which)]
        for which in ((quick(), 1), (quick(), 2), (quick(), 1, 2), (quick(seed=1), 1))
    ]
    assert len({tuple(order) for order in orders}) == len(orders)
    assert plan.trials(quick(), 1) == plan.trials(quick(), 1)


def test_what_is_missing_is_the_rest_of_the_first_unfinished_block() -> None:
    campaign = quick()
    first, *rest = plan.trials(campaign, 2)
    measured = rows(campaign, 1) | {first.name: rows(campaign, 2)[first.name]}
    assert plan.missing(campaign, measured) == tuple(rest)
    assert plan.missing(campaign, rows(campaign, 1) | rows(campaign, 2)) == ()


def test_a_disturbed_block_is_run_again_whole_as_often_as_allowed() -> None:
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
