"""``lit-models completion bash|zsh``: a script that completes commands, names and options."""

from collections.abc import Sequence

import datamodules
import lit_models
from lit_models.command.catalog import packaged_names
from lit_models.command.help import OPTIONS
from lit_models.command.runs import Parser

# Both shells split words at = or leave them whole; zsh runs it in the manner of bash.
_SCRIPT = """\
_lit_models() {{
  local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}" lead="" words=""
  if [[ $prev == "=" ]]; then
    prev="${{COMP_WORDS[COMP_CWORD-2]}}"
  elif [[ $cur == "=" ]]; then
    cur=""
  elif [[ $cur == --*=* ]]; then
    prev="${{cur%%=*}}" lead="${{cur%%=*}}=" cur="${{cur#*=}}"
  fi
  COMPREPLY=()
  case "$prev" in
    --config|-c) words="{configs}" ;;
    --ckpt_path) words="best last" ;;
    --model) words="{models}" ;;
    --data) words="{data}" ;;
    lit-models) if [[ $COMP_CWORD == 1 ]]; then words="{commands}"; fi ;;
  esac
  if [[ -z $words && $cur == -* ]]; then words="{options}"; fi
  if [[ -n $words ]]; then COMPREPLY=($(compgen -P "$lead" -W "$words" -- "$cur")); fi
}}
complete -o default -F _lit_models lit-models
"""
_ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"


def completion(argv: Sequence[str], commands: Sequence[str]) -> str:
    """The script for a shell, which ``eval "$(lit-models completion bash)"`` takes.

    Args:
        argv: Command line behind the command's name.
        commands: Names of all commands.

    Raises:
        InputError: If the shell is none of the two.
    """
    parser = Parser(prog="lit-models completion", description="Prints a script for a shell.")
    parser.add_argument("shell", choices=("bash", "zsh"))
    shell = parser.parse_args(argv).shell
    names = [option.name.split()[0] for options in OPTIONS.values() for option in options]
    script = _SCRIPT.format(
        configs=" ".join(packaged_names()),
        models=" ".join(name for name in dir(lit_models) if name.startswith("Lit")),
        data=" ".join(name for name in dir(datamodules) if name.endswith("DataModule")),
        commands=" ".join(commands),
        options=" ".join([*names, "--help"]),
    )
    return (_ZSH if shell == "zsh" else "") + script.rstrip()
