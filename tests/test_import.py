"""What importing the package costs, the walls between its modules, and its docstrings."""

import ast
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest
from packaging.version import Version

import dhrd_hf

PACKAGE = Path(dhrd_hf.__file__).parent
ROOMS = ("data", "training", "rationales", "export", "evaluation", "study", "cli")
MODULES = sorted(
    module.name for module in pkgutil.walk_packages([str(PACKAGE)], "dhrd_hf.") if not module.name.endswith("__main__")
)
LIBRARY_MODULES = [name for name in MODULES if not name.startswith("dhrd_hf.cli")]

WHAT_IS_LOADED = """
import sys
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification
before = set(sys.modules)
import dhrd_hf
for name in sorted(set(sys.modules) - before):
    print(name)
"""


def test_import_loads_the_configuration_and_nothing_else(run_python):
    loaded = set(run_python(WHAT_IS_LOADED).split())
    heavy = {"transformers.trainer", "transformers.modeling_utils", "datasets", "peft", "evaluate", "sklearn"}
    assert loaded & heavy == set()
    assert {name for name in loaded if name.startswith("dhrd_hf")} == {
        "dhrd_hf",
        "dhrd_hf.configuration_dhrd",
        "dhrd_hf.registration",
    }


# Each import that may come first, in an interpreter of its own, forked from one that has torch: then the model is registered.
FIRST = (
    "import dhrd_hf",
    "from dhrd_hf import DHRDConfig",
    "import dhrd_hf.modeling_dhrd",
    "import dhrd_hf; import peft",
    "from transformers import AutoModel; import dhrd_hf",
    "from transformers import AutoConfig; from dhrd_hf import DualHeadTrainer",
)
REGISTERED = """
import os, sys
import dhrd_hf
assert not {"torch", "transformers", "datasets", "numpy"} & set(sys.modules), sys.modules.keys()
for name in [name for name in sys.modules if name.startswith("dhrd_hf")]:
    del sys.modules[name]
sys.meta_path[:] = [it for it in sys.meta_path if type(it).__module__ != "dhrd_hf.registration"]
import torch, transformers
for first in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        exec(first)
        from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification
        from dhrd_hf import DHRDConfig
        assert type(AutoConfig.for_model("dhrd")) is DHRDConfig, first
        for auto in (AutoModel, AutoModelForSequenceClassification):
            assert auto._model_mapping[DHRDConfig].__name__ == "DHRDForDualHeadClassification", first
        sys.stdout.write("registered\\n")
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, first
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_bare_import_is_light_and_whatever_is_imported_first_the_model_is_registered(run_python):
    assert run_python(REGISTERED, *FIRST).split() == ["registered"] * len(FIRST)


def test_public_names_resolve_and_others_do_not():
    for name in dhrd_hf.__all__:
        assert getattr(dhrd_hf, name) is not None
    assert set(dhrd_hf.__all__) <= set(dir(dhrd_hf))
    contract = {
        "AutoModelForDualHeadClassification",
        "DHRDConfig",
        "DHRDForDualHeadClassification",
        "DualHeadCollator",
        "DualHeadEncoder",
        "DualHeadTrainer",
        "DualHeadTrainingArguments",
        "export_classifier",
    }
    assert contract <= set(dhrd_hf.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        dhrd_hf.Nothing  # noqa: B018


# Walls


def own_imports(module):
    """Modules of this package that a module imports anywhere, `TYPE_CHECKING` blocks included."""
    spec = importlib.util.find_spec(module)
    package = module if spec.submodule_search_locations else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            found.add(name)
            if name == "dhrd_hf" or name.removeprefix("dhrd_hf.") in ROOMS:
                found.update(f"{name}.{alias.name}" for alias in node.names)
    return found


def rooms_of(imports):
    """Rooms, and single-file modules, that these imports are of."""
    return {name.split(".")[1] for name in imports if name.startswith("dhrd_hf.") and _is_module_part(name)}


def _is_module_part(name):
    return importlib.util.find_spec(".".join(name.split(".")[:2])) is not None


def imports_of_room(room):
    modules = [name for name in MODULES if name == f"dhrd_hf.{room}" or name.startswith(f"dhrd_hf.{room}.")]
    return rooms_of(set().union(*map(own_imports, modules))) - {room}


@pytest.mark.parametrize(
    ("room", "allowed"),
    [
        ("configuration_dhrd", set()),
        ("losses", set()),
        ("pooling", set()),
        ("reasoning_head", {"losses"}),
        ("modeling_dhrd", {"configuration_dhrd", "losses", "pooling", "reasoning_head"}),
    ],
)
def test_a_file_that_ships_with_a_checkpoint_imports_its_neighbours_only(room, allowed):
    assert imports_of_room(room) <= allowed
    others = {name.split(".")[0] for name in own_imports(f"dhrd_hf.{room}")} - {"dhrd_hf"}
    standard = {"__future__", "collections", "copy", "dataclasses", "functools", "json", "math", "pathlib", "typing"}
    assert others - standard <= {"losses": {"torch"}, "pooling": {"torch"}}.get(room, {"torch", "transformers"})


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("data", {"modeling_dhrd", "auto", "training", "export", "evaluation"}),
        ("export", {"training"}),
        ("evaluation", {"training"}),
        ("training", {"export"}),
        ("study", {"training", "auto", "modeling_dhrd"}),
    ],
)
def test_a_room_keeps_to_its_walls(room, forbidden):
    assert imports_of_room(room) & forbidden == set()


@pytest.mark.parametrize("module", LIBRARY_MODULES)
def test_nothing_imports_cli(module):
    assert "cli" not in rooms_of(own_imports(module))


# Docstrings


def public_objects():
    """Everything in the `__all__` of the package and of its rooms, each once."""
    seen = {}
    for module_name in ("dhrd_hf", *(f"dhrd_hf.{room}" for room in ROOMS if (PACKAGE / room).is_dir())):
        module = importlib.import_module(module_name)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if callable(value):
                seen.setdefault(id(value), (f"{module_name}.{name}", value))
    return dict(seen.values())


PUBLIC = public_objects()


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_an_example_and_says_what_its_arguments_are(name):
    documented = inspect.unwrap(PUBLIC[name])
    text = inspect.getdoc(documented) or ""
    if inspect.isclass(documented) and documented.__name__.startswith("AutoModel"):
        # As in transformers, it is its methods that take arguments.
        methods = [documented.from_pretrained, documented.from_config]
        assert all("Args:" in inspect.getdoc(method) for method in methods)
    elif inspect.signature(documented).parameters:
        assert "Args:" in text
    assert "Example" in text and ">>> " in text


@pytest.mark.parametrize("module", MODULES)
def test_no_call_of_an_auto_class_asks_whether_to_run_a_checkpoints_code(module):
    """Without `trust_remote_code` transformers asks on standard input; what is passed on has it from its caller."""
    for node in ast.walk(ast.parse(Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = getattr(node.func.value, "id", "")
        if owner.startswith("Auto") and "DualHead" not in owner and node.func.attr == "from_pretrained":
            given = {keyword.arg for keyword in node.keywords}
            assert given & {"trust_remote_code", None} or module == "dhrd_hf.embedded", ast.unparse(node)


def test_the_floors_are_the_versions_that_the_lowest_set_tries():
    root = Path(__file__).parent.parent
    floors = dict(
        re.fullmatch(r"([\w-]+)>=([\d.]+)", it).groups()
        for it in tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
    )
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (root / "constraints-lowest.txt").read_text(), re.MULTILINE))
    assert {name.replace("_", "-"): Version(it) for name, it in floors.items()} == {
        name: Version(it) for name, it in pins.items()
    }
