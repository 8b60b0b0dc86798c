"""The order of trials is fair and can be repeated."""

from __future__ import annotations

from bench import config, plan


def test_every_contestant_runs_once_in_each_block() -> None:
    campaign = config.load("quick")
    trials = plan.trials(campaign)
    for block in range(1, campaign.timing.blocks + 1):
        names = [trial.contestant.name for trial in trials if trial.block == block]
        assert sorted(names) == sorted(contestant.name for contestant in campaign.contestants)
    assert [trial.position for trial in trials] == list(range(1, len(trials) + 1))


def test_the_order_differs_between_blocks_and_seeds_and_repeats_with_the_seed() -> None:
    campaign = config.load("quick")
    other = config.load("quick", {"timing": {"seed": 1}})
    order = [trial.contestant.name for trial in plan.trials(campaign)]
    count = len(campaign.contestants)
    assert order[:count] != order[count : 2 * count]
    assert order != [trial.contestant.name for trial in plan.trials(other)]
    assert plan.trials(campaign) == plan.trials(campaign)
