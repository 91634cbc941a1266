"""mkdocs hooks: the first page, the reference of commands and of classes, and the files that pages link to."""

import contextlib
import importlib
import io
import os
import re
from pathlib import Path

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PACKAGES = ("", ".data", ".training", ".export", ".evaluation", ".rationales", ".study")
LINK = re.compile(r'(?<=\]\()[^)#\s]+|(?<=src=")[^"]+|(?<=srcset=")[^"]+')


def on_files(files, config):
    """Add README as the first page, the commands' page, and the repository's files that pages link to."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=readme))
    files.append(File.generated(config, "commands.md", content=commands_page()))
    seen, pages = set(), [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    while pages:
        page = pages.pop()
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            file = (page.parent / target).resolve()
            if file.is_file() and file not in seen and (ROOT / "docs") not in file.parents:
                seen.add(file)
                files.append(File.generated(config, file.relative_to(ROOT).as_posix(), abs_src_path=str(file)))
                pages += [file] if file.suffix == ".md" else []
    return files


def on_page_markdown(markdown, page, config, files):
    """Links out of docs/ lead to the files' copies; the mark of the Python page becomes the reference."""
    return markdown.replace("](../", "](").replace("<!-- reference -->", python_reference())


def commands_page():
    """Every command with its own help."""
    from dhrd_hf.cli import main
    from dhrd_hf.cli.main import _COMMANDS
    from dhrd_hf.cli.rationales import COMMANDS

    os.environ["COLUMNS"] = "84"
    names = [[]]
    for name in _COMMANDS:
        names.append([name])
        if name == "rationales":
            names += [[name, below] for below in COMMANDS]
        if name == "study":
            names.append([name, "report"])
    parts = [
        "# Commands\n\nEach command's own `--help`. `dhrd train --help-all` has every flag of `TrainingArguments` as well."
    ]
    for words in names:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = main([*words, "--help"])
        if code:
            raise RuntimeError(f"dhrd {' '.join(words)} --help ended with {code}")
        parts.append(
            f"## dhrd {' '.join(words)}\n\n```text\n{said.getvalue().strip()}\n```".replace("## dhrd \n", "## dhrd\n")
        )
    return "\n\n".join(parts) + "\n"


def python_reference():
    """A directive of mkdocstrings for each public name, once, under the package that offers it first."""
    parts, seen = [], set()
    for package in PACKAGES:
        module = importlib.import_module(f"dhrd_hf{package}")
        parts.append(f"## dhrd_hf{package}")
        for name in sorted(module.__all__, key=str.lower):
            found = getattr(module, name)
            if hasattr(found, "__qualname__") and (where := f"{found.__module__}.{found.__qualname__}") not in seen:
                seen.add(where)
                parts.append(f"::: {where}")
    return "\n\n".join(parts)


class Names(griffe.Extension):
    """Docstrings are written as transformers' are: names as [`~package.Name`], types as (`str`, *optional*)."""

    def on_instance(self, *, obj, **_):
        if obj.docstring:
            text = re.sub(r"\[`~?(?:\w+\.)*(\w+(?:\(\))?)`\](?!\()", r"`\1`", obj.docstring.value)
            text = re.sub(
                r"^ +[\w, *]+ \(.*?\):(?=\s)", lambda match: re.sub(r"[`*](?!\*)", "", match[0]), text, flags=re.M
            )
            obj.docstring.value = re.sub(r"^( +)`([^`\n]+)`: ", r"\1\2: ", text, flags=re.M)
