"""A run from somebody else's store runs no code of its model's author, unless the person at the keyboard allows it."""

import json
from pathlib import Path

import pytest
from tiny_models import save

from raysp.actions.finished import finished_run
from raysp.errors import UserError
from raysp.game import Component, GameInfo
from raysp.specs.lenses import DataLens, FeatureLens, MechanisticLens
from raysp.specs.policy import NO_CONSENT, Consent
from raysp.specs.run import RunSpec
from raysp.store import Store

CODE = """
from pathlib import Path
from transformers import LlamaForCausalLM

Path({marker!r}).touch()


class OwnModel(LlamaForCausalLM):
    pass
"""

GAME = GameInfo("0" * 32, (Component(0, "never", "word"), Component(1, "a", "word")), {"lens": "feature"})


@pytest.fixture
def foreign(tmp_path):
    """A store with an interrupted run of a model with code of its own, and the file that this code makes."""
    folder, marker = Path(save("llama", tmp_path / "model")), tmp_path / "the code was run"
    (folder / "modeling_own.py").write_text(CODE.format(marker=str(marker)))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["OwnModel"], "auto_map": {"AutoModelForCausalLM": "modeling_own.OwnModel"}}))
    lens = FeatureLens(prompt="never a good film", target=" yes", model=str(folder), allow_remote_code=True, dtype="float32", device="cpu")
    spec = RunSpec(lens=lens, explorer={"kind": "exhaustive"}, local=True)
    with Store.open(tmp_path / "foreign.duckdb") as store:
        store.start_run("run-1", json.dumps(spec.model_dump(mode="json", exclude_none=True)), GAME, lens="feature", explorer="exhaustive", seed=0)
    return str(tmp_path / "foreign.duckdb"), marker


def test_resuming_it_asks_for_the_flag_again(foreign, cli):
    store, marker = foreign
    refused = cli("resume", "run-1", "--store", store)
    assert (refused.code, refused.out, len(refused.err.strip().splitlines())) == (2, "", 1)
    assert "allow_remote_code: was set when run run-1 was asked" in refused.err
    assert "give --allow-remote-code again if you trust" in refused.err
    assert not marker.exists()
    done = cli("resume", "run-1", "--store", store, "--allow-remote-code", "--json")
    assert done.code == 0, done.err
    assert marker.exists()


@pytest.mark.parametrize(
    ("lens", "action"), [(MechanisticLens(allow_pickle=True), "prune"), (DataLens(allow_pickle=True), "lds"), (DataLens(allow_pickle=True), "select")]
)
def test_so_do_actions_on_it(lens, action):
    row = {"run_id": "r", "lens": lens.kind, "status": "done", "dtype": "float32", "spec": {"lens": lens.model_dump(mode="json", exclude_none=True)}}
    with pytest.raises(UserError, match="allow_pickle: was set when run r was asked: it loads pickled weights"):
        finished_run(row, action, NO_CONSENT)
    assert finished_run(row, action, Consent(allow_pickle=True)).lens.allow_pickle
