"""bash, zsh and fish themselves, asked what they would complete."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

NAMES = {"bash": "{}", "zsh": "_{}", "fish": "{}.fish"}
"""What a shell calls the script of a program."""
_END = "-- end of line --"
_BASH = """
for script in "$SCRIPTS"/*; do source "$script"; done
for line in "$@"; do
    read -r -a COMP_WORDS <<< "$line"
    [[ $line == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    COMPREPLY=()
    $(complete -p "${COMP_WORDS[0]}" | sed 's/.*-F \\([^ ]*\\).*/\\1/')
    printf '%s\\n' "${COMPREPLY[@]}" "$END"
done
"""
# fish reads the script of a program that it finds.
_FISH = """
set -p fish_complete_path $SCRIPTS
for line in $argv
    complete -C $line
    echo $END
end
"""
# zsh completes in its line editor only, which needs a terminal: zpty is one. What is offered goes through `compadd`.
_ZSH = """
zmodload zsh/zpty
zpty shell "zsh -f -i 2> $SCRIPTS/../errors"
zpty -w shell 'source $SCRIPTS/../setup; print RE''ADY'
zpty -r shell said '*READY*'
for line in "$@"; do
    : > $SCRIPTS/../offered
    zpty -n -w shell $'\\x15'"$line"$'\\t'
    for turn in {1..400}; do
        grep -q -e "$END" $SCRIPTS/../offered && break
        sleep 0.05
    done
    cat $SCRIPTS/../offered
done
zpty -d shell
cat $SCRIPTS/../errors >&2
"""
_ZSH_SETUP = """
fpath=($SCRIPTS $fpath)
autoload -Uz compinit
compinit -u -D
bindkey -e
LISTMAX=9999
compadd() {
    local -a hits
    builtin compadd -A hits "$@"
    print -rl -- $hits >> $SCRIPTS/../offered
    builtin compadd "$@"
}
finish() {
    print -r -- $END >> $SCRIPTS/../offered
    comppostfuncs=(finish)
}
comppostfuncs=(finish)
"""
_COMMANDS = {
    "bash": ("bash", "--norc", "-c", _BASH, "bash"),
    "zsh": ("zsh", "-f", "-c", _ZSH, "zsh"),
    "fish": ("fish", "--no-config", "-c", _FISH),
}


def completed(shell: str, scripts: Path, folder: Path, lines: Sequence[str]) -> dict[str, set[str]]:
    """Line -> what the shell offers for its last word, in a folder; `scripts` holds those of the programs."""
    (scripts.parent / "setup").write_text(_ZSH_SETUP)
    programs = scripts.parent / "bin"
    programs.mkdir()
    for line in lines:
        (programs / line.split(" ")[0]).touch(0o755)
    done = subprocess.run(
        [*_COMMANDS[shell], *lines],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=120,
        env={
            "PATH": f"{programs}:/usr/bin:/bin",
            "HOME": str(folder),
            "TERM": "dumb",
            "SCRIPTS": str(scripts),
            "END": _END,
        },
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    blocks = done.stdout.split(_END + "\n")
    assert len(blocks) == len(lines) + 1, done.stdout
    # fish adds what each word means behind a tab, and a slash to folders.
    offered = [{word.split("\t")[0].rstrip("/") for word in block.splitlines() if word} for block in blocks[:-1]]
    return dict(zip(lines, offered, strict=True))
