"""Real models of a few thousand random weights, saved as model folders, with a small real tokenizer. Float32 or float64, never trained."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertLMHeadModel,
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForCausalLM,
    NystromformerConfig,
    NystromformerForSequenceClassification,
    OPTConfig,
    OPTForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

# Two threads that wait for one another take minutes on a busy machine for what one does in seconds.
torch.set_num_threads(1)

CORPUS = [
    "Her acting never fails to impress. The film was long, but the ending was good!",
    "Review: The movie was not bad at all\nSentiment: positive negative",
    "A quiet letter arrived on Monday; nobody in the city read it. Answer: yes no",
]
VOCABULARY = 360
CAUSAL = ("llama", "gpt2", "neox")


def byte_tokenizer(*, begins: bool = False, masks: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer as GPT-2's, trained on three lines; `begins` adds a begin-of-text token as Llama's does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<mask>"]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    extra = {"mask_token": "<mask>"} if masks else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", **extra)


def sentence_piece_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that puts a blank before every text, as those of Llama-2, Mistral and TinyLlama; it has a token for a word after a blank, but not always for the word alone."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    special = ["<s>", "</s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(["say Paris say Rome say not"] * 9 + CORPUS[:1], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def word_piece_tokenizer() -> PreTrainedTokenizerFast:
    """A lower-casing word-piece tokenizer as BERT's, with [CLS] and [SEP]."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")


def make(kind: str, context: int = 256, window: int = 8, **head: object) -> torch.nn.Module:
    """A model by the name of its architecture that reads `context` tokens (in a `window` if it has one), for a classifier with what `head` says. Weights are large enough that every token matters."""
    torch.manual_seed(0)
    wide = {"vocab_size": VOCABULARY, "max_position_embeddings": context, "initializer_range": 0.3, "bos_token_id": 0, "eos_token_id": 1}
    llama = {**wide, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2}
    small = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3, "bos_token_id": 0, "eos_token_id": 1}
    bert = {"vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "initializer_range": 0.3}
    bert |= {"max_position_embeddings": context}
    labels = {"id2label": {0: "bad", 1: "fine", 2: "good"}, **head}
    made = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**llama)),
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**small, n_positions=256)),
        "neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**wide, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)),
        "bloom": lambda: BloomForCausalLM(
            BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3, bos_token_id=0, eos_token_id=1)
        ),
        "window": lambda: MistralForCausalLM(MistralConfig(**llama, sliding_window=window)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**llama)),
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**llama, head_dim=16)),
        "hybrid": lambda: Qwen3NextForCausalLM(
            Qwen3NextConfig(
                **{**llama, "num_attention_heads": 4},
                head_dim=16,
                num_experts=0,
                layer_types=["linear_attention", "full_attention"],
                linear_num_value_heads=8,
                linear_num_key_heads=4,
                linear_key_head_dim=8,
                linear_value_head_dim=8,
                linear_conv_kernel_dim=3,
            )
        ),
        "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**llama, head_dim=16, sliding_window=8)),
        "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**llama, head_dim=16, sliding_window=8)),
        "phi": lambda: PhiForCausalLM(PhiConfig(**{**llama, "num_key_value_heads": 6})),
        "opt": lambda: OPTForCausalLM(
            OPTConfig(vocab_size=VOCABULARY, hidden_size=48, ffn_dim=64, num_hidden_layers=2, num_attention_heads=6, init_std=0.3, word_embed_proj_dim=48)
        ),
        "llama-classifier": lambda: LlamaForSequenceClassification(LlamaConfig(**llama, **labels)),
        "bert-classifier": lambda: BertForSequenceClassification(BertConfig(**bert, **labels)),
        "bert-masked": lambda: BertForMaskedLM(BertConfig(**bert)),
        "bert-both-ways": lambda: BertLMHeadModel(BertConfig(**bert)),
        "bert-decoder": lambda: BertLMHeadModel(BertConfig(**bert, is_decoder=True)),
        "nystromformer-classifier": lambda: NystromformerForSequenceClassification(
            NystromformerConfig(**bert, **labels, num_landmarks=8, segment_means_seq_len=64)  # of inputs of other lengths its attention makes an error
        ),
    }
    return made[kind]().eval()


def save(kind: str, folder: Path, *, begins: bool = False, masks: bool = False, tokenizer: PreTrainedTokenizerFast | None = None, **settings: object) -> str:
    """A folder of that model with its tokenizer, as a string to give to a lens; `settings` are those of `make`."""
    make(kind, **settings).save_pretrained(folder)
    if tokenizer is None:
        tokenizer = word_piece_tokenizer() if kind.startswith(("bert", "nystromformer")) else byte_tokenizer(begins=begins, masks=masks)
    tokenizer.save_pretrained(folder)
    return str(folder)
