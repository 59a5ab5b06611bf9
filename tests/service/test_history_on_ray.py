"""Earlier answers on a real Ray: what a run knows of those in its store is what a run in a single process knows."""

import numpy as np
from tiny_models import save

import raysp
from raysp.runs.local import local_backend
from raysp.runs.run import Run
from raysp.runtime.backend import ServiceBackend
from raysp.runtime.link import Link
from raysp.runtime.scheduler import scheduler
from raysp.runtime.store_proxy import StoreProxy

PRIOR = "The answer of an earlier run about the same components was tried as a prior"


def question(model, **asked):
    lens = raysp.MechanisticLens(model=model, prompt="Her acting never fails, the film was long", target=" not", components="heads", dtype="float32", **asked)
    return raysp.RunSpec(lens=lens, explorer=raysp.ProxySPEX(budget=120, max_order=2, slopes="off"))


def found(path):
    with raysp.Store.read(path) as store:
        return [each["message"] for each in store.run_table("events", "second").to_pylist()], store.surrogate("second")


def test_a_run_on_ray_has_the_same_prior_as_one_here(tmp_path):
    model = save("llama", tmp_path / "llama")
    asked = {"first": question(model, value="logit"), "second": question(model, value="logit_diff", foil=" bad")}
    with raysp.Store.open(tmp_path / "here.duckdb") as store:
        for name, spec in asked.items():
            Run(spec, local_backend(spec.lens), store, name).execute()
    link, there = Link(scheduler), str(tmp_path / "there.duckdb")
    for name, spec in asked.items():
        with ServiceBackend(link, spec.lens, session=name, store=there, cancelled=lambda: False) as backend:
            Run(spec, backend, StoreProxy(link, there), name).execute()
    (said, mine), (others, other) = found(tmp_path / "here.duckdb"), found(there)
    prior = [message for message in said if message.startswith(PRIOR)]
    assert prior == [message for message in others if message.startswith(PRIOR)]
    assert prior
    masks = np.random.default_rng(0).random((100, mine.n)) < 0.5
    np.testing.assert_allclose(mine.predict(masks), other.predict(masks), atol=1e-3)
