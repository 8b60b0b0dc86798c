"""`check` finds altered and foreign rows, and says why a valid campaign is not quotable."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from loaderbench.cli import app
from loaderbench.findings import check
from loaderbench.records import trials_csv
from loaderbench.records.timeline import Timeline
from tests import fabricate

if TYPE_CHECKING:
    from pathlib import Path

    from loaderbench.findings.check import Judgement

S = 10**9
CAST = fabricate.CAST[:2]


def made(folder: Path, blocks: int = 6, **environment: Any) -> Path:
    """A campaign of two contestants whose rows follow from their raw times."""
    fabricate.campaign(folder, [], cast=CAST, blocks=blocks, **environment)
    (folder / "times").mkdir()
    for block in range(1, blocks + 1):
        for actor in CAST:
            exits = [number * S // block for number in range(1, 21)]
            times = Timeline([0, *exits[:-1]], exits, [10] * 20, [0, 8], opened=3, closed=13)
            name = f"{block}-{actor.name}.npz"
            times.save(folder / "times" / name)
            trials_csv.append(folder / "trials.csv", fabricate.load(actor, block, times=name, **times.columns()))
    return folder


def judged(folder: Path, trial: str) -> Judgement:
    [judgement] = [judgement for judgement in check.check(folder) if judgement.what == trial]
    return judgement


def change(folder: Path, old: str, new: str) -> None:
    rows = folder / "trials.csv"
    text = rows.read_text()
    assert old in text
    rows.write_text(text.replace(old, new, 1))


TRIAL = f"2/{CAST[0].name}"


def test_measured_rows_are_valid(tmp_path: Path) -> None:
    states = {judgement.what: judgement.state for judgement in check.check(made(tmp_path / "c"))}
    assert states.pop("campaign") == "valid with caveats"  # it has no controls
    assert len(states) == 12
    assert set(states.values()) == {"valid"}


def test_check_finds_a_figure_changed_by_hand(tmp_path: Path) -> None:
    folder = made(tmp_path / "c")
    [row] = [row for row in trials_csv.read(folder / "trials.csv") if row.trial == TRIAL]
    change(folder, f"{row.images_per_s:.6g},", "99.5,")
    faulty = [judgement for judgement in check.check(folder) if judgement.state == "invalid"]
    [reasons] = [judgement.reasons for judgement in faulty]
    assert "seal is broken" in reasons[0]
    assert "images_per_s is 99.5, but " in reasons[1]


def test_check_finds_a_resealed_figure_that_contradicts_the_raw_times(tmp_path: Path) -> None:
    folder = made(tmp_path / "c")
    rows = trials_csv.read(folder / "trials.csv")
    (folder / "trials.csv").unlink()
    for row in rows:
        trials_csv.append(folder / "trials.csv", replace(row, wait_p99_ms=0.5) if row.trial == TRIAL else row)
    judgement = judged(folder, TRIAL)
    assert judgement.state == "invalid"
    assert len(judgement.reasons) == 1
    assert judgement.reasons[0].startswith("wait_p99_ms is 0.5, but ")


def test_check_finds_missing_swapped_and_torn_raw_times(tmp_path: Path) -> None:
    folder = made(tmp_path / "c")
    times = folder / "times" / TRIAL.replace("/", "-")
    times = times.with_name(times.name + ".npz")
    other = (folder / "times" / f"3-{CAST[0].name}.npz").read_bytes()
    for content, said in ((other, "seal is broken"), (other[:99], "seal is broken"), (None, "cannot be read")):
        if content is None:
            times.unlink()
        else:
            times.write_bytes(content)
        judgement = judged(folder, TRIAL)
        assert judgement.state == "invalid"
        assert said in judgement.reasons[0]


def test_check_finds_repeated_and_foreign_rows(tmp_path: Path) -> None:
    folder = made(tmp_path / "c")
    for row in (
        fabricate.failed(CAST[0], 2),
        fabricate.load(fabricate.CAST[5], 1),
        fabricate.load(CAST[1], 7),
        fabricate.load(CAST[1], 1, cache="cold"),
        fabricate.load(CAST[1], 3, attempt=2, status="failed", images_per_s=5.0),
    ):
        trials_csv.append(folder / "trials.csv", row)
    found = {judgement.what: judgement.reasons for judgement in check.check(folder) if judgement.state == "invalid"}
    assert "there are 2 rows of this trial" in found[TRIAL]
    assert f"the campaign has no contestant {fabricate.CAST[5].name}" in found[f"1/{fabricate.CAST[5].name}"]
    assert "the campaign has no block 7" in found[f"7/{CAST[1].name}"]
    assert "the campaign does not run it in the variant: cold cache" in found[f"1/{CAST[1].name}/cold"]
    assert "it is failed but has a speed" in found[f"3.2/{CAST[1].name}"]


def test_disturbed_and_failed_rows_have_caveats(tmp_path: Path) -> None:
    folder = made(tmp_path / "c")
    trials_csv.append(folder / "trials.csv", fabricate.load(CAST[0], 1, attempt=2, steal_pct=9.0))
    trials_csv.append(folder / "trials.csv", fabricate.failed(CAST[0], 1, attempt=3))
    assert judged(folder, f"1.2/{CAST[0].name}").state == "valid with caveats"
    assert judged(folder, f"1.3/{CAST[0].name}").reasons == ("failed: RuntimeError: worker died",)


@pytest.mark.parametrize(
    ("blocks", "environment", "said"),
    [
        (3, {}, "it has 3 blocks, fewer than 6"),
        (6, {"git_dirty": True}, "the code had local changes"),
        (6, {"git_commit": None}, "the commit of the code is unknown"),
        (6, {}, "it has no controls"),
    ],
)
def test_check_says_why_a_campaign_is_not_quotable(
    tmp_path: Path, blocks: int, environment: dict[str, Any], said: str
) -> None:
    judgement = judged(made(tmp_path / "c", blocks, **environment), "campaign")
    assert judgement.state == "valid with caveats"
    assert said in judgement.reasons


def test_check_exits_with_an_error_for_an_unfinished_campaign(tmp_path: Path) -> None:
    folder = made(tmp_path / "c")
    assert CliRunner().invoke(app, ["check", str(folder)]).exit_code == 0
    lines = (folder / "trials.csv").read_text().splitlines(keepends=True)
    (folder / "trials.csv").write_text("".join(lines[:-1]))
    done = CliRunner().invoke(app, ["check", str(folder)])
    assert done.exit_code == 1
    assert "invalid: campaign: 11 of 12 planned trials are recorded" in done.output


def test_check_finds_a_certificate_changed_by_hand(tmp_path: Path) -> None:
    folder = made(tmp_path / "c", blocks=1)
    path = folder / "certificates.json"
    path.write_text(path.read_text().replace('"new_companions": 0.97', '"new_companions": 1.0', 1))
    states = {judgement.what: judgement for judgement in check.check(folder)}
    assert states[f"1/{CAST[0].name}"].state == "invalid"
    assert "certificate of its contestant was changed" in states[f"1/{CAST[0].name}"].reasons[0]
    assert states[f"1/{CAST[1].name}"].state == "valid"


def test_only_rows_of_the_first_block_may_precede_the_certificates(tmp_path: Path) -> None:
    folder = fabricate.campaign(tmp_path / "made", cast=CAST, blocks=2)
    path = folder / "trials.csv"
    rows = [replace(row, certificate="") if row.kind == "load" else row for row in trials_csv.read(path)]
    path.unlink()
    for row in rows:
        trials_csv.append(path, row)
    blocks = {j.what[0] for j in check.check(folder) if any("certificate" in reason for reason in j.reasons)}
    assert blocks == {"2"}


def test_different_work_and_missing_certificates_have_caveats(tmp_path: Path) -> None:
    faulty = {a.name: fabricate.certificate(faults=("no image is flipped",) if a is CAST[0] else ()) for a in CAST}
    rows = [fabricate.load(actor, 1) for actor in CAST]
    judgements = check.check(fabricate.campaign(tmp_path / "a", rows, cast=CAST, blocks=1, certified=faulty))
    states = {judgement.what: judgement for judgement in judgements}
    assert states[f"1/{CAST[0].name}"].state == "valid with caveats"
    assert states[f"1/{CAST[0].name}"].reasons == ("not ranked: no image is flipped",)
    [campaign, *_] = check.check(fabricate.campaign(tmp_path / "b", rows, cast=CAST, blocks=1, certified={}))
    assert "its contestants have no certificates" in campaign.reasons


BOTH = fabricate.CAST[:1]


def searched(folder: Path, **changes: Any) -> Path:
    """Make a campaign of one contestant on both tracks; `changes` replace columns of the third trial of its search."""
    fabricate.campaign(folder, [], cast=BOTH, blocks=1, best=[BOTH[0].name])
    rows = [*fabricate.searched(BOTH[0]), fabricate.load(BOTH[0], 1), fabricate.at_best(BOTH[0], 1)]
    rows[2] = replace(rows[2], **changes)
    for row in rows:
        trials_csv.append(folder / "trials.csv", row)
    return folder


def invalid(folder: Path) -> dict[str, tuple[str, ...]]:
    return {j.what: j.reasons for j in check.check(folder) if j.state == "invalid"}


def test_a_search_and_its_tuned_trials_are_valid(tmp_path: Path) -> None:
    states = {judgement.what: judgement.state for judgement in check.check(searched(tmp_path / "c"))}
    assert states.pop("campaign") == "valid with caveats"
    assert set(states.values()) == {"valid"}


def test_check_finds_a_trial_that_the_search_did_not_request(tmp_path: Path) -> None:
    wrong = invalid(searched(tmp_path / "c", workers=7))
    assert [*wrong] == [f"tune/{BOTH[0].name}/3"]
    [[reason]] = wrong.values()
    assert reason.startswith('it ran with {"batches_ahead": 3, "os_cache": false} and 7 workers, but')
    assert invalid(searched(tmp_path / "e", options="no JSON"))
    folder = searched(tmp_path / "d")
    late = replace(fabricate.searched(BOTH[0])[0], trial=f"tune/{BOTH[0].name}/99", position=99)
    trials_csv.append(folder / "trials.csv", late)
    assert invalid(folder) == {late.trial: ("the search did not request it",)}


def test_check_finds_a_tuned_trial_with_other_settings(tmp_path: Path) -> None:
    folder = searched(tmp_path / "c")
    best = fabricate.at_best(BOTH[0], 1, attempt=2, trial=f"1.2/{BOTH[0].name}/best", workers=1)
    trials_csv.append(folder / "trials.csv", best)
    [[reason]] = invalid(folder).values()
    assert reason.endswith("but the search requested {'os_cache': False, 'workers': 3, 'batches_ahead': 3}")


def test_check_finds_a_changed_speed_in_the_search(tmp_path: Path) -> None:
    wrong = invalid(searched(tmp_path / "c", images_per_s=1.0))
    assert f"1/{BOTH[0].name}/best" in wrong


def test_check_finds_a_search_that_the_campaign_does_not_have(tmp_path: Path) -> None:
    folder = made(tmp_path / "c")
    trials_csv.append(folder / "trials.csv", fabricate.searched(CAST[0])[0])
    trials_csv.append(folder / "trials.csv", fabricate.at_best(CAST[0], 1))
    trials_csv.append(folder / "trials.csv", fabricate.load(CAST[0], 1, attempt=2, track="third"))
    found = invalid(folder)
    none = "the campaign does not search for its best settings"
    assert found[f"tune/{CAST[0].name}/1"] == (none,)
    assert none in found[f"1/{CAST[0].name}/best"]
    assert found[f"1.2/{CAST[0].name}"] == ("the campaign does not run it in the variant: third",)
