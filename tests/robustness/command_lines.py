"""Command lines with a mistake in them, or at the limit of what is accepted; each is one line of text as a shell splits it."""

FEATURE = "feature --model llama --dtype float32 --device cpu --local --explorer exhaustive --prompt 'a film' --target good --foil bad"
MODEL = "mechanistic --model llama --dtype float32 --device cpu --local --explorer singles --heldout 0 --components heads:0 --target good --foil bad"
TRAIN = "data --model llama --dtype float32 --device cpu --local --explorer singles --heldout 0 --low-pairs 0 --top 0 --random 0 --epochs 1 --rank 1"

#: Values that no option of that kind takes, or that only just pass.
WHOLE = ("-1", "1.5", "x", "", "1e3", "nan", "9223372036854775808", "9" * 4400, "2147483648", "٣", " 7 ", "0x10", "1_000")
REAL = ("-1", "x", "", "nan", "inf", "-inf", "1e39", "1e400", "9" * 400)
FILES = [
    "null.jsonl",
    "null.json",
    "null.csv",
    "nulls.jsonl",
    "list.json",
    "number.jsonl",
    "words.jsonl",
    "empty.jsonl",
    "blank.jsonl",
    "braces.jsonl",
    "deep.json",
    "deep.jsonl",
    "deepcell.jsonl",
    "digits.jsonl",
    "infinite.jsonl",
    "surrogate.jsonl",
    "nul.jsonl",
    "twice.jsonl",
    "control.jsonl",
    "quote.csv",
    "ragged.csv",
    "header.csv",
    "commas.csv",
    "latin.jsonl",
    "utf16.jsonl",
    "bytes.parquet",
    "bytes.jsonl.gz",
    "bytes.npz",
    "folder",
    "loop",
    "nowhere.jsonl",
    "/dev/null",
    ".",
    "/",
    "''",
    "~nobody/x",
    "hf:",
    "hf:a:b:c:d",
    "corpus:",
    "corpus:x",
    "hf:../../etc",
]
SPECS = [
    "empty",
    "null",
    "list",
    "text",
    "bomb",
    "merge_bomb",
    "deep",
    "deep_maps",
    "itself",
    "key",
    "numbers",
    "date",
    "tag",
    "python",
    "digits",
    "hex",
    "binary",
    "surrogate",
    "nul",
    "nan",
    "infinite",
    "documents",
    "twice",
    "lens_null",
    "lens_list",
    "lens_text",
    "kind_list",
    "function",
    "explorer_null",
    "explorer_text",
    "validation_list",
    "validation_key",
    "repeat",
    "latin",
    "huge",
    "nowhere",
]
QUERIES = (
    "", " ", ";", "SELECT", "SELECT 1; SELECT 2", "DROP TABLE runs", "SELECT '[/b]'", "SELECT '[bold]' AS \"[/b]\"", "SELECT date ''20000-01-01''", "SELECT ''infinity''::date",
    "SELECT ''-infinity''::timestamp", "SELECT timestamp ''290000-01-01''", "SELECT [date ''20000-01-01'']", "SELECT {''a'': timestamp ''290000-01-01''}", "SELECT interval 1 month",
    "SELECT ''nan''::double, ''inf''::float", "SELECT chr(27) || ''[31m''", "SELECT chr(0)", "SELECT ''x''::blob", "SELECT NULL", "SELECT 1 WHERE false", "SELECT map{1: 2}", "SELECT ''101''::bit",
    "SELECT uuid()", "SELECT * FROM nothing", "SELECT error(''x'')", "SELECT 1/0", "SELECT 2**10000", "FROM runs", "SHOW TABLES", "DESCRIBE runs", "EXPLAIN SELECT 1", "PRAGMA version", "SET threads = 1",
    "SELECT * FROM read_csv(''/etc/passwd'')", "COPY runs TO ''x.csv''", "ATTACH ''x.duckdb''", "INSTALL httpfs", "SELECT 1 AS a, 2 AS a", "SELECT " + "(" * 3000, "SELECT " + "1+" * 20000 + "1",
    "SELECT " + "[" * 2000, "WITH RECURSIVE t AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM t) SELECT i FROM t LIMIT 3", "SELECT unnest(", "\\", "--", "/*", "SELECT $1", "SELECT ?", 'SELECT "', "VALUES (1)",
)  # fmt: skip


def quoted(text):
    """A text as one word of a shell."""
    return "'" + text.replace("''", "'\"'\"'") + "'"


def options(command, names, values):
    """The command with each of these options, given each of these values."""
    return [f"{command} {name}={quoted(value)}" for name in names for value in values]


COMMANDS = {
    "the command itself": ["", "nothing", "--nothing", "feature extra", "--version extra", "run", "run a b", "docs nothing", "show", "sql", "-x", "feature --prompt", "''", "'\x1b[31m'", "'[/b]'"],
    "whole numbers of a run": options(FEATURE, ("--seed", "--limit", "--evaluators", "--gpus", "--threads", "--budget", "--heldout"), WHOLE),
    "whole numbers of a feature lens": options(FEATURE, ("--max-new-tokens", "--top", "--low-pairs"), WHOLE[:9]),
    "limits of the machine": [f"{FEATURE} --threads 100000", f"{FEATURE} --threads 1024", f"{FEATURE} --seed 9223372036854775807", f"{FEATURE} --seed 9223372036854775808",
        f"{FEATURE} --budget 2147483647", f"{FEATURE} --device cuda:99999", f"{FEATURE} --device nothing", f"{FEATURE} --device ''", f"{FEATURE} --device meta", f"{FEATURE} --dtype float8"],
    "texts of a feature lens": [*options(FEATURE, ("--unit", "--ablation", "--value", "--explorer", "--index", "--name", "--template", "--question", "--foil"), ("", "[/b]", "\x1b[31m", "{x}", "{prompt}{prompt}", "a" * 5000, "🙂")),
        f"{FEATURE} --date 20000-01-01", f"{FEATURE} --date 2001-99-99", f"{FEATURE} --chat", f"{FEATURE} --unit delimiter", f"{FEATURE} --unit delimiter --delimiter ''", f"{FEATURE} --ablation replace"],
    "spans": options(f"{FEATURE} --unit spans", ("--spans",), ("[" * 5000, "[]", "[[0, 1e99]]", "[[0,NaN]]", "[[0,Infinity]]", "[[" + "9" * 5000 + ",1]]", "[[0]]", "[null]", "{}", "[[1,0]]", "[[true,false]]", "nowhere", "folder", "latin.txt", "spans_deep.json", "spans_map.json", "null.json", "/dev/null", "a" * 5000)),
    "prompt files": options("feature --local --model llama", ("--prompt-file",), ("nowhere", "folder", "loop", "latin.txt", "/dev/null", "a" * 5000, "")),
    "sets of prompts": options("feature --local --model llama --target good", ("--prompts",), FILES),
    "prompts of a mechanistic lens": options(MODEL, ("--prompts",), FILES),
    "training sets": options(TRAIN, ("--train",), FILES),
    "queries of a training set": options(f"{TRAIN} --train pairs.jsonl", ("--queries",), FILES[:12]),
    "references": options(f"{MODEL} --prompt 'a film' --ablation mean", ("--references",), ("null.json", "deep.json", "latin.txt", "folder", "nowhere", "/dev/null", "words.txt")),
    "numbers of a mechanistic lens": [*options(f"{MODEL} --prompt 'a film' --ablation clamp", ("--clamp",), REAL), *options(f"{MODEL} --prompt 'a film'", ("--layers", "--positions", "--components"), ("", "x", "-1", "0-", "9" * 400, "0-999999999999", "heads:", "neurons:0", "1,,2", "٣")),
        *options(f"{MODEL} --prompt 'a film'", ("--group", "--keep"), ("0", "-1", "nan", "1e400", "9" * 30))],
    "tasks": ["task nothing", *options("task ioi --model llama", ("--size", "--seed"), ("-1", "0", "x", "1e3", "9" * 30)), "task ioi --model llama --size 2 -o folder", "task ioi --model llama --size 2 -o nowhere/x", "task ioi --model nowhere"],
    "recipes": [*options(f"{TRAIN} --train pairs.jsonl", ("--rank", "--epochs", "--batch-size", "--max-tokens", "--components", "--limit", "--training-seed", "--seeds", "--query-count"), ("0", "-1", "x", "9" * 30)),
        *options(f"{TRAIN} --train pairs.jsonl", ("--alpha", "--learning-rate", "--weight-decay", "--warmup"), REAL), *options(f"{TRAIN} --train pairs.jsonl", ("--adapted-layers", "--target-modules", "--columns", "--group-by", "--fraction"), ("", "x", "last:", "last:0", "last:" + "9" * 30, "=", "a=b=c", ",,"))],
    "searches of a recipe": [f"tune-recipe {name}.yaml --local" for name in SPECS[::4]] + [f"tune-recipe data.yaml --local {words}" for words in ("--trials 0", "--trials x", "--minutes nan", "--minutes -1", "--minutes 1e400", "-o folder", "-o nowhere/x.yaml", "-o ''")] + ["tune-recipe feature.yaml --local"],
    "models": options("feature --local --prompt 'a b' --target a", ("--model",), ("", "nowhere", "folder", "bytes.gguf", "spoilt", "null.json", "../..", "a/b/c", "hf_token@x", "/dev/null", "a" * 5000, "https://user:secret@host/model", "[/b]")),
    "explorers": [*options(FEATURE.replace("exhaustive", "screen"), ("--scores", "--top-k", "--order"), ("", "x", "scores_deep.json", "scores_null.json", "scores_words.json", "scores_keys.json", "bytes.npy", "bytes.parquet", "folder", "nan", "-1", "1e400", "9" * 400)),
        *options(FEATURE.replace("exhaustive", "proxyspex"), ("--max-order", "--until-r2", "--until-width", "--keep", "--proxy"), ("0", "-1", "nan", "inf", "x", "9" * 30)), *options(FEATURE.replace("exhaustive", "spex"), ("--b", "--decoder"), ("0", "-1", "99", "x"))],
    "specs": [f"{command} {name}.yaml --local" if command == "run" else f"{command} {name}.yaml" for command in ("run", "plan run") for name in SPECS] + ["run folder", "run loop", "run /dev/null", "run ''", "run " + "a" * 5000],
    "SQL": [f"sql {quoted(query)}" for query in QUERIES] + [f"sql {quoted(query)} --format {form}" for query in QUERIES[6:24] for form in ("csv", "json", "parquet")],
    "limits of SQL": [*options("sql 'SELECT 1'", ("--timeout",), ("0", "-1", "nan", "inf", "1e300", "1e9", "x", "")), "sql 'SELECT 1' --format xml", "sql 'SELECT 1' --store folder", "sql 'SELECT 1' --store bytes.duckdb", "sql 'SELECT 1' --store sqlite.duckdb", "sql 'SELECT 1' --store words.txt", "sql 'SELECT 1' --store /dev/null", "sql 'SELECT 1' --store nowhere/x", "sql 'SELECT 1' --store loop"],
    "runs": ["runs --store nowhere", "runs --store folder", "runs --json", "runs", "show nothing", "show fn", "show fn --json", "show ''", "show last", "show %", "show \"' OR 1=1 --\"", "show '[/b]'", "resume nothing", "resume fn", "compare fn", "compare fn fn", "compare fn nothing", "report fn -o folder", "report fn -o nowhere/x.html", "report fn -o ''", "report nothing", "report fn -o fn.html", "report fn -o /dev/full"],
    "predictions": [*options("predict fn", ("--removed", "--kept", "--query"), ("", "9" * 30, "-1", "x", "1,,2", "0,0", "[/c]", "b\x1b[31m", "1.5", ",", "٣")), "predict fn", "predict fn --removed 1 --exact", "predict nothing --removed 1"],
    "actions": ["prune fn", "lds fn", "select fn --drop harmful:1", "prune nothing", *options("select fn", ("--drop", "--keep"), ("", "x", "harmful:" + "9" * 400, "best:nan%", "harmful:1e400%", "best:-1")), *options("prune fn", ("--keep", "--best-of"), ("nan", "-1", "1e400")), *options("lds fn", ("--subsets", "--fraction", "--brittleness"), ("-1", "nan", "x", "9" * 400))],
    "games": [*options("explain-game", ("--index",), ("x",)), *[f"explain-game {name}" for name in ("nowhere.npz", "folder", "bytes.npz", "objects.npz", "bytes.npy", "bytes.parquet", "null.json", "null.csv", "deep.json", "latin.jsonl", "words.txt", "/dev/null", "''", "loop", "game.npz")],
        *options("explain-game game.npz", ("--heldout", "--top", "--subset", "--seed", "--max-order", "--proxy", "--output"), ("-1", "0", "nan", "x", "9" * 30, "folder", "nowhere/x.csv", "x.xyz", ""))],
}  # fmt: skip
