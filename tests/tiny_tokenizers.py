"""Tokenizers of several kinds, each of fewer than 400 tokens."""

import functools
import json

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

SPECIALS = ["<pad>", "<eos>", "<bos>", "<unk>"]
NAMES = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
KINDS = ("byte-level", "byte-level with a space", "sentencepiece", "llama", "words", "unigram")
_TEXT = "It glows. Wen ran. Text: the heron is fed and the lamp hums Is it so? Reasoning: Final Answer: yes no"


def _trained(model, pre_tokenizer, trainer):
    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizer
    made.train_from_iterator([_TEXT] * 4, trainer)
    return made


def _byte_level(add_prefix_space):
    special = {"special_tokens": SPECIALS, "initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    splits = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    made = _trained(models.BPE(), splits, trainers.BpeTrainer(vocab_size=390, **special))
    made.decoder = decoders.ByteLevel()
    return made


def _sentencepiece():
    pieces = [*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256))]
    made = _trained(
        models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True),
        pre_tokenizers.Metaspace(prepend_scheme="first", split=False),
        trainers.BpeTrainer(vocab_size=390, special_tokens=pieces),
    )
    made.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first"), decoders.Fuse()]
    )
    return made


def _words():
    trainer = trainers.WordLevelTrainer(vocab_size=300, special_tokens=SPECIALS)
    return _trained(models.WordLevel(unk_token="<unk>"), pre_tokenizers.WhitespaceSplit(), trainer)


def _unigram():
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=SPECIALS, unk_token="<unk>")
    return _trained(models.Unigram(), pre_tokenizers.Metaspace(), trainer)


@functools.cache
def _backend(kind):
    made = {
        "byte-level": lambda: _byte_level(False),
        "byte-level with a space": lambda: _byte_level(True),
        "sentencepiece": _sentencepiece,
        "llama": _sentencepiece,
        "words": _words,
        "unigram": _unigram,
    }
    return made[kind]()


def tiny_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A new tokenizer of a kind; `llama` is the family's own class, which builds itself from the vocabulary."""
    backend = _backend(kind)
    if kind == "llama":
        model = json.loads(backend.to_str())["model"]
        return LlamaTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], **NAMES)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **NAMES)
