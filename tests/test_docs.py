"""The READMEs are true: their commands, Python and SQL run, their tables name what exists, and whatever exists is in one of them."""

import ast
import json
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import typer
from homes import with_models

from raysp.cli import app
from raysp.commands.docs import TOPICS, text
from raysp.explorers import EXPLORERS
from raysp.specs.run import LENSES
from raysp.store import Store

ROOT = Path(__file__).parent.parent
TOP = ROOT / "README.md"
READMES = [TOP, *(ROOT / folder / "README.md" for folder in ("jobs", "jobs/bench", "cluster")), *sorted((ROOT / "raysp").rglob("README.md"))]
#: Other programs' options and those that a command line has anyway.
FOREIGN = {
    "--no-deps",
    "--metrics-export-port",
    "--config",
    "--working-dir",
    "--generate",
    "--help",
    "--help-all",
    "--version",
    "--workers",
    "--port",
    "--dashboard-port",
}
#: Other programs that the shell lines of the READMEs call.
PROGRAMS = {"aws", "buildah", "curl", "debootstrap", "docker", "export", "gcloud", "helm", "kubectl", "pip", "podman", "ray", "sbatch", "ssh", "tar"}
#: Options added to the commands of the READMEs so that they take seconds. Of an option given twice, the later one holds.
SMALL = {
    "feature": ["--limit", "2", "--budget", "24"],
    "mechanistic": ["--components", "heads,neurons:16/0-31", "--layers", "16", "--positions", "last", "--budget", "24", "--keep", "0.9", "--task-size", "2"],
    "data": ["--limit", "4", "--query-count", "1", "--components", "4", "--epochs", "1", "--adapted-layers", "last:1", "--subsets", "16", "--max-order", "2"],
    "task": ["--size", "2"],
}
CHECKS = ["--heldout", "4", "--top", "1", "--random", "0", "--low-pairs", "0", "--local", "--dtype", "float32"]
#: Files that READMEs name, for the commands that read them.
FILES = {
    "letter.txt": "Dear Ann. I moved in May. My new home is in Lyon. The weather is mild.",
    "reviews.jsonl": "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in ("The film was not bad", "A dull and lifeless film", "I loved it")),
    "train.jsonl": "".join(json.dumps({"prompt": f"What is {k} and {k}?", "completion": f" {2 * k}"}) + "\n" for k in range(8)),
    "queries.jsonl": "".join(json.dumps({"prompt": f"What is {k} plus {k}?", "completion": f" {2 * k}"}) + "\n" for k in (2, 3)),
}


def blocks(path, *languages):
    """The fenced blocks of a README in these languages."""
    return [body for language, body in re.findall(r"^```(\w*)\n(.*?)^```", path.read_text(), flags=re.DOTALL | re.MULTILINE) if language in languages]


def shell_lines(path):
    """The commands in a README's shell blocks, a list of words each."""
    for body in blocks(path, "sh"):
        for line in body.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while "&&" in words:
                yield words[: words.index("&&")]
                words = words[words.index("&&") + 1 :]
            if words:
                yield words


def spans(path):
    """The inline code of a README."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE))


def table_rows(path):
    """The cells of all table rows of a README, with whether the row is a head."""
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("|") and not re.fullmatch(r"[|\s:-]+", line):
            yield number + 1 < len(lines) and re.fullmatch(r"\|[|\s:-]+", lines[number + 1]) is not None, [cell.strip() for cell in line.strip("|").split("|")]


@cache
def commands():
    """Every command of raysp by its words, such as `plan feature`."""
    found = {}

    def walk(command, words):
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, [*words, name])
        if not hasattr(command, "commands"):
            found[" ".join(words)] = command

    walk(typer.main.get_command(app), [])
    return found


@cache
def bench_options():
    """The options of each benchmark and of the simulation, as its source declares them."""
    found = {}
    for path in (*(ROOT / "jobs").rglob("*.py"), ROOT / "raysp/scheduling/simulation.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"]
        if calls:
            found[path.stem] = {argument.value for call in calls for argument in call.args if isinstance(argument, ast.Constant)}
    return found


def options(command):
    return {flag for parameter in commands()[command].params for flag in parameter.opts if flag.startswith("-")}


def split(words):
    """The command that words after `raysp` name, and the rest; None where they name a group or nothing."""
    name = next((name for name in (" ".join(words[:2]), words[0]) if name in commands()), None)
    return (name, words[len(name.split()) :]) if name else None


# ---- size and shape


def test_the_top_readme_has_at_most_200_lines():
    assert len(TOP.read_text().splitlines()) <= 200


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_table_has_a_column_of_what_was_wanted_and_links_lead_somewhere(path):
    heads = [cell.lower() for head, cells in table_rows(path) if head for cell in cells]
    assert not [cell for cell in heads if re.search(r"\b(wanted|target|goal)\b", cell)]
    for link in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert link.startswith("https://") or (path.parent / link).exists(), link


def test_figures_have_their_command_beside_them():
    """Each table of figures in the top README names its command in the row, each section of the benchmarks in its text."""
    rows = [cells for head, cells in table_rows(TOP) if not head and "python -m jobs.bench" in cells[-1]]
    assert len(rows) >= 5
    for section in (ROOT / "jobs/bench/README.md").read_text().split("\n## ")[1:]:
        assert "`python -m jobs.bench" in section, section.splitlines()[0]


# ---- topics


def test_every_readme_is_a_topic(cli):
    assert {(ROOT / "raysp" / place).resolve() for place in TOPICS.values()} == set(READMES)
    listed = cli("docs").out
    assert all(topic in listed for topic in TOPICS)


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_is_shown_in_the_terminal(topic, cli):
    shown = cli("docs", topic)
    assert shown.code == 0
    assert text(topic).split("\n", 1)[0].lstrip("# ") in shown.out


def test_an_unknown_topic_is_one_line(cli):
    shown = cli("docs", "nothing")
    assert (shown.code, shown.out, len(shown.err.strip().splitlines())) == (2, "", 1)
    assert "explorers" in shown.err


# ---- whatever exists is documented, whatever is documented exists


def test_every_command_is_documented():
    documented = set(spans(ROOT / "raysp/commands/README.md"))
    for name in commands():
        assert any(span == f"raysp {name}" or span.startswith(f"raysp {name} ") for span in documented), name


def test_every_option_is_documented():
    documented = {flag for path in READMES if path != TOP for span in spans(path) for flag in re.findall(r"(?<![\w-])--?[a-z][\w-]*", span)}
    missing = {
        f"{name} {'/'.join(p.opts)}" for name, command in commands().items() for p in command.params if p.opts[0][0] == "-" and not documented & set(p.opts)
    }
    assert not missing


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_option_and_command_that_is_named_exists(path):
    known = {flag for name in commands() for flag in options(name)} | FOREIGN | {flag for flags in bench_options().values() for flag in flags}
    for span in spans(path):
        assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", span)) <= known, span
        words = span.split()
        if words[0] == "raysp" and len(words) > 1 and words[1].islower():
            assert split(words[1:]), span
            assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", span)) <= options(split(words[1:])[0]) | FOREIGN, span
        if span.startswith("python -m jobs.bench "):
            assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", span)) <= bench_options()[words[3]] | {"--help"}, span


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_has_two_rows_in_a_table(path):
    named = []
    for head, cells in table_rows(path):
        named = [] if head else [*named, *(re.findall(r"`(--[a-z][\w-]*)", cells[0]) if cells[0].startswith("`--") else cells[:1])]
        assert len(set(named)) == len(named), named


def test_every_explorer_and_topic_of_choice_is_documented():
    shown = {cell.split("`")[1] for _, cells in table_rows(ROOT / "raysp/explorers/README.md") for cell in cells[:1] if "`" in cell}
    assert set(EXPLORERS) <= shown


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_shell_lines_name_programs_and_options_that_exist(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for words in shell_lines(path):
        match words[0]:
            case "raysp":
                name, rest = split(words[1:])
                commands()[name].make_context(name, [word.replace("…", "") for word in rest])  # raises for options that do not exist
            case "make":
                assert set(words[1:]) <= targets, words
            case "python":
                assert words[1:3] == ["-m", "jobs.bench"]
                assert {word for word in words if word.startswith("--")} <= bench_options()[words[3]], words
            case "cluster/local.sh":
                script = (ROOT / "cluster/local.sh").read_text()
                assert all(f"  {word})" in script for word in words[1:] if not word.isdigit()), words
            case other:
                assert other in PROGRAMS, words


def test_environment_variables_are_documented():
    def named(paths):
        return {name for path in paths for name in re.findall(r"RAYSP_[A-Z_]+", path.read_text())}

    used = named((ROOT / "raysp").rglob("*.py"))
    for name in used:
        assert f"`{name}`" in (ROOT / "raysp/commands/README.md").read_text(), name
    deployed = named((ROOT / "cluster/grafana").rglob("*.yml"))
    for path in READMES:
        assert named([path]) <= used | deployed, path


def test_the_stores_tables_views_columns_and_macros_are_documented(tmp_path):
    place = tmp_path / "raysp.duckdb"
    Store.open(place).close()
    with Store.read(place) as store:
        query = (
            "SELECT table_name, list(column_name ORDER BY ordinal_position) AS columns FROM information_schema.columns WHERE table_schema = 'main' GROUP BY ALL"
        )
        there = {row["table_name"]: row["columns"] for row in store.sql(query).to_pylist()}
        macros = {row["function_name"] for row in store.sql("SELECT DISTINCT function_name FROM duckdb_functions() WHERE NOT internal").to_pylist()}
    readme = ROOT / "raysp/store/README.md"
    documented = {}
    for head, cells in table_rows(readme):
        if not head and len(cells) == 3:
            documented[cells[0].strip("`")] = [name.strip() for name in re.sub(r"\([^)]*\)", "", cells[2]).split(",")]
    assert {name: set(columns) for name, columns in documented.items()} == {name: set(columns) for name, columns in there.items()}
    assert {name for name in macros if f"`{name}(" not in readme.read_text()} == set()


# ---- what can be run is run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A home in which the first example of the README has been asked, with the files that the READMEs name."""
    folder = with_models(tmp_path_factory.mktemp("docs"))
    for name, content in FILES.items():
        (folder / name).write_text(content)
    return folder


@pytest.fixture
def command(place, cli, monkeypatch):
    """A command line in this process, in that home; what it printed."""

    def called(words):
        monkeypatch.setenv("RAYSP_HOME", str(place))
        monkeypatch.chdir(place)
        done = cli(*words)
        assert not done.code, f"{words}\n{done.err}"
        return done.out

    return called


def is_number(word):
    return re.fullmatch(r"[+−]?\d[\d.]*", word.strip("[],")) is not None


def as_number(word):
    return float(word.strip("[],").replace("−", "-"))


def test_the_first_example_prints_what_the_readme_shows(command):
    words = next(words for words in shell_lines(TOP) if words[0] == "raysp")
    printed = [line.split() for line in command([*words[1:], "--local"]).splitlines()]
    shown = [line.split() for line in blocks(TOP, "text")[0].splitlines()]
    for line in shown:
        texts = [word for word in line if not is_number(word)]
        same = [other for other in printed if [word for word in other if not is_number(word)] == texts]
        numbers = [as_number(word) for word in line if is_number(word)]
        found = [[as_number(word) for word in other if is_number(word)] for other in same]
        assert any(len(other) == len(numbers) and other == pytest.approx(numbers, abs=0.01) for other in found), line


QUERIES = [
    query.strip() for path in READMES for body in blocks(path, "sql") for query in re.sub(r"^--.*$", "", body, flags=re.MULTILINE).split(";") if query.strip()
]


def test_there_are_ten_queries_and_all_of_them_answer(command):
    assert len(QUERIES) >= 10
    for query in QUERIES:
        json.loads(command(["sql", query, "--json"]))


PYTHON = [(path, number) for path in READMES for number, _ in enumerate(blocks(path, "python"))]


@pytest.mark.parametrize(("path", "number"), PYTHON, ids=lambda value: str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value))
def test_python_runs(path, number, place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("RAYSP_HOME", str(place))
    exec(compile(blocks(path, "python")[number], str(path), "exec"), {"__name__": "readme"})


#: Commands that need a service; tests/runtime/test_service.py runs them.
SERVICE = {"up", "down", "status", "submit", "watch"}
RUN = [words[1:] for path in READMES for words in shell_lines(path) if words[0] == "raysp" and "RUN" not in words and words[1] not in SERVICE]
UNIQUE = [list(words) for words in dict.fromkeys(tuple(words) for words in RUN)]


@pytest.mark.parametrize("words", UNIQUE, ids=lambda words: " ".join(words)[:70])
def test_commands_run(words, command, place):
    """In the order of the READMEs; questions smaller than they are there, files and folders as they are named."""
    if words[0] == "run":
        spec = ROOT / words[1]
        assert spec.exists()
        command(["plan", "run", str(spec), "--local"])
        return
    proxy = [] if "--explorer" in words else ["--proxy", "linear"]
    checks = [*CHECKS, *proxy] if words[0] in LENSES else []
    command([*words, *SMALL.get(words[0], ()), *checks])
