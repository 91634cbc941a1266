"""`dhrd push`."""

from __future__ import annotations

from collections.abc import Sequence

from .parsing import Parser

_EXAMPLES = """examples:
  dhrd push --model my-classifier --repo user/my-classifier --dry-run
  dhrd push --model my-classifier --repo user/my-classifier --private
  dhrd push --model my-classifier --repo user/my-classifier --revision v2 --commit-message "Two more epochs"

The token is the one of `hf auth login`, or HF_TOKEN. Then, where only transformers is installed:
  from transformers import pipeline
  pipeline("text-classification", "user/my-classifier", truncation=True)("It rains. So: It is wet.")
"""
after_interrupt = "The new files are all in the repository or none is; to push again does no harm."


def run(argv: Sequence[str]) -> int:
    parser = Parser(
        "dhrd push",
        "Upload an exported classifier to the Hugging Face Hub, in one commit or not at all. In the same "
        "commit, weights and configs of an earlier push that the folder lacks are removed; all other files stay.",
        _EXAMPLES,
    )
    add = parser.add_argument
    add("--model", required=True, metavar="DIR", help="a folder that dhrd export wrote")
    add("--repo", required=True, metavar="USER/NAME", help="the repository; made if it is missing")
    add("--private", action="store_true", help="make the repository private; never push to a public one")
    add("--revision", metavar="BRANCH", help="default: main; a new branch starts from main")
    add("--commit-message", default="Upload classifier", metavar="TEXT", help="default: %(default)s")
    add("--dry-run", action="store_true", help="check the name and the folder and list the files, without network")
    args = parser.parse_args(argv)

    from .. import push_classifier

    options = {name: value for name, value in vars(args).items() if name not in ("model", "repo")}
    pushed = push_classifier(args.model, args.repo, **options)
    for name, size in pushed.files.items():
        print(f"{_readable(size):>9}  {name}")
    for name in pushed.removed:
        print(f"  removed  {name}")
    place = pushed.repo_id if args.revision is None else f"{pushed.repo_id}, branch {pushed.revision}"
    what = f"{len(pushed.files)} files, {_readable(sum(pushed.files.values()))}"
    if args.dry_run:
        print(f"Would push to {place}: {what}, in one commit. Nothing was sent.")
    else:
        print(f"Pushed to {place}: {what}, in one commit: {pushed.commit_url}")
    return 0


def _readable(size: int) -> str:
    if size < 1000:
        return f"{size} B"
    for unit in ("kB", "MB"):
        size /= 1000
        if size < 999.5:
            return f"{size:.3g} {unit}"
    return f"{size / 1000:.1f} GB"
