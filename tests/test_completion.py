"""The script of ``lit-models completion``, in bash itself."""

import shutil
import subprocess

import pytest

from lit_models.__main__ import COMMANDS, main

ASK = """
source {script}
COMP_WORDS=({words}); COMP_CWORD={last}
_lit_models
echo "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def complete(tmp_path, capsys):
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)

    def ask(*words):
        quoted = " ".join(f"'{word}'" for word in words)
        program = ASK.format(script=script, words=quoted, last=len(words) - 1)
        done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.split()

    return ask


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_commands_names_and_options(complete):
    assert set(COMMANDS) < set(complete("lit-models", ""))
    assert complete("lit-models", "comp") == ["compare", "completion"]
    names = complete("lit-models", "fit", "--config", "")
    assert {"lstm", "ddp", "adamw", "table"} < set(names)
    assert "defaults" not in names
    assert complete("lit-models", "fit", "--config", "=", "stgnn_") == ["stgnn_weekly"]
    assert complete("lit-models", "fit", "--config=stgnn_") == ["--config=stgnn_weekly"]
    assert complete("lit-models", "fit", "-c", "lstm", "--trainer.max_t") == ["--trainer.max_time"]
    assert complete("lit-models", "fit", "--data", "CSVT") == ["CSVTabularDataModule"]
    assert complete("lit-models", "test", "--ckpt_path", "b") == ["best"]
    assert complete("lit-models", "fit", "--data.path", "x") == []  # bash looks for files


def test_zsh_has_the_same_in_the_manner_of_bash(capsys):
    scripts = []
    for shell in ("bash", "zsh"):
        assert main(["completion", shell]) == 0
        scripts.append(capsys.readouterr().out)
    assert scripts[1].endswith(scripts[0])
    assert "bashcompinit" in scripts[1]


def test_another_shell_is_refused(capsys):
    assert main(["completion", "fish"]) == 2
    assert "choose from" in capsys.readouterr().err
