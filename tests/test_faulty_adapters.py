"""A faulty adapter of another package is listed with its package and the reason, and costs nobody else a row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loaderbench.campaign import registry
from loaderbench.campaign.registry import AdapterError
from loaderbench.certify import certify
from loaderbench.cli import app
from loaderbench.machine.progress import Display
from loaderbench.records import trials_csv
from loaderbench.run import runner
from tests import planted_site
from tests.campaigns import Ready, campaign
from tests.planted_site import HONEST

MODULES = {
    "honest": HONEST,
    "raises": "raise ValueError('the planted\\nfault')",
    "exits": "import sys\nsys.exit('the planted exit')",
    "ends": "import os\nos._exit(7)",
    "segfaults": "import ctypes\nctypes.string_at(0)",
    "hangs": "import time\ntime.sleep(1000)",
    "text": HONEST.replace("requires = ()", "requires = 'torch'"),
    "readless": HONEST.replace("reads =", "red ="),
    "noted": HONEST.replace("streams = False", "streams = 'no'"),
    "streamless": HONEST.replace("def stream", "def flow") + "stream = None",
    "dotted": HONEST.replace("requires = ()", "requires = ('no_such_parent.child', 'json.no_such_child', 'json.tool')"),
    "miscounts": HONEST + "def shared_memory_bytes(work): raise LookupError('the planted need')",
    "modeless": "requires = ()\nresumes = False\nwrite = payloads = print",
}
SAID = {
    "loader/raises": "the module raises of their-package cannot be imported: ValueError: the planted fault",
    "loader/exits": "the module exits of their-package cannot be imported: SystemExit: the planted exit",
    "loader/ends": "the module ends of their-package cannot be imported: the process ended with 7 and no result",
    "loader/segfaults": "the module segfaults of their-package cannot be imported: the process was ended by SIGSEGV",
    "loader/hangs": "the module hangs of their-package cannot be imported: killed after its time limit of 0.5 s",
    "writer/unended": "the module ends of their-package cannot be imported: the process ended with 7 and no result",
    "loader/nowhere": "the module no_such_module of their-package cannot be imported: ModuleNotFoundError: No module",
    "loader/text": "the module text of their-package has requires = 'torch' instead of a tuple of names, like",
    "loader/readless": "the module readless of their-package has no reads",
    "loader/noted": "the module noted of their-package has streams = 'no' instead of True or False",
    "loader/streamless": "the module streamless of their-package has stream = None instead of a function",
    "loader/object": "their-package names the object honest:stream; an entry point must be a module, honest",
    "loader/dotted": "not installed: no_such_parent.child, json.no_such_child; install with: pip install their-package",
    "loader/twice": "other-package and their-package each have a loader twice; uninstall all but one",
    "loader/ffcv (their-package)": "loaderbench has a loader ffcv of its own; their-package must give it another name",
    "writer/modeless": "the module modeless of their-package has no modes",
}
"""Why each adapter is unavailable, by its kind and name in the list."""
POINTS = {key: key.partition("/")[2] for key in SAID} | {
    "loader/honest": "honest",
    "loader/miscounts": "miscounts",
    "writer/unended": "ends",
    "loader/nowhere": "no_such_module",
    "loader/object": "honest:stream",
    "loader/twice": "honest",
    "loader/ffcv": "honest",
}
POINTS.pop("loader/ffcv (their-package)")


@pytest.fixture(scope="module", autouse=True)
def _site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        packages = {"their-package": POINTS, "other-package": {"loader/twice": "honest"}}
        planted_site.install(tmp_path_factory.mktemp("site"), patch, MODULES, packages)
        with pytest.MonkeyPatch.context() as short:
            short.setattr(registry, "_IMPORT_LIMIT_S", 0.5)
            assert registry.adapters("loader")["hangs"].fault
        yield
    registry.adapters.cache_clear()


def test_adapters_lists_each_fault_and_all_that_is_sound() -> None:
    done = CliRunner().invoke(app, ["adapters"])
    assert done.exit_code == 0, done.output
    listed = {" ".join(line.split()) for line in done.output.splitlines()}
    for key, reason in SAID.items():
        assert [line for line in listed if line.startswith(f"{key.replace('/', ' ')} unavailable, {reason}")], key
    assert "loader honest available (needs no library)" in listed
    assert [line for line in listed if line.startswith("loader ffcv available")]


def test_a_faulty_adapter_cannot_be_loaded() -> None:
    with pytest.raises(AdapterError, match="loader readless cannot be used: the module readless of their-package has"):
        registry.loader("readless")


@pytest.mark.usefixtures("forked")
def test_faulty_adapters_become_rows_and_certificates_that_say_why(ready: Ready, tmp_path: Path) -> None:
    loaders = [key.removeprefix("loader/") for key in SAID if key.startswith("loader/") and "(" not in key]
    contestants = {name: {"loader": name, "options": {"any": 1}} for name in loaders if name != "dotted"}
    contestants |= {name: {"loader": name} for name in ("dotted", "miscounts")}
    contestants |= {"unwritten": {"loader": "honest", "format": "unwritten"}}
    formats = {"files": {"writer": "imagefolder", "mode": "jpeg"}, "unwritten": {"writer": "modeless", "mode": "jpeg"}}
    best = {"raises": {"title": "raises", "settings": {"any": [1, 2], "workers": ["cores"]}}}
    chosen = campaign({"good": {"loader": "imagefolder"}, **contestants}, formats, best=best, blocks=1)
    prepared = ready(chosen)
    folder = runner.run(chosen, prepared, tmp_path / "results", Display())
    rows = {row.contestant: row for row in trials_csv.read(folder / "trials.csv") if row.kind == "load"}
    assert rows.pop("good").status == "ok"
    assert rows.pop("miscounts").reason.startswith("its shared_memory_bytes fails: LookupError: the planted need (")
    writer = rows.pop("unwritten")
    assert (writer.status, writer.reason) == ("unavailable", f"format unwritten: {SAID['writer/modeless']}")
    assert {row.status for row in rows.values()} == {"unavailable"}
    for name, row in rows.items():
        assert row.reason.startswith(SAID[f"loader/{name}"]), name

    faulty = campaign({**contestants}, {"files": formats["files"]} | {"unwritten": formats["unwritten"]})
    faulty = faulty.model_copy(update={"data": faulty.data.model_copy(update={"probe": 20})})
    certificates = certify(faulty, prepared, tmp_path / "cache", Display())
    assert {certificate.state for certificate in certificates.values()} == {"unavailable"}
    assert "SystemExit: the planted exit" in certificates["exits"].failure
