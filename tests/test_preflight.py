"""What a machine lacks is found before the long work, and told with the command that mends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from loaderbench import Artifact
from loaderbench.campaign import campaign as config
from loaderbench.campaign.schema import Data
from loaderbench.images import find
from loaderbench.machine.errors import FixableError
from loaderbench.machine.files import expanded
from loaderbench.machine.progress import Display
from tests import campaigns


def test_a_home_folder_is_expanded_where_python_takes_a_path(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    campaigns.file(tmp_path)
    (tmp_path / "tree").symlink_to(tree)
    (tmp_path / "artifact.json").write_text(
        '{"encoding": {"mode": "raw"}, "format": "f", "samples": 1, '
        '"label_sum": 0, "size_bytes": 1, "payload_bytes": 1}'
    )
    assert config.load("~/small.toml").name == "small"
    assert len(find("~/tree", Data(), tmp_path / "cache", Display()).paths) == 96
    assert Artifact.load("~").path == str(tmp_path / "files")


def test_a_path_below_an_unknown_home_folder_is_refused() -> None:
    with pytest.raises(FixableError, match="~nobody-here/x: no home folder is known for ~; set HOME, or"):
        expanded("~nobody-here/x")
    assert expanded("s3://bucket//x") == "s3://bucket//x"
