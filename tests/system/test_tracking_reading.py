"""A study read back from an MLflow store is the ledger's, bit for bit, and so are its tables and report."""

import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from read_back import texts, written

from search_spaces import with_changes
from study.commands import show
from study.commands.show import in_folder, in_store
from study.errors import UserError
from study.results.ledger import Contents, read_ledger
from study.results.sessions import read_sessions
from study.results.workspace import Workspace
from study.tracking.reading import read_study
from study.tracking.runs import pack, unpack
from study.tracking.store import read_runs, tracking_uri
from study.tracking.summaries import Summary, summarise
from study.tracking.view import replay


@pytest.fixture(scope="module")
def study(uri: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Workspace]:
    spec, workspace = written(tmp_path_factory.mktemp("reading"), "read-back")
    summary = summarise(in_folder(workspace).inputs)
    assert summary.cells
    replay(spec, workspace.root, read_ledger(workspace.ledger), uri, summary, done=True)
    return spec, workspace


def test_the_ledger_bit_for_bit(uri: str, study: Any) -> None:
    spec, workspace = study
    found, contents = read_study(uri, spec.name), read_ledger(workspace.ledger)
    assert found.spec == spec and found.num_unwritten == 0
    assert found.sessions == read_sessions(workspace.root) != []
    assert texts(found.contents) == texts(contents)
    assert len(contents.replicates) == 14 and any("nan" in text for text in texts(contents)[1].values())
    held = list(found.contents.replicates)
    assert held.index("superseding") > held.index("merge=mul,depth=14/confirm/0/1")


def test_tables_and_report_byte_for_byte(uri: str, study: Any, tmp_path: Path) -> None:
    spec, workspace = study
    made = []
    elsewhere = tmp_path / "another machine"
    for held, folder in ((in_folder(workspace), "ledger"), (in_store(uri, spec.name, elsewhere), "store")):
        show.report(held, Workspace(tmp_path / folder))
        files = {
            p.relative_to(tmp_path / folder): p.read_bytes() for p in (tmp_path / folder).rglob("*") if p.is_file()
        }
        made.append(files)
    assert made[0] == made[1]
    assert b"different" in made[1][Path("tables/decision_agreement.csv")]  # made of tables kept beside the ledger
    assert {"tables/trials.parquet", "tables/claims.tex", "report.html"} <= {str(path) for path in made[0]}


def test_named_by_file_or_by_study(uri: str, study: Any, tmp_path: Path) -> None:
    spec, _ = study
    held, workspace = show.recorded(spec.name, ["alpha=0.1"], tmp_path, uri)
    assert workspace.root == tmp_path / spec.name
    assert held.spec.alpha == 0.1 and held.spec.model_copy(update={"alpha": spec.alpha}) == spec
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(spec.model_dump(mode="json") | {"title": "of my own"}))
    assert show.recorded(str(path), [], tmp_path, uri)[0].spec.title == "of my own"
    with pytest.raises(UserError, match=r"holds no study 'read-bakc' \(did you mean 'read-back'\?\)"):
        show.recorded("read-bakc", [], tmp_path, uri)
    assert with_changes(spec, [], "") is spec


def test_a_view_that_is_behind(uri: str, tmp_path: Path, spec_of: Any, record_of: Any, config_of: Any) -> None:
    spec, contents = spec_of(name="behind"), Contents()
    for seed in range(3):
        contents.add(record_of(config_of(seed=seed), cell="fake/d8/add", number=seed))
    replay(spec, tmp_path, contents, uri, Summary(), done=True)
    client, runs = MlflowClient(uri), {run.tags.get("trial_key", ""): run for run in read_runs(uri, "behind")}
    first, second = (runs[key] for key in list(contents.replicates)[:2])
    client.delete_tag(first.run_id, next(iter(pack(b""))))
    with pytest.raises(
        UserError, match=r"does not hold the ledger's lines; bring .*: fmm-study ui behind --tracking-uri"
    ):
        read_study(uri, "behind")
    # as a driver at work leaves it
    client.update_run(first.run_id, status="RUNNING")
    found = read_study(uri, "behind")
    assert found.num_unwritten == 1 and len(found.contents.replicates) == 2
    replay(spec, tmp_path, contents, uri, Summary(), done=True)
    assert texts(read_study(uri, "behind").contents) == texts(contents)
    client.set_tag(second.run_id, next(iter(pack(b""))), "eJw=")
    with pytest.raises(UserError, match="does not hold the ledger's lines"):
        read_study(uri, "behind")
    client.delete_tag(runs[""].run_id, next(iter(pack(b""))))
    with pytest.raises(UserError, match="does not hold its specification"):
        read_study(uri, "behind")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no study 'digits'$"):
        read_study(tracking_uri(None, tmp_path), "digits")
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize("size", [0, 1, 5699, 5700, 5701, 60_000])
def test_packing(size: int) -> None:
    data = random.Random(size).randbytes(size)
    tags = pack(data)
    assert unpack(tags) == data and unpack({**tags, "mlflow.note.content": "x"}) == data
    assert max(map(len, tags.values())) <= 8000
    # a longer one's parts are left behind by MLflow's stores
    assert unpack(pack(random.Random(1).randbytes(80_000)) | tags) == data
    names = list(tags)
    assert unpack({name: tags[name] for name in names[1:]}) is None
    assert unpack({name: tags[name] for name in names[:-1]}) is None
    assert unpack({}) is None
