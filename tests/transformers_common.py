"""transformers' own tests of every model class, on the dual-head model: prints which fail, as JSON.

`python tests/transformers_common.py FOLDER llama`, where FOLDER holds transformers' `test_modeling_common.py`: the `tests`
of its source distribution (`pip download --no-deps --no-binary :all: transformers==VERSION`). It needs `parameterized`.
"""

import importlib
import json
import sys
import types
import unittest

import torch
from families import tiny_config

from dhrd_hf import DHRDConfig, DHRDForDualHeadClassification

PACKAGE = "transformers_tests"


def import_common(folder):
    """Their module; the distribution leaves out the tests of generation and of exporting, which it wants to inherit."""
    for name, mixin in (
        ("exporters.test_export", "ExportTesterMixin"),
        ("generation.test_utils", "GenerationTesterMixin"),
    ):
        parent = f"{PACKAGE}.{name.partition('.')[0]}"
        for path, attributes in ((PACKAGE, {"__path__": [folder]}), (parent, {"__path__": []})):
            sys.modules.setdefault(path, types.ModuleType(path)).__dict__.update(attributes)
        sys.modules[f"{PACKAGE}.{name}"] = types.SimpleNamespace(**{mixin: type(mixin, (), {})})
    common = importlib.import_module(f"{PACKAGE}.test_modeling_common")
    # Where they look up what a class is for: ours is a sequence classifier.
    common.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES["dhrd"] = DHRDForDualHeadClassification.__name__
    return common


class Tester:
    """What their tests ask for the sizes of a model, its config and a batch."""

    batch_size, seq_length, hidden_size, num_attention_heads, num_hidden_layers = 3, 7, 32, 4, 2
    is_training = True

    def __init__(self, model_type):
        self.model_type = model_type

    def get_config(self):
        return DHRDConfig(backbone_config=tiny_config(self.model_type), num_labels=3)

    def prepare_config_and_inputs_for_common(self):
        input_ids = torch.randint(3, 99, (self.batch_size, self.seq_length))
        return self.get_config(), {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}


def suite(common, model_type):
    class Common(common.ModelTesterMixin, unittest.TestCase):
        all_model_classes = (DHRDForDualHeadClassification,)
        test_can_init_all_missing_weights_before_2023 = True

        def setUp(self):
            self.model_tester = Tester(model_type)

        def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
            """In training both losses are asked for."""
            inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
            if return_labels:
                inputs["input_length"] = torch.full_like(inputs["labels"], 4)
                inputs["reasoning_targets"] = inputs["input_ids"].clone()
            return inputs

    return unittest.defaultTestLoader.loadTestsFromTestCase(Common)


if __name__ == "__main__":
    result = unittest.TestResult()
    tests = suite(import_common(sys.argv[1]), sys.argv[2])
    tests.run(result)
    traces = {}
    for test, trace in result.failures + result.errors:
        traces.setdefault(getattr(test, "test_case", test)._testMethodName, trace)
    skipped = {test._testMethodName: reason for test, reason in result.skipped}
    print(json.dumps({"run": result.testsRun - len(skipped), "failed": traces, "skipped": skipped}))
