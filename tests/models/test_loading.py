"""Models are found by name, known by content, and held once."""

import gc
import json
import weakref
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import byte_tokenizer, make, save
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from raysp.errors import DoesNotFitError, UserError
from raysp.home import home
from raysp.models import resident as resident_module
from raysp.models.identity import file_hash, model_hash
from raysp.models.loading import checkpoint_bytes, choose_dtype, following, load, required_bytes
from raysp.models.memory import available_bytes, is_out_of_memory
from raysp.models.resident import resident
from raysp.specs.lenses import AUTO_DTYPE, FeatureLens, ModelOptions
from raysp.specs.run import RunSpec, resolve


def options(folder, **rest):
    return ModelOptions(model=str(folder), device="cpu", **{"dtype": "float32", **rest})


def test_the_task_follows_from_the_architecture(tmp_path):
    assert load(options(save("llama", tmp_path / "a"))).task == "causal"
    assert load(options(save("llama-classifier", tmp_path / "b"))).task == "classifier"
    assert load(options(save("bert-classifier", tmp_path / "c"))).task == "classifier"


@pytest.mark.parametrize(("kind", "name"), [("bert-masked", "BertForMaskedLM"), ("bert-both-ways", "BertLMHeadModel")])
def test_a_model_that_reads_later_tokens_is_not_taken_for_a_causal_one(tmp_path, kind, name):
    with pytest.raises(UserError, match=rf"model: .* is not a causal language model: {name} also reads the tokens after"):
        load(options(save(kind, tmp_path)))


def test_an_encoder_that_was_made_a_decoder_is_a_causal_model(tmp_path):
    assert load(options(save("bert-decoder", tmp_path))).task == "causal"


def test_equal_weights_are_one_model_wherever_they_lie(tmp_path):
    one, two = (resident(options(save("llama", tmp_path / name))) for name in "ab")
    assert one is two
    assert resident(options(tmp_path / "a", dtype="float16")) is not one


def test_weights_are_read_as_they_were_saved(tmp_path):
    loaded = load(options(save("gpt2", tmp_path / "a")))
    for ours, theirs in zip(loaded.model.state_dict().values(), make("gpt2").state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())


def test_pickled_weights_load_when_they_are_allowed(tmp_path):
    folder = tmp_path / "a"
    save("llama", folder)
    torch.save(make("llama").state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert load(options(folder, allow_pickle=True)).task == "causal"


def adapter(folder, base, **config):
    """A trained-looking LoRA adapter of a model, saved by PEFT."""
    torch.manual_seed(1)
    model = get_peft_model(make("llama"), LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **config}))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(folder)
    return model.eval()


def test_a_folder_with_an_adapter_is_its_base_model_with_the_adapter_merged(tmp_path):
    base = save("llama", tmp_path / "base", begins=True)
    theirs = adapter(tmp_path / "adapter", base)
    loaded = load(options(tmp_path / "adapter"))
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.allclose(loaded.model(ids).logits, theirs(ids).logits, atol=1e-5)
        assert not torch.allclose(loaded.model(ids).logits, load(options(base)).model(ids).logits, atol=1e-2)
    assert type(loaded.model) is type(make("llama"))  # no layer of PEFT is left
    assert loaded.tokenizer("a")["input_ids"] == byte_tokenizer(begins=True)("a")["input_ids"]
    assert required_bytes(options(tmp_path / "adapter")) == required_bytes(options(base))


def test_an_adapter_is_known_by_its_weights_its_configuration_and_its_base(tmp_path):
    base = save("llama", tmp_path / "base")
    for name, config in (("one", {}), ("same", {}), ("other", {"lora_alpha": 16})):
        adapter(tmp_path / name, base, **config)
    one, same, other = (load(options(tmp_path / name)).weights for name in ("one", "same", "other"))
    assert one == same
    assert len({one, other, load(options(base)).weights}) == 3


def test_an_adapter_without_its_base_is_one_line(tmp_path):
    adapter(tmp_path / "adapter", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"model: .*adapter' is an adapter of .*nowhere, which .*; make its base model available") as caught:
        load(options(tmp_path / "adapter"))
    assert "\n" not in str(caught.value)


def resized(folder, **config):
    """A model as `make` makes it, but of another size."""
    save("llama", folder)
    known = make("llama").config
    type(make("llama"))(type(known)(**(known.to_dict() | config))).save_pretrained(folder)
    return folder


UNUSABLE_ADAPTERS = {
    "no base": (
        lambda folder, _: changed(folder, "adapter_config.json", base_model_name_or_path=None),
        "does not name its base model; write base_model_name_or_path into",
    ),
    "an adapter of an adapter": (
        lambda folder, other: adapter(folder, adapter(other, "x") and str(other)),
        "is an adapter of .*, which is an adapter too; merge",
    ),
    "an adapter of itself": (lambda folder, _: changed(folder, "adapter_config.json", base_model_name_or_path=str(folder)), "which is an adapter too; merge"),
    "another architecture": (lambda folder, other: adapter(folder, save("gpt2", other)), "Target modules .* not found in the base model"),
    "a wider base": (lambda folder, other: adapter(folder, str(resized(other, hidden_size=96, head_dim=16))), r"\(size mismatch for .*\); name the base model"),
    "a deeper base": (
        lambda folder, other: adapter(folder, str(resized(other, num_hidden_layers=4))),
        "it lacks 8 weights for modules of the base model, such as",
    ),
    "a shallower base": (
        lambda folder, other: adapter(folder, str(resized(other, num_hidden_layers=1))),
        "4 of its weights belong to modules that the base model does not have",
    ),
    "a rank of zero": (lambda folder, _: changed(folder, "adapter_config.json", r=0), "positive integer"),
    "an unknown method": (lambda folder, _: changed(folder, "adapter_config.json", peft_type="NOTHING"), "NOTHING"),
    "truncated weights": (lambda folder, _: (folder / "adapter_model.safetensors").write_bytes(b"\x08"), "header too small"),
    "no weights": (lambda folder, _: (folder / "adapter_model.safetensors").unlink(), "without safetensors weights"),
}


@pytest.mark.parametrize("name", UNUSABLE_ADAPTERS)
def test_an_adapter_that_cannot_be_merged_is_one_line(tmp_path, name):
    spoil, message = UNUSABLE_ADAPTERS[name]
    adapter(tmp_path / "adapter", save("llama", tmp_path / "base"))
    spoil(tmp_path / "adapter", tmp_path / "other")
    with pytest.raises(UserError, match=rf"model: .*adapter' .*{message}") as caught:
        load(options(tmp_path / "adapter"))
    assert "\n" not in str(caught.value)


def test_a_hash_is_remembered_until_the_file_changes(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    first = file_hash(path)
    assert json.loads((home() / "hashes.json").read_text())[str(path.resolve())][2] == first
    assert file_hash(path) == first
    path.write_bytes(b"other")
    assert file_hash(path) != first


def test_a_damaged_memory_of_hashes_is_rebuilt(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    first = file_hash(path)
    (home() / "hashes.json").write_text("{")
    assert file_hash(path) == first


def test_a_models_hash_is_of_weights_and_of_what_the_configuration_does_with_them(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x").write_bytes(b"1")
        (tmp_path / folder / "y").write_bytes(b"2")
        (tmp_path / folder / "config.json").write_text(f'{{"sliding_window": 8, "transformers_version": "5.{folder}"}}')
    a, b = ([tmp_path / folder / name for name in "xy"] for folder in "ab")
    configs = [tmp_path / folder / "config.json" for folder in "ab"]
    assert model_hash(a, configs[0]) == model_hash(b[::-1], configs[1])
    configs[1].write_text('{"sliding_window": 9}')
    assert model_hash(a, configs[0]) != model_hash(b, configs[1])
    (tmp_path / "b" / "y").write_bytes(b"3")
    assert model_hash(a, configs[0]) != model_hash(b, configs[0])


def changed(folder, name, **fields):
    """The folder, with some fields of one of its JSON files set."""
    path = Path(folder) / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | fields))
    return folder


@pytest.mark.parametrize(
    ("kind", "name", "fields"),
    [
        ("bert-classifier", "tokenizer_config.json", {"do_lower_case": False}),
        ("llama", "tokenizer_config.json", {"add_prefix_space": True}),
        ("llama", "tokenizer_config.json", {"bos_token": "</s>"}),
        ("llama", "tokenizer_config.json", {"chat_template": "{{ messages }}"}),
        ("llama", "generation_config.json", {"eos_token_id": 7}),
        ("llama", "config.json", {"rms_norm_eps": 0.1}),
    ],
)
def test_what_changes_ids_or_scores_makes_another_model(tmp_path, kind, name, fields):
    """Equal weights and vocabulary are not enough: the second would be given the first's tokenizer."""
    one, other = (save(kind, tmp_path / folder) for folder in ("one", "other"))
    first, second = resident(options(one)), resident(options(changed(other, name, **fields)))
    assert first is not second
    assert (first.loaded.weights, first.loaded.tokens) != (second.loaded.weights, second.loaded.tokens)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("tokenizer_config.json", {"model_max_length": 99}),
        ("config.json", {"transformers_version": "0", "use_cache": False}),
        ("generation_config.json", {"transformers_version": "0"}),
    ],
)
def test_what_changes_neither_ids_nor_scores_does_not(tmp_path, name, fields):
    one, other = (save("llama", tmp_path / folder) for folder in ("one", "other"))
    assert resident(options(one)) is resident(options(changed(other, name, **fields)))


def test_a_cased_tokenizer_beside_an_uncased_one_gives_its_own_ids(tmp_path):
    uncased, cased = (save("bert-classifier", tmp_path / name) for name in ("uncased", "cased"))
    changed(uncased, "tokenizer_config.json", do_lower_case=True)
    changed(cased, "tokenizer_config.json", do_lower_case=False)
    ids = [resident(options(folder)).loaded.tokenizer("The FILM")["input_ids"] for folder in (uncased, cased)]
    assert ids == [AutoTokenizer.from_pretrained(folder)("The FILM")["input_ids"] for folder in (uncased, cased)]


def test_a_folder_that_is_written_again_is_read_again(tmp_path):
    folder = save("llama", tmp_path)
    first = resident(options(folder))
    save("gpt2", tmp_path)
    assert type(resident(options(folder)).loaded.model) is not type(first.loaded.model)


@pytest.mark.parametrize(("flags", "dtype"), [("fpu avx2", torch.float32), ("fpu avx512_bf16", torch.bfloat16), ("fp asimd bf16", torch.bfloat16)])
def test_bfloat16_is_chosen_only_where_the_processor_computes_in_it(flags, dtype, monkeypatch):
    monkeypatch.delenv(AUTO_DTYPE, raising=False)
    monkeypatch.setattr("raysp.models.loading.Path.read_text", lambda _: f"flags : {flags}\n")
    assert choose_dtype("auto", torch.device("cpu")) == dtype


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_environment_sets_what_auto_chooses_and_nothing_else(dtype, monkeypatch):
    monkeypatch.setenv(AUTO_DTYPE, dtype)
    cpu = torch.device("cpu")
    assert (choose_dtype("auto", cpu), choose_dtype("float32", cpu)) == (getattr(torch, dtype), torch.float32)
    asked = resolve(RunSpec(lens=FeatureLens(prompt="a b")))
    assert asked.lens.dtype == dtype  # a cluster's processes do not see the environment of the one who asks


def test_an_environment_that_names_no_dtype_is_one_line(monkeypatch):
    monkeypatch.setenv(AUTO_DTYPE, "half")
    with pytest.raises(UserError, match="RAYSP_AUTO_DTYPE: 'half' is not a dtype; set it to one of float32, bfloat16, float16"):
        choose_dtype("auto", torch.device("cpu"))


def test_a_checkpoint_without_a_head_is_refused(tmp_path):
    """Missing weights would be drawn at random: another model in every process, under one name."""
    folder = tmp_path / "bare"
    save("bert-classifier", folder)
    make("bert-classifier").bert.save_pretrained(folder)
    with pytest.raises(UserError, match=r"model: .* lacks \d+ weights of a causal language model.*saved with its head"):
        load(options(folder))


def test_a_damaged_file_of_weights_is_one_line(tmp_path):
    save("llama", tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(UserError, match=r"model: .* cannot be loaded") as caught:
        load(options(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_model_that_does_not_fit_takes_the_place_of_others(tmp_path, monkeypatch):
    first = resident(options(save("llama", tmp_path / "a")))
    save("gpt2", tmp_path / "b")
    full, failed = [True, False], []

    def to(model, *args, **kwargs):
        if full.pop(0):
            failed.append(weakref.ref(model))
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert failed[0]() is None  # what did not fit is gone before another try
        return model

    monkeypatch.setattr(torch.nn.Module, "to", to)
    assert resident(options(tmp_path / "b")) is not first
    monkeypatch.undo()
    assert resident(options(tmp_path / "a")) is first  # it had to leave, but is still held here: it is not loaded twice
    left = weakref.ref(first)
    resident_module._residents.clear()
    del first
    gc.collect()
    assert left() is None


def test_a_model_that_fits_nowhere_is_one_line(tmp_path, monkeypatch):
    save("gpt2", tmp_path / "b")

    def to(model, *args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.nn.Module, "to", to)
    with pytest.raises(DoesNotFitError, match="does not fit into the memory of cpu in float32; use a smaller model"):
        resident(options(tmp_path / "b"))


def test_the_size_of_a_checkpoint_is_known_before_it_is_loaded(tmp_path):
    for kind in ("llama", "gpt2", "bert-classifier"):
        folder = Path(save(kind, tmp_path / kind))
        for dtype in ("float32", "bfloat16"):
            model = load(options(folder, dtype=dtype)).model
            held = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
            assert checkpoint_bytes(folder, getattr(torch, dtype)) == held


def test_a_pickled_checkpoint_is_sized_by_the_dtype_of_its_configuration(tmp_path):
    (tmp_path / "config.json").write_text('{"torch_dtype": "float16"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"0" * 1000)
    assert checkpoint_bytes(tmp_path, torch.float32) == 2000


def leaves(monkeypatch, tmp_path, size, *, cache=0):
    """A machine whose control group leaves so many bytes, some of them held by the page cache."""
    files = tuple(tmp_path / name for name in ("limit", "used", "statistics"))
    for file, text in zip(files, (str(10**9), str(10**9 - size + cache), f"anon 7\ninactive_file {cache}"), strict=True):
        file.write_text(text)
    monkeypatch.setattr("raysp.models.memory.CGROUPS", (files,))


def test_what_a_control_group_leaves_is_available_and_the_page_cache_with_it(tmp_path, monkeypatch):
    leaves(monkeypatch, tmp_path, 12_345, cache=1000)
    assert available_bytes(torch.device("cpu")) == 12_345


def test_on_a_cpu_the_least_recently_used_models_leave_before_another_is_loaded(tmp_path, monkeypatch):
    """The kernel ends a process that allocates too much: nothing would be raised that could be caught."""
    monkeypatch.setattr(resident_module, "_residents", OrderedDict())  # those of other tests aside
    folders = [save(kind, tmp_path / kind) for kind in ("llama", "gpt2", "neox")]
    old, used = (resident(options(folder)) for folder in folders[:2])
    assert resident(options(folders[0])) is old  # now the other is the least recently used
    size = checkpoint_bytes(Path(folders[2]), torch.float32)
    left = [size, 2 * size]  # of the memory: too little until one model is gone
    monkeypatch.setattr("raysp.models.memory._machine", lambda: left.pop(0) if len(left) > 1 else left[0])
    third, left_first = resident(options(folders[2])), weakref.ref(used)
    del used
    gc.collect()
    assert left_first() is None
    assert resident(options(folders[2])) is third
    assert resident(options(folders[0])) is old


def test_a_model_larger_than_the_memory_is_refused_before_it_is_loaded(tmp_path, monkeypatch):
    folder = save("gpt2", tmp_path / "b")
    leaves(monkeypatch, tmp_path, checkpoint_bytes(Path(folder), torch.float32))
    with pytest.raises(DoesNotFitError, match="does not fit into the memory of cpu in float32; use a smaller model"):
        resident(options(folder))


@pytest.mark.parametrize(
    "message", ["CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "[enforce fail] DefaultCPUAllocator: can't allocate memory"]
)
def test_memory_that_runs_out_beside_torchs_own_is_known_as_such(message):
    assert is_out_of_memory(RuntimeError(message))
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


# ---- texts that follow another


def metaspace(scheme):
    """A tokenizer that writes blanks as ▁ and puts one before a text."""
    pieces = ["▁", "\n", "!", "a", "n", "d", "▁and", "and", "▁Mary", "4", "5", "45", "▁45"]
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), *((piece, -float(len(pieces) - len(piece))) for piece in pieces)], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=True)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
@pytest.mark.parametrize(("text", "pieces"), [("!", ["!"]), ("45", ["45"]), ("and", ["and"]), (" Mary", ["▁Mary"]), (" and", ["▁and"])])
def test_a_text_that_follows_another_has_no_blank_that_was_not_written(scheme, text, pieces):
    if scheme == "always" and not text.startswith(" "):
        pytest.skip("such a tokenizer puts a blank before every word, at a beginning or not")
    tokenizer = metaspace(scheme)
    assert tokenizer.convert_ids_to_tokens(following(tokenizer, text)) == pieces


@pytest.mark.parametrize("text", [" Rome", "Rome", "!", "45", "\nnew", "  two", "", "naïve"])
def test_tokenizers_that_add_no_blank_read_it_as_it_stands(text):
    tokenizer = byte_tokenizer()
    assert following(tokenizer, text) == tokenizer(text, add_special_tokens=False)["input_ids"]
