"""Prints a recipe as a run's config.yaml: `python -m configs finetune.yaml > config.yaml`."""

from __future__ import annotations

import argparse
import sys

from configs import RecipeError, dump_recipe, explain, load_recipe


def main() -> int:
    """Print what the arguments ask for and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m configs", description=__doc__)
    parser.add_argument("recipe", nargs="?", help="a file, or a name in configs/")
    parser.add_argument(
        "--set", action="append", default=[], metavar="K=V", help="override section.key"
    )
    parser.add_argument(
        "--describe", action="store_true", help="print every key there is, as a Markdown table"
    )
    arguments = parser.parse_args()
    if arguments.describe == bool(arguments.recipe):
        parser.error("give a recipe, or --describe")

    try:
        text = _table() if arguments.describe else _resolved(arguments.recipe, arguments.set)
    except RecipeError as error:
        print(error, file=sys.stderr)
        return 2
    # A file of ours is UTF-8, whatever the terminal's encoding is.
    sys.stdout.buffer.write(text.encode())
    return 0


def _resolved(recipe: str, overrides: list[str]) -> str:
    return dump_recipe(load_recipe(recipe, overrides).recipe)


def _table() -> str:
    lines = ["| key | takes | default | meaning |", "|---|---|---|---|"]
    for key in explain.KEYS:
        field = explain.field(key)
        default = explain.shown(field.default)
        meaning = field.description or ""
        lines.append(f"| `{'.'.join(key)}` | {explain.expected(key)} | `{default}` | {meaning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
