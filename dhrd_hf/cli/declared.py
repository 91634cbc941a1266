"""Options from dataclasses: declared once, with their help, and parsed before anything heavy is imported.

A dataclass of ours is read as it is. One that only torch could import, as `TrainingArguments` is, is read from its source.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

_PLAIN = {"int": int, "float": float, "str": str}


class Declared(NamedTuple):
    """A field of a dataclass: its annotation as written, and the choices that it names, where they can be known."""

    name: str
    annotation: str
    help: str | None = None
    choices: Sequence[str] | None = None
    on: bool = False  # a flag whose default is true
    value_optional: bool = False


def declared(cls: type) -> list[Declared]:
    """The fields of a dataclass, whose module postpones its annotations."""
    return [
        Declared(it.name, it.type, it.metadata.get("help"), it.metadata.get("choices"), it.default is True)
        for it in dataclasses.fields(cls)
        if it.init
    ]


def declared_in_source(module: str, name: str) -> list[Declared]:
    """The fields of a dataclass in a module that is not imported."""
    package, _, rest = module.partition(".")
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ImportError(f"{package} is not installed: pip install {package}.")
    return _Source(Path(found.origin).parent.joinpath(*rest.split(".")).with_suffix(".py")).fields_of(name)


class _Source:
    """A module as it is written."""

    def __init__(self, path: Path):
        self.path, self.tree = path, ast.parse(path.read_text(encoding="utf-8"))

    def fields_of(self, name: str) -> list[Declared]:
        body = next(it.body for it in self.tree.body if isinstance(it, ast.ClassDef) and it.name == name)
        return [
            self._field(it)
            for it in body
            if isinstance(it, ast.AnnAssign) and "init=False" not in ast.unparse(it.value or it.annotation)
        ]

    def _field(self, node: ast.AnnAssign) -> Declared:
        keywords = {it.arg: it.value for it in getattr(node.value, "keywords", ())}
        metadata = keywords.get("metadata")
        pairs = zip(metadata.keys, metadata.values, strict=True) if isinstance(metadata, ast.Dict) else ()
        said = {key.value: value for key, value in pairs if isinstance(key, ast.Constant)}
        annotation = ast.unparse(node.annotation)
        choices = self._literal(said["choices"]) if "choices" in said else self._enum(annotation)
        help = self._literal(said["help"]) if "help" in said else None
        on = ast.unparse(keywords.get("default", node.annotation)) == "True"
        return Declared(node.target.id, annotation, help, choices, on, "nargs" in said)

    def _literal(self, node: ast.expr) -> Any:
        """A value that is written out, here or in a module beside this one, or None."""
        if isinstance(node, ast.Name):
            for source in self._with(node.id):
                for it in source.tree.body:
                    if isinstance(it, ast.Assign) and ast.unparse(it.targets[0]) == node.id:
                        return source._literal(it.value)
            return None
        with suppress(ValueError):
            return ast.literal_eval(node)
        return None

    def _enum(self, annotation: str) -> list[str] | None:
        """The values of the enumeration that an annotation such as `IntervalStrategy | str` names."""
        name, _, other = annotation.partition(" | ")
        for source in self._with(name) if other == "str" else ():
            for it in source.tree.body:
                if isinstance(it, ast.ClassDef) and it.name == name:
                    values = [each.value for each in it.body if isinstance(each, ast.Assign)]
                    return [each.value for each in values if isinstance(each, ast.Constant)]
        return None

    def _with(self, name: str) -> Iterator[_Source]:
        """This module, and the one beside it that it imports a name from."""
        yield self
        for it in self.tree.body:
            if isinstance(it, ast.ImportFrom) and it.level == 1 and name in {each.name for each in it.names}:
                yield _source(self.path.parent.joinpath(*it.module.split(".")).with_suffix(".py"))


_source = cache(_Source)


def add_declared(parser: argparse.ArgumentParser, options: Sequence[Declared], **kwargs: Any) -> None:
    """Add options as transformers' HfArgumentParser does: `--a_b` and `--a-b`; of a flag its value may be left out."""
    for it in options:
        spellings = dict.fromkeys((f"--{it.name}", f"--{it.name.replace('_', '-')}"))
        kinds = [kind for kind in it.annotation.split(" | ") if kind not in ("None", "str")] or ["str"]
        read: dict[str, Any] = {"type": _PLAIN.get(kinds[0], str), "choices": it.choices}
        if kinds == ["bool"]:
            read = {"type": _true_or_false} | ({} if "None" in it.annotation else {"nargs": "?", "const": True})
        elif it.annotation.startswith(("list[", "str | list[")):
            read["nargs"] = "+"
        if it.value_optional:
            read |= {"nargs": "?", "const": True}
        parser.add_argument(*spellings, help=it.help, dest=it.name, **read, **kwargs)
        if it.on:
            off = dict.fromkeys((f"--no_{it.name}", f"--no-{it.name.replace('_', '-')}"))
            parser.add_argument(*off, dest=it.name, action="store_false", help=argparse.SUPPRESS, **kwargs)


def _true_or_false(text: str) -> bool:
    if text.lower() in ("yes", "true", "t", "y", "1"):
        return True
    if text.lower() in ("no", "false", "f", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
