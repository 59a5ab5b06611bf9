"""No file imports another that imports it back, however far around, lazily or for types alone. What may import what stands in pyproject.toml."""

import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

import grimp


def test_no_files_import_each_other():
    graph = grimp.build_graph("raysp", cache_dir=None)
    imports = {importer: graph.find_modules_directly_imported_by(importer) for importer in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise AssertionError(f"these files import each other in a circle: {circle}") from None


def test_clients_schedulers_and_runners_start_without_what_only_evaluators_need():
    """Importing torch takes longer than all the rest together, and every command and every restarted process would wait for it."""
    looked = "import raysp.cli, raysp.runtime.client, raysp.runtime.runner, sys; print({'torch', 'transformers', 'sklearn', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", looked], capture_output=True, text=True, check=True).stdout == "set()\n"
