"""Tab completion for bash and zsh: the lines that a shell evaluates, the words that it asks for.

The shell asks `python -m jobs.completion SHELL LINE [WORDBREAKS]` at each Tab, so nothing slow is
imported: what recipes take is read from the source of the schema.
"""

from __future__ import annotations

import argparse
import ast
import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from jobs.options import make_parser

PROJECT = Path(__file__).resolve().parents[1]
CONFIGS = PROJECT / "configs"
SCHEMA = ("cluster.py", "data.py", "schema.py")

BASH = r"""
_launch_py() {
    local script=${COMP_WORDS[1]-}
    script=${script/#\~\//$HOME/}
    if [[ ${script##*/} != launch.py || $COMP_CWORD -lt 2 || ! -r $script ]]; then
        [[ -z $_launch_py_others ]] || "$_launch_py_others" "$@"
        return
    fi
    mapfile -t COMPREPLY < <(
        CDPATH='' cd -- "$(dirname -- "$script")" &&
            @PYTHON@ -m jobs.completion bash "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS"
    ) 2>/dev/null
    [[ ${COMPREPLY-} != *[=.] ]] || compopt -o nospace
}
# What completes python's own arguments, if anything does, goes on doing so.
{ _comp_load python || _completion_loader python; } >/dev/null 2>&1
case $(complete -p python 2>/dev/null) in
    *" -F _launch_py "*) ;;
    *" -F "*) _launch_py_others=$(complete -p python | sed 's/.* -F \([^ ]*\).*/\1/') ;;
    *) _launch_py_others= ;;
esac
complete -o default -o bashdefault -F _launch_py python python3
"""

ZSH = r"""
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }
_launch_py() {
    local script=${(Q)words[2]/#\~\//$HOME/}
    if [[ ${script:t} != launch.py || $CURRENT -lt 3 || ! -r $script ]]; then
        # What completes python's own arguments.
        if (( $+functions[_python] )); then _python "$@"; else _files; fi
        return
    fi
    local -a found
    found=(${(f)"$(
        cd -q -- ${script:h} 2>/dev/null &&
            @PYTHON@ -m jobs.completion zsh "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null
    )"})
    if (( $#found )); then
        compadd -S '' -- ${(M)found:#*[=.]}
        compadd -- ${found:#*[=.]}
    else
        compset -P '*='
        _files
    fi
}
compdef _launch_py python python3
"""


def show(shell: str) -> int:
    """Print what `eval "$(python launch.py completion SHELL)"` is to evaluate."""
    text = {"bash": BASH, "zsh": ZSH}[shell]
    print(text.strip().replace("@PYTHON@", shlex.quote(sys.executable)))
    return 0


def complete(words: list[str]) -> list[str]:
    """What the last of these words, which follow `launch.py`, may become; none means files."""
    *before, current = words
    parser = make_parser()
    waiting: argparse.Action | None = None
    given = 0
    for word in before:
        if waiting is not None:
            waiting = None
        elif word.startswith("-"):
            action = parser._option_string_actions.get(word)
            waiting = action if action and action.nargs is None else None
        elif word in _commands(parser):
            parser = _commands(parser)[word]
        else:
            given += 1
    if waiting is not None:
        return _values(waiting, current)
    option, equals, value = current.partition("=")
    if equals and option in parser._option_string_actions:
        found = _values(parser._option_string_actions[option], value)
        return [f"{option}={each}" for each in found]
    commands = _commands(parser)
    positionals = parser._get_positional_actions()
    positional = positionals[min(given, len(positionals) - 1)] if positionals else None
    if commands and not before:
        options = parser._option_string_actions if current else ["--config"]
        return _starting([*commands, *options], current)
    is_full = commands or (given >= len(positionals) and positional and positional.nargs != "*")
    if current.startswith("-") or is_full or positional is None:
        return _starting(parser._option_string_actions, current or "--")
    return _values(positional, current)


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _values(action: argparse.Action, current: str) -> list[str]:
    if action.choices:
        return _starting(map(str, action.choices), current)
    if action.metavar == "C":
        names = [path.name for path in CONFIGS.glob("*.yaml") if not path.name.startswith("site.")]
        return _starting(names, current)
    if action.metavar == "RUN":
        return _runs(current)
    if str(action.metavar).startswith("K=V"):
        return _settings(current, takes_several=action.metavar != "K=V")
    return []


def _starting(words: Iterable[str], current: str) -> list[str]:
    return sorted(word for word in words if word.startswith(current))


def _settings(current: str, *, takes_several: bool) -> list[str]:
    schema = read_schema()
    key, equals, value = current.partition("=")
    if not equals:
        return _starting(schema, key)
    done, comma, value = value.rpartition(",") if takes_several else ("", "", value)
    values = _starting(schema.get(f"{key}=", []), value)
    return [f"{key}={done}{comma}{each}" for each in values if each not in done.split(",")]


def read_schema() -> dict[str, list[str]]:
    """Each key as it is typed up to its value, and the values that can be listed.

    Read from the source: the schema's own classes take a quarter of a second to come to life.
    """
    sources = [(CONFIGS / name).read_text(encoding="utf-8") for name in SCHEMA]
    nodes = [node for source in sources for node in ast.parse(source).body]
    classes = {node.name: _fields(node) for node in nodes if isinstance(node, ast.ClassDef)}
    return {
        f"{section}.{key}{'.' if _is_mapping(annotation) else '='}": _listed(annotation)
        for section, of_section in classes["Recipe"].items()
        for key, annotation in classes[ast.unparse(of_section)].items()
    }


def _fields(section: ast.ClassDef) -> dict[str, ast.expr]:
    return {
        node.target.id: node.annotation
        for node in section.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def _is_mapping(annotation: ast.expr) -> bool:
    return ast.unparse(annotation).startswith("dict[")


def _listed(annotation: ast.expr) -> list[str]:
    """The values of a type that are words: true and false, null, the choices of a Literal."""
    match annotation:
        case ast.BinOp(left=left, right=right):
            return _listed(left) + _listed(right)
        case ast.Name(id="bool"):
            return ["true", "false"]
        case ast.Constant(value=None):
            return ["null"]
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return [str(node.value) for node in ast.walk(choices) if isinstance(node, ast.Constant)]
    return []


def _runs(current: str) -> list[str]:
    """Names of runs; the runs of a name once there is but that one, elements after a sweep."""
    root = _root()
    *parents, _ = current.split("/")
    if len(parents) == 2 and not (root / Path(*parents) / "sweep.json").exists():
        return []
    found = _starting(
        ("/".join([*parents, name]) for name in _folders(root / Path(*parents))), current
    )
    if len(parents) == 0 and len(found) == 1:
        found += [f"{found[0]}/{stamp}" for stamp in _folders(root / found[0])]
    if not parents and not found:
        found = _starting((s for name in _folders(root) for s in _folders(root / name)), current)
    return found


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        inner = ("code", "submitit")
        return [
            each.name
            for each in entries
            if each.is_dir() and not each.name.startswith(".") and each.name not in inner
        ]


def _root() -> Path:
    """The folder of this site's runs, as the loader finds it."""
    site = CONFIGS / "site.yaml"
    root = "logs"
    if site.exists():
        from configs import yaml12

        sections = yaml12.read(site.read_text(encoding="utf-8")).value or {}
        root = (sections.get("run") or {}).get("root") or root
    return PROJECT / Path(os.path.expandvars(root)).expanduser()


def _split(line: str) -> list[str]:
    """The words of a command line up to the cursor, the last one perhaps empty or in quotes."""
    for closing in ("", "'", '"'):
        try:
            words = shlex.split(line + closing)
        except ValueError:
            continue
        return words if line[-1:].strip() else [*words, ""]
    return []


def main(arguments: list[str]) -> int:
    """Print the words for SHELL LINE [WORDBREAKS], a line each; the shell hides what goes wrong."""
    shell, line, *breaks = arguments
    words = _split(line)
    places = [index for index, word in enumerate(words[:-1]) if Path(word).name == "launch.py"]
    if not places:
        return 0
    words = words[places[-1] + 1 :]
    found = complete(words)
    if shell == "bash":
        # For bash a word begins anew after these.
        cut = 1 + max(
            [words[-1].rfind(each) for each in "=:" if each in "".join(breaks)], default=-1
        )
        found = [each[cut:] for each in found]
    print("".join(f"{each}\n" for each in found), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
