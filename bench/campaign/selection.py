"""Which contestants a command deals with: `--only` and `--skip`."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from loaderbench.campaign.campaign import Campaign, CampaignError
from loaderbench.campaign.schema import Contestant


def select(campaign: Campaign, only: Sequence[str], skip: Sequence[str]) -> Campaign:
    """Return the campaign limited to the contestants that match any of `only` and none of `skip`, without controls.

    A pattern is the name of a contestant, a loader or a format, in which `*` stands for any characters. Without any
    pattern, return the whole campaign. Raises CampaignError for a pattern that matches none, or if none are left.
    """
    if not only and not skip:
        return campaign
    for option, patterns in (("--only", only), ("--skip", skip)):
        for pattern in patterns:
            if not any(_matches(contestant, pattern) for contestant in campaign.competing):
                raise CampaignError(
                    f"{option} {pattern} matches nothing in {campaign.name}; there are\n{_there(campaign)}"
                )
    kept = [
        contestant.name
        for contestant in campaign.competing
        if (not only or any(_matches(contestant, pattern) for pattern in only))
        and not any(_matches(contestant, pattern) for pattern in skip)
    ]
    if not kept:
        raise CampaignError(f"--only and --skip leave no contestant of {campaign.name}; there are\n{_there(campaign)}")
    return campaign.limited_to(kept)


def with_yardsticks(campaign: Campaign) -> Campaign:
    """Return a limited campaign with the reference and the controls, by which speeds are compared and checked."""
    if campaign.is_whole:
        return campaign
    controls = [contestant.name for contestant in campaign.contestants if contestant.control]
    return campaign.limited_to([*(c.name for c in campaign.selected), campaign.reference, *controls])


def headline(campaign: Campaign) -> str:
    """Return the campaign's name and question, and the names of the contestants that a limited one leaves out."""
    left_out = ", ".join(c.name for c in campaign.contestants if c not in campaign.selected)
    rest = f"\nleft out: {left_out}; the reference and the controls stay" if left_out else ""
    return f"{campaign.name}: {campaign.question}{rest}"


def _matches(contestant: Contestant, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in (contestant.name, contestant.loader, contestant.format))


def _there(campaign: Campaign) -> str:
    names = {
        "contestants": [c.name for c in campaign.competing],
        "loaders": [c.loader for c in campaign.competing],
        "formats": [c.format for c in campaign.competing],
    }
    return "\n".join(f"  {what}: {', '.join(dict.fromkeys(found))}" for what, found in names.items())
