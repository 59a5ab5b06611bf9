"""`raysp predict`: a stored run asked about other subsets, on the command line."""

import json

import pytest
from answered_games import N, planted

import raysp

LABELS = tuple(f"w{i}" for i in range(N))


@pytest.fixture
def run_id():
    lens = raysp.FunctionLens(planted, n=N, labels=LABELS)
    return raysp.run(raysp.RunSpec(lens=lens, explorer=raysp.ProxySPEX(budget=400, max_order=3), seed=1, local=True)).run_id


def test_subsets_are_predicted_one_by_one(run_id, cli):
    code, out, err = cli("predict", "last", "--removed", "4,7", "--removed", "w3", "--kept", "1,2", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["run_id"] == run_id
    assert [len(each["removed"]) for each in told["predictions"]] == [2, 1, N - 2]
    assert told["predictions"][0]["removed"] == [4, 7]
    for each in told["predictions"]:
        assert each["lo"] <= each["value"] <= each["hi"]
        assert each["extrapolated"] in (True, False)


def test_the_table_names_what_is_removed_and_the_intact_value(run_id, cli):
    code, out, _ = cli("predict", run_id, "--removed", "w4,7")
    assert code == 0
    for words in ("w4 (4), w7 (7)", "predicted", "95% interval", "The value with every component kept is"):
        assert words in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--removed", "plot"], "components: 'plot' is not a component of this run"),
        ([], "removed: is missing; name components"),
        (["--removed", "1", "--query", "0"], "query: 0 is not one of run"),
        (["--removed", "1,2,3,5", "--exact"], "explains a Python function"),
    ],
)
def test_mistakes_are_one_line(run_id, cli, options, message):
    code, out, err = cli("predict", run_id, *options)
    assert (code, out, len(err.strip().splitlines())) == (2, "", 1)
    assert message in err
