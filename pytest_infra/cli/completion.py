"""Tab completion: a few lines for each shell, which ask ``pytest-infra complete`` for the words that fit."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.errors import BadInput
from .labs import labs_up

__all__ = ["COMMANDS", "SHELLS", "candidates", "script"]

COMMANDS = ("clean", "completion", "doctor", "init", "kernel", "list", "schema", "shell", "version")
SHELLS = ("bash", "zsh", "fish")

_SCRIPTS = {
    "bash": """\
_pytest_infra() {
    local IFS=$'\\n' word
    COMPREPLY=()
    for word in $(pytest-infra complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null); do
        COMPREPLY+=("$(printf '%q' "$word")")
    done
}
complete -F _pytest_infra pytest-infra
""",
    "zsh": """\
#compdef pytest-infra
_pytest_infra() {
    local -a found
    found=("${(@f)$(pytest-infra complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    (( ${#found[1]} )) && compadd -a found
}
compdef _pytest_infra pytest-infra
""",
    "fish": """\
complete -c pytest-infra -f -a '(pytest-infra complete -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
""",
}


def script(shell: str) -> str:
    """What a shell's start-up file needs.

    Raises:
        BadInput: an unknown shell.
    """
    if shell not in _SCRIPTS:
        raise BadInput(f"no completion for {shell!r}; there is {', '.join(SHELLS)}")
    return _SCRIPTS[shell]


def candidates(words: Sequence[str]) -> list[str]:
    """What the last word can become; the words before it are the ones typed so far."""
    *before, last = words or [""]
    return sorted({name for name in _names(before) if name.startswith(last)})


def _names(before: Sequence[str]) -> Sequence[str]:
    if not before:
        return COMMANDS
    command, place = before[0], len(before)
    if command == "completion" and place == 1:
        return SHELLS
    if command == "clean":
        return [lab.name for lab in labs_up() if lab.kept is not None]
    if command == "doctor":
        from ..doctor import capabilities

        return ["--install", "--json", *capabilities()]
    return _of_shell(before[1:]) if command == "shell" else ()


def _of_shell(before: Sequence[str]) -> Sequence[str]:
    labs = labs_up()
    if not before:
        return [*(lab.name for lab in labs), *(labs[0].nodes if len(labs) == 1 else ())]
    return [node for lab in labs if lab.name == before[0] for node in lab.nodes] if len(before) == 1 else ()
