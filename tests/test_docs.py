"""Every snippet of README and docs/ runs here, on a tiny model, or says above itself why not; every link leads somewhere."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from chat_stand_in import ChatStandIn
from chat_stand_in import rows as chat_rows
from datasets import Dataset
from serving_stand_in import ServingStandIn

from dhrd_hf.cli import main
from dhrd_hf.data.synthetic import synthetic_errands

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^(?:<!-- not run: (?P<why>\S.*?) -->\n+)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
LINK = re.compile(r'\]\(([^)\s]+)\)|(?:src|srcset)="([^"]+)"')
MODELS = ("smollm2", "Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B")  # a tiny one stands in for them
ONE_STEP = ["--max_steps", "1", "--report_to", "none", "--use_cpu", "--disable_tqdm", "true"]
SHORTER = {"train": ONE_STEP, "search": ["--trials", "1"], "study": ["--dry-run"]}
SHORTER |= {
    "bench": [
        "--rows",
        "2",
        "--batch-sizes",
        "2",
        "--repeats",
        "1",
        "--warmup",
        "0",
        "--max-new-tokens",
        "2",
    ]
}


def blocks(page):
    """The snippets of a page but those between marks, which a command wrote there."""
    text = re.sub(r"<!-- (\w+):begin -->.*<!-- \1:end -->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = [match.groupdict() for match in BLOCK.finditer(text)]
    assert text.count("```") == 2 * len(found), f"{page.name} has a fence that is not read"
    return found


def commands(text):
    """The commands of a shell snippet in their order; a here-document is one."""
    lines = iter(text.replace("\\\n", " ").splitlines())
    for line in lines:
        if "<<EOF" in line:
            body = [line, *iter(lambda: next(lines), "EOF"), "EOF"]
            yield "\n".join(body)
        elif line.strip() and not line.startswith("#"):
            yield line


@pytest.fixture(scope="module")
def stand_ins(lm_dir_of):
    return dict.fromkeys(MODELS, str(lm_dir_of("llama-shallow")))


@pytest.fixture(scope="module")
def workplace(stand_ins, tmp_path_factory):
    """A folder with the tables that the pages name, and what README's own snippets left there: a run and an export."""
    folder = tmp_path_factory.mktemp("workplace")
    synthetic_errands("train", 60).to_json(folder / "rows.jsonl")
    for name, split in {"train": "train", "dev": "validation", "texts": "validation", "test": "test"}.items():
        synthetic_errands(split, 24, seed=len(name)).to_json(folder / f"{name}.jsonl")
    Dataset.from_list(chat_rows(24)).to_csv(folder / "train.csv", index=False)
    said = [{"rationale": row["rationale"]} for row in synthetic_errands("train", 24)]
    (folder / "reasons.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
    with pytest.MonkeyPatch.context() as patch:
        run_page(PAGES[0], folder, stand_ins, patch)
    # An untrained model has no temperature: rows of which it is right about half.
    answers = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    names = sorted({"kitchen", "wardrobe", "garage"})
    for number, row in enumerate(answers):
        row["label"] = names[(names.index(row.pop("predicted_label")) + number % 2) % 3]
    Dataset.from_list([{"text": it["text"], "label": it["label"]} for it in answers]).to_json(
        folder / "calibration.jsonl"
    )
    (folder / "runs/study").mkdir()
    results = map(json.loads, (ROOT / "examples/benchmarks/results/smollm2.jsonl").read_text().splitlines())
    kept = [json.dumps(row | {"study": "mine"}) + "\n" for row in results if row["data"] == "cb"]
    (folder / "runs/study/results.jsonl").write_text("".join(kept))
    return folder


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.stem)
def test_every_snippet_runs_or_says_why_not(page, workplace, stand_ins, tmp_path, monkeypatch):
    if not any(block["why"] is None for block in blocks(page)):
        return
    here = shutil.copytree(workplace, tmp_path / "here")
    with ChatStandIn() as chat, ServingStandIn(workplace / "classifier", "vllm") as server:
        servers = {"http://localhost:8000/v1": chat.url, "http://localhost:8000": server.url}
        run_page(page, here, stand_ins | servers, monkeypatch)


def run_page(page, folder, stand_ins, patch):
    patch.chdir(folder)
    patch.setattr("dhrd_hf.embedded.smollm2_path", lambda: Path(stand_ins["smollm2"]))
    names = {}
    for block in blocks(page):
        if block["why"] is None:
            {"bash": run_shell, "python": run_python}.get(block["language"], keep)(
                block["text"], stand_ins, names, block
            )


def run_shell(text, stand_ins, names, block):
    for command in commands(text):
        if command.startswith("cat > "):
            subprocess.run(["bash", "-c", command], check=True)
            continue
        words = shlex.split(command, comments=True)
        assert words[0] == "dhrd", f"{command!r}: put <!-- not run: why --> above the snippet"
        words = [stand_ins.get(word, word) for word in words[1:]]
        if not {"--help", "--dry-run", "report"} & set(words):
            words += SHORTER.get(words[0], [])
        assert main(words) == 0, command


def run_python(text, stand_ins, names, block):
    for name in MODELS:
        text = text.replace(f'"{name}"', repr(stand_ins[name]))
    exec(compile(text, "snippet", "exec"), names)


def keep(text, stand_ins, names, block):
    """Files that are shown: they are read, and written where the page names them in a first comment."""
    assert block["language"] in ("yaml", "json", "text"), f"a snippet of {block['language'] or 'no language'}: {text}"
    if block["language"] == "json":
        assert all(json.loads(line) for line in text.splitlines())
    if block["language"] == "yaml":
        assert yaml.safe_load(text)
        if named := re.match(r"# (\S+\.yaml)\n", text):
            Path(named[1]).write_text(re.sub(r"(?<=model: )\S+", stand_ins["smollm2"], text))


def test_every_link_leads_somewhere():
    missing = []
    for page in PAGES:
        text = BLOCK.sub("", page.read_text(encoding="utf-8"))
        for target in (first or second for first, second in LINK.findall(text)):
            path, _, anchor = target.partition("#")
            if path.startswith(("http://", "https://")):
                continue
            file = (page.parent / path).resolve() if path else page
            if not file.is_file() or anchor and anchor not in anchors(file):
                missing.append(f"{page.name}: {target}")
    assert not missing


def anchors(file):
    """Where a link can point to in a page."""
    titles = re.findall(r"^#+ (.+)$", BLOCK.sub("", file.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower().strip()).replace(" ", "-") for title in titles}


def test_the_readme_is_short_and_every_page_is_in_the_menu():
    assert len(PAGES[0].read_text().splitlines()) <= 200
    menu = {page for entry in yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"] for page in entry.values()}
    assert menu - {"index.md", "commands.md"} == {page.name for page in PAGES[1:]}
