"""The example notebook: its cells run in a kernel of their own, and show the answer."""

from pathlib import Path

import nbformat
import pytest
from homes import with_models
from nbclient import NotebookClient

PLACE = Path(__file__).parent.parent.parent / "jobs/notebook.ipynb"


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(PLACE, as_version=4)


def test_it_is_kept_without_outputs(notebook):
    nbformat.validate(notebook)
    assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]


def test_its_cells_run_and_show_the_answer(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSP_HOME", str(with_models(tmp_path)))
    monkeypatch.delenv("RAYSP_SERVER", raising=False)
    done = NotebookClient(notebook, timeout=280, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in done.cells for output in cell.get("outputs", ())]
    html = ["".join(output["data"]["text/html"]) for output in shown if "text/html" in output.get("data", {})]
    progress = next(text for text in html if 'role="status"' in text)
    assert "done" in progress
    answer = next(text for text in html if "raysp-answer" in text)
    assert "never × fails" in answer
    assert "raysp-reliable" in answer
    printed = "".join(output["text"] for output in shown if output["output_type"] == "stream" and output["name"] == "stdout")
    assert "without never and fails: +1.534" in printed
