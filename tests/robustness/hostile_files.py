"""A folder of files that nobody should give to raysp, and of a few good ones to combine them with."""

import json
import shutil

import numpy as np
from homes import with_models
from tiny_models import save

import raysp

PAIRS = [{"prompt": f"the film {i}", "completion": "was good" if i % 2 else "was bad"} for i in range(8)]
QUESTIONS = [{"prompt": "the film", "target": " good", "foil": " bad"}, {"prompt": "a good film", "target": " good", "foil": " bad"}]

TEXTS = {
    "null.jsonl": "null",
    "null.json": "null\n",
    "null.csv": "null",
    "nulls.jsonl": "null\nnull\n",
    "list.json": "[null]",
    "number.jsonl": "7",
    "words.jsonl": '"prompt"\n"target"',
    "empty.jsonl": "",
    "blank.jsonl": "\n\n \n",
    "braces.jsonl": "{}\n{}\n",
    "deep.json": "[" * 5000,
    "deep.jsonl": '{"prompt":' * 5000,
    "deepcell.jsonl": json.dumps({"prompt": "[" * 100_000, "completion": "x", "target": "x"}) + "\n",
    "digits.jsonl": '{"prompt": ' + "9" * 5000 + ', "target": 1}',
    "infinite.jsonl": '{"prompt": Infinity, "target": NaN}',
    "surrogate.jsonl": '{"prompt": "\\ud800 film", "target": "\\udfff", "completion": "\\ud800"}\n' * 8,
    "nul.jsonl": '{"prompt": "\\u0000", "target": " a", "completion": "b"}\n' * 8,
    "twice.jsonl": '{"prompt": "a", "prompt": "b"}',
    "control.jsonl": '{"prompt": "\x1b[31m red", "target": " a"}',
    "quote.csv": 'prompt,target\n"a,b\n',
    "ragged.csv": "prompt,target\na\nb,c,d\n",
    "header.csv": "prompt,target\n",
    "commas.csv": ",,,\n,,,\n",
    "feature.yaml": "lens: {kind: feature, model: llama, prompt: a b}",
    "data.yaml": "lens: {kind: data, model: llama, train: pairs.jsonl}",
    "empty.yaml": "",
    "null.yaml": "null",
    "list.yaml": "[1, 2]",
    "text.yaml": "some words",
    "bomb.yaml": "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)),
    "merge_bomb.yaml": "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12)),
    "deep.yaml": "[" * 3000,
    "deep_maps.yaml": "lens: " + "{kind: " * 3000,
    "itself.yaml": "lens: &a {kind: *a}",
    "key.yaml": "? [lens]\n: 1",
    "numbers.yaml": "1: 2\nlens: {3: 4}",
    "date.yaml": "name: 2001-99-99",
    "tag.yaml": "seed: !!int x",
    "python.yaml": "lens: !!python/object/apply:os.system [ls]",
    "digits.yaml": f"lens: {{kind: feature, prompt: a b}}\nseed: {'9' * 5000}",
    "hex.yaml": f"seed: 0x{'f' * 5000}",
    "binary.yaml": "name: !!binary x",
    "surrogate.yaml": 'lens: {kind: feature, prompt: "\\ud800"}',
    "nul.yaml": 'lens: {kind: feature, prompt: "a \\0 b"}',
    "nan.yaml": "lens: {kind: feature, prompt: a b}\nseed: .nan",
    "infinite.yaml": "lens: {kind: mechanistic, prompt: a b, ablation: clamp, clamp: .inf}",
    "documents.yaml": "a: 1\n---\nb: 2",
    "twice.yaml": "lens: {kind: feature}\nlens: {kind: data}",
    "lens_null.yaml": "lens: null",
    "lens_list.yaml": "lens: [feature]",
    "lens_text.yaml": "lens: feature",
    "kind_list.yaml": "lens: {kind: [feature]}",
    "function.yaml": "lens: {kind: function, function: os.system, n: 4}",
    "explorer_null.yaml": "lens: {kind: feature, prompt: a b}\nexplorer: null",
    "explorer_text.yaml": "lens: {kind: feature, prompt: a b}\nexplorer: spex",
    "validation_list.yaml": "lens: {kind: feature, prompt: a b}\nvalidation: [1]",
    "validation_key.yaml": "lens: {kind: feature, prompt: a b}\nvalidation: {1: 2}",
    "repeat.yaml": "lens: {kind: feature, prompt: a b}\nrepeat_on: {model: x}",
    "scores_deep.json": "[" * 5000,
    "scores_null.json": "null",
    "scores_words.json": '["a"]',
    "scores_keys.json": '{"a": 1}',
    "spans_deep.json": "[" * 5000,
    "spans_map.json": "{}",
    "words.txt": "some words\nmore words\n",
}
BYTES = {
    "latin.jsonl": '{"prompt": "café", "target": " a"}'.encode("latin-1"),
    "latin.yaml": "name: café".encode("latin-1"),
    "latin.txt": "café".encode("latin-1"),
    "utf16.jsonl": '{"prompt": "a"}'.encode("utf-16"),
    "bytes.parquet": b"PAR1" + bytes(100) + b"PAR1",
    "bytes.npz": b"PK\x03\x04" + bytes(100),
    "bytes.npy": b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(128) + b"\n",
    "bytes.jsonl.gz": b"\x1f\x8b\x08" + bytes(10),
    "bytes.gguf": b"GGUF" + bytes(100),
    "bytes.duckdb": bytes(8) + b"DUCK" + bytes(8192),
    "sqlite.duckdb": b"SQLite format 3\x00" + bytes(4096),
    "huge.yaml": b"# " + b"x" * (1 << 19),
}


def furnish(folder):
    """Make `folder` a home with these files, a tiny model `llama`, good data, and a store with a finished run `fn` of four components."""
    with_models(folder)
    for name, text in TEXTS.items():
        (folder / name).write_text(text)
    for name, content in BYTES.items():
        (folder / name).write_bytes(content)
    for name, rows in {"pairs.jsonl": PAIRS, "questions.jsonl": QUESTIONS}.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    save("llama", folder / "llama")
    shutil.copytree(folder / "llama", folder / "spoilt")
    (folder / "spoilt" / "config.json").write_text("[" * 5000)
    masks = np.random.default_rng(0).random((60, 4)) < 0.5
    np.savez(folder / "game.npz", masks=masks, values=masks.sum(axis=1).astype(float))
    np.savez(folder / "objects.npz", masks=np.array([{}], dtype=object), values=np.ones(1), allow_pickle=True)
    lens = raysp.FunctionLens(lambda masks: masks[:, 0] + 2.0 * masks[:, 1] * masks[:, 2], n=4, labels=("a", "b\x1b[31m", "[/c]", "d"), name="fn")
    raysp.run(raysp.RunSpec(lens=lens, explorer=raysp.Exhaustive(), local=True, name="fn", store=str(folder / "raysp.duckdb")))
    return folder
