"""Tiny random models, a byte-level tokenizer and a few invented rows: nothing is downloaded."""

import os
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="dhrd-hf-modules-")  # for the code that checkpoints carry
# Tiny models gain nothing from more threads, and lose much where several processes share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import copy
import functools
import gc
import hashlib
import importlib.util
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from families import tiny_config
from filelock import FileLock
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)

from dhrd_hf import AutoModelForDualHeadClassification, DualHeadEncoder, DualHeadTrainingArguments

LABELS = ("entailed", "refuted", "unknown")


_imported = 0


def pytest_runtest_logfinish():
    """What was imported stays: every training of accelerate's looks for garbage, which took most of a short one's time."""
    global _imported
    if len(sys.modules) > _imported:
        _imported = len(sys.modules)
        gc.collect()
        gc.freeze()


pytest_collection_finish = pytest_runtest_logfinish

# Rationales from none to many times the input: a mean of means would be far from the token mean.
ROWS = [
    ("Mira feeds the heron. So: the heron is fed.", "entailed", "It says so."),
    (
        "The kiln is cold. So: the kiln glows.",
        "refuted",
        "A kiln that is cold gives no light, " * 6 + "so it is dark.",
    ),
    ("Oto owns a boat. So: the boat is green.", "unknown", None),
    ("All rooks in the yard sleep. Pim is a rook in the yard. So: Pim sleeps.", "entailed", "Pim is one of them."),
    ("The lamp hums. So: it hums.", "entailed", "Same."),
    ("No door here is red. So: this door is red.", "refuted", "Every door is " + "of some other colour, " * 9),
    ("Sela ran. So: Sela was late.", "unknown", ""),
    ("Two cups fell. So: at least one cup fell.", "entailed", "Two is more than one, so one of them fell at least."),
    ("It snows on the moor. So: the moor is dry.", "refuted", "Snow is wet. " * 4),
    ("The map is old. So: the map is torn.", "unknown", "Old maps may be torn or whole. " * 5),
    ("Wen is taller than Ada. Ada is taller than Bo. So: Wen is taller than Bo.", "entailed", "Taller is passed on."),
    ("The goat eats only hay. So: the goat eats figs.", "refuted", None),
]

# A cross-section of the families, for the tests that have their own reasons; test_families.py runs them all.
FAMILIES = {
    "llama": functools.partial(tiny_config, "llama", tie_word_embeddings=False),
    "llama-tied": functools.partial(tiny_config, "llama", tie_word_embeddings=True),
    "gpt2": functools.partial(tiny_config, "gpt2"),
    "gemma2": functools.partial(tiny_config, "gemma2"),
    "qwen3": functools.partial(tiny_config, "qwen3"),
    "qwen3-moe": functools.partial(tiny_config, "qwen3_moe"),
    "gpt-neox": functools.partial(tiny_config, "gpt_neox"),
}
# For an exporter, which traces for seconds what each layer does.
SHALLOW = {"llama-shallow": functools.partial(tiny_config, "llama", num_hidden_layers=1)}


@pytest.fixture(scope="session", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="session")
def make_config():
    """A tiny config of a family: `make_config("gpt2", pad_token_id=1)`."""
    return lambda family, **changes: (FAMILIES | SHALLOW)[family](**changes)


@pytest.fixture(scope="session")
def make_lm(make_config):
    """A causal LM with random weights."""

    def make(family, seed=0, **changes):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(make_config(family, **changes)).eval()

    return make


@pytest.fixture(scope="session")
def lm_dir_of(make_lm, tokenizer, tmp_path_factory):
    """A saved causal LM of a family, with its tokenizer."""

    @functools.cache
    def save(family):
        folder = tmp_path_factory.mktemp(family)
        make_lm(family).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def lm_dir(lm_dir_of, family):
    return lm_dir_of(family)


@pytest.fixture(scope="session")
def dual_of(lm_dir_of):
    """A new dual-head model over a family's saved causal LM, in eval mode, with a head large enough to tell classes."""

    def make(family, seed=0, **kwargs):
        folder = lm_dir_of(family)
        torch.manual_seed(seed)
        return AutoModelForDualHeadClassification.from_pretrained(folder, **{"num_labels": 3, **kwargs})

    return make


@pytest.fixture(scope="session")
def stock_lm_of():
    """The family's own causal LM with a dual-head model's weights, mapped by name."""

    def make(dual):
        lm = AutoModelForCausalLM.from_config(copy.deepcopy(dual.config.backbone_config))
        head = next(name for name, module in lm.named_modules() if module is lm.get_output_embeddings())
        lm.load_state_dict(_renamed(dual, {"model": lm.base_model_prefix, "lm_head": head}), strict=True)
        return lm.to(dual.score.weight.dtype).eval()

    return make


@pytest.fixture(scope="session")
def stock_classifier_of():
    """The family's own sequence classifier with a dual-head model's weights, mapped by name."""

    def make(dual):
        config = copy.deepcopy(dual.config.backbone_config)
        config.id2label, config.label2id = dual.config.id2label, dual.config.label2id
        config.problem_type = dual.config.problem_type
        stock = AutoModelForSequenceClassification.from_config(config)
        stock.load_state_dict(_renamed(dual, {"model": stock.base_model_prefix, "score": "score"}), strict=True)
        return stock.to(dual.score.weight.dtype).eval()

    return make


def _renamed(dual, names):
    parts = ((key.partition("."), tensor) for key, tensor in dual.state_dict().items())
    return {f"{names[first]}.{rest}": tensor for (first, _, rest), tensor in parts if first in names}


@pytest.fixture(scope="session")
def objective_of(stock_lm_of, stock_classifier_of):
    """The objective of encoded rows and its gradients: stock classes in float64, one unpadded row at a time."""

    def compute(dual, features, label_smoothing=0.0):
        config = dual.config
        lm, stock = stock_lm_of(dual).double(), stock_classifier_of(dual).double()
        weights = torch.ones(config.num_labels) if config.class_weights is None else torch.tensor(config.class_weights)
        weights = weights.double()
        classification = reasoning = rows = targets = 0
        for feature in features:
            ids, label = torch.tensor([feature["input_ids"]]), torch.tensor([feature["labels"]])
            logits = stock(ids[:, : feature["input_length"]]).logits
            smoothing = {"label_smoothing": label_smoothing, "reduction": "sum"}
            classification = classification + F.cross_entropy(logits, label, weights, **smoothing)
            rows = rows + weights[label].sum()
            reasoning = reasoning + F.cross_entropy(lm(ids).logits[0, :-1], ids[0, 1:], reduction="sum")
            targets += ids.shape[1] - 1
        classification, reasoning = classification / rows, reasoning / targets
        loss = config.beta * classification + config.alpha * reasoning
        loss.backward()
        found = {}
        for model in (lm, stock):
            head = next((n for n, m in model.named_modules() if m is model.get_output_embeddings()), None)
            names = {model.base_model_prefix: "model", "score": "score", head: "lm_head"}
            for name, parameter in model.named_parameters():
                first, _, rest = name.partition(".")
                if parameter.grad is not None:
                    found[f"{names[first]}.{rest}"] = found.get(f"{names[first]}.{rest}", 0) + parameter.grad
        terms = {"loss": loss, "classification_loss": classification, "reasoning_loss": reasoning}
        return SimpleNamespace(gradients=found, **{name: value.item() for name, value in terms.items()})

    return compute


@pytest.fixture
def make_args(tmp_path):
    """Arguments of a run in the order of the rows, in which one step subtracts the gradient from the weights."""

    def make(arguments_class=DualHeadTrainingArguments, **changes):
        plain = {
            "output_dir": str(tmp_path / "run"),
            "optim": "sgd",
            "learning_rate": 1.0,
            "lr_scheduler_type": "constant",
            "warmup_steps": 0,
            "weight_decay": 0.0,
            "max_grad_norm": 0.0,
            "num_train_epochs": 1,
            "train_sampling_strategy": "sequential",
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            "use_cpu": True,
        }
        return arguments_class(**{**plain, **changes})

    return make


@pytest.fixture(scope="session")
def make_tokenizer():
    """A byte-level BPE tokenizer; by default <pad> is 0, <eos> is 1, <bos> is 2 and nothing is added."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    texts = [f"{text}\nReasoning:\n{rationale}\nFinal Answer:\n{label}" for text, label, rationale in ROWS]
    special = ["<pad>", "<eos>", "<bos>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    assert bpe.get_vocab_size() == 400

    def make(add_bos=False, add_eos=False, **kwargs):
        own = Tokenizer.from_str(bpe.to_str())
        if add_bos or add_eos:
            template = f"{'<bos> ' * add_bos}$A{' <eos>' * add_eos}"
            own.post_processor = processors.Sequence(
                [
                    processors.ByteLevel(trim_offsets=False),
                    processors.TemplateProcessing(single=template, special_tokens=[("<bos>", 2), ("<eos>", 1)]),
                ]
            )
        kwargs = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", **kwargs}
        return PreTrainedTokenizerFast(tokenizer_object=own, **kwargs)

    return make


@pytest.fixture(scope="session")
def tokenizer(make_tokenizer):
    return make_tokenizer()


@pytest.fixture(scope="session")
def pad_is_eos_tokenizer(make_tokenizer):
    return make_tokenizer(pad_token="<eos>")


@pytest.fixture(scope="session")
def bos_tokenizer(make_tokenizer):
    return make_tokenizer(add_bos=True)


@pytest.fixture(scope="session")
def label2id():
    return {name: index for index, name in enumerate(LABELS)}


@pytest.fixture(scope="session")
def rows():
    """24 rows: the twelve invented ones, and the same with a few words more before them."""
    first = [{"text": text, "label": label, "rationale": rationale} for text, label, rationale in ROWS]
    return first + [{**row, "text": f"One evening it was like this. {row['text']}"} for row in first]


@pytest.fixture(scope="session")
def dataset(rows):
    return Dataset.from_list(rows)


@pytest.fixture(scope="session")
def encoded(dataset, tokenizer, label2id):
    """The rows, encoded; suffixes of 9 to about 150 tokens."""
    return DualHeadEncoder(tokenizer, label2id, max_length=256).encode_dataset(dataset)


@pytest.fixture(scope="session")
def run_python():
    """Run a script in a fresh interpreter: `run_python(code, *arguments)` returns what it printed."""

    def run(code, *arguments):
        result = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=300
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


# What a config says of a classifier that its graph does not hold.
_NO_GRAPH = {
    "_name_or_path",
    "id2label",
    "label2id",
    "problem_type",
    "prompt_template",
    "max_input_length",
    "transformers_version",
}


@pytest.fixture(scope="session")
def exported_once(tmp_path_factory):
    """transformers' exporters trace the same graph with the same weights once in a run: ten seconds even of a tiny model."""
    if importlib.util.find_spec("transformers.exporters") is None:
        yield
        return
    from transformers import exporters

    root = tmp_path_factory.getbasetemp()
    root = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "exported"
    root.mkdir(exist_ok=True)

    def once(export):
        def exported(self, model, sample_inputs, config):
            graph = {name: value for name, value in model.config.to_dict().items() if name not in _NO_GRAPH}
            kinds = [type(it).__name__ for it in (self, model, config.quantizer)]
            key = hashlib.sha256(repr((kinds, sorted(graph.items()))).encode())
            for tensor in model.state_dict().values():
                key.update(tensor.numpy().tobytes())
            folder = root / key.hexdigest()
            with FileLock(f"{folder}.lock"):
                if not folder.exists():
                    export(self, model, sample_inputs, config).save_pretrained(f"{folder}.new")
                    os.rename(f"{folder}.new", folder)

            def save_pretrained(target):
                shutil.copytree(folder, target, dirs_exist_ok=True)
                model.config.save_pretrained(target)

            return SimpleNamespace(save_pretrained=save_pretrained)

        return exported

    with pytest.MonkeyPatch.context() as patch:
        for kind in ("OnnxExporter", "OpenVINOExporter"):
            exporter = getattr(exporters, kind)
            patch.setattr(exporter, "export", once(exporter.export))
        yield


def pytest_unconfigure():
    shutil.rmtree(os.environ["HF_MODULES_CACHE"], ignore_errors=True)
