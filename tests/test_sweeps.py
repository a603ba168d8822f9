"""Every sweep file runs as the W&B agent and as Optuna would run it."""

import csv
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import yaml
from forked import run as run_command
from test_contract import small
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args
from wandb_files import of_type, records

from lit_models.__main__ import main
from lit_models.command.catalog import configs_root, experiments

optuna = pytest.importorskip("optuna")

from scripts.sweep import __main__ as search  # noqa: E402
from scripts.sweep import study as sweep_study  # noqa: E402
from scripts.sweep.space import read_sweep  # noqa: E402

SWEEPS = sorted((configs_root() / "sweeps").glob("*.yaml"))
TINY = str(Path(__file__).parent / "tiny.yaml")


def draw(spec: dict, chance: random.Random):
    """A value as W&B's server draws it."""
    if "value" in spec:
        return spec["value"]
    if "values" in spec:
        return chance.choice(spec["values"])
    low, high = spec["min"], spec["max"]
    match spec.get("distribution", "int_uniform" if isinstance(low, int) else "uniform"):
        case "int_uniform":
            return chance.randint(low, high)
        case "uniform":
            return chance.uniform(low, high)
        case "log_uniform_values":
            return math.exp(chance.uniform(math.log(low), math.log(high)))
        case other:
            pytest.fail(f"unknown distribution {other}")


def agent_argv(config: dict, values: dict) -> list[str]:
    """Arguments of lit-models as the W&B agent passes them, by its own code."""
    macros = create_sweep_command_args({"args": {k: {"value": v} for k, v in values.items()}})
    macros["env"] = ["/usr/bin/env"]
    words = []
    for word in create_sweep_command(list(config["command"])):
        known = word.startswith("${") and word.endswith("}")
        words += macros[word[2:-1]] if known else [word]
    assert words[:2] == ["/usr/bin/env", "lit-models"]
    return words[2:]


def given(config: dict, option: str):
    """What a run's configuration holds for an option."""
    value = config
    for part in option.split("."):
        value = value if part in value else value["init_args"]
        value = value[part]
    return value


def test_every_family_has_a_sweep():
    swept = {config["command"][4] for config in map(yaml.safe_load, map(Path.read_text, SWEEPS))}
    assert swept <= set(experiments())
    names = {path.stem for path in SWEEPS}
    wanted = ("tables", "series", "sequences", "uncertainty", "graphs", "node_series")
    assert {*wanted, "diffusion", "language"} <= names


# What takes long in a tiny run, and decides nothing here.
QUICK = {"diffusion": ["--model.num_steps=3", "--data.num_generated=40"]}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_dry_agent_runs_the_sweep(path, tmp_path):
    sweep = yaml.safe_load(path.read_text())
    chance = random.Random(path.stem)
    values = {name: draw(spec, chance) for name, spec in sweep["parameters"].items()}
    experiment = sweep["command"][sweep["command"].index("--config") + 1]
    tiny = [*small(experiment), *QUICK.get(path.stem, []), "--runs_dir", str(tmp_path)]
    tiny += [f"--trainer.limit_{split}_batches=2" for split in ("train", "val", "test")]
    tiny += ["--trainer.max_epochs=1", "--trainer.val_check_interval=1.0", "--run_id=agent"]
    tiny += ["--trainer.check_val_every_n_epoch=1", "--trainer.callbacks=null"]
    assert main([*agent_argv(sweep, values), *tiny]) == 0
    run_dir = tmp_path / experiment / "agent"
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    for option, value in values.items():
        expected = yaml.safe_load(value) if isinstance(value, str) else value
        assert given(config, option) == pytest.approx(expected), option
    assert json.loads((run_dir / "results.json").read_text())["optimizer_steps"] > 0
    # The metric that the sweep is over is there to be read.
    columns = (run_dir / "metrics.csv").read_text().splitlines()[0].split(",")
    assert sweep["metric"]["name"] in columns


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_optuna_searches_what_the_agent_does(path):
    """The same options, and values of the same kinds within the same ranges."""
    config = yaml.safe_load(path.read_text())
    found = read_sweep(str(path))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    draws = [found.suggest(study.ask()) for _ in range(200)]
    chance = random.Random(0)
    for name, spec in config["parameters"].items():
        ours = [d[name] for d in draws]
        theirs = [draw(spec, chance) for _ in range(200)]
        if "values" in spec:
            assert set(ours) == {str(value) for value in spec["values"]}
            continue
        assert {type(value) for value in ours} == {type(value) for value in theirs}
        assert all(spec["min"] <= value <= spec["max"] for value in ours)
        scale = np.log if "log" in spec.get("distribution", "") else np.asarray
        width = scale(spec["max"]) - scale(spec["min"])
        # The same law: the means of 200 draws differ by less than 4 standard deviations.
        gap = np.mean(scale(ours)) - np.mean(scale(theirs))
        assert abs(gap) < 4 * width * math.sqrt(2 / 12 / 200) + 0.2 * isinstance(ours[0], int)
    assert ["fit", *found.options(draws[0])] == agent_argv(config, draws[0])


def write_sweep(folder: Path, **changes) -> Path:
    config = {
        "method": "bayes",
        "metric": {"name": "val/loss", "goal": "minimize"},
        "command": ["${env}", "lit-models", "fit", "--config", TINY, "${args}"],
        "parameters": {
            "model.optimizer.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 0.1},
            "model.hidden_size": {"min": 2, "max": 9},
            "data.num_samples": {"value": 29},
        },
    }
    path = folder / "tiny_sweep.yaml"
    path.write_text(yaml.safe_dump({**config, **changes}))
    return path


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def validations(run_dir: Path) -> list[float]:
    """The validation losses of a run."""
    with (run_dir / "metrics.csv").open() as file:
        return [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]


def trials(file: Path) -> list:
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{file}")
    return study.get_trials()


def test_a_study_resumes_and_prints_a_command_that_runs(in_tmp, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    path = write_sweep(in_tmp)
    asked = [str(path), "--seed", "0", "--study", "studies/a.db", "--trials"]
    extra = ["--", "--trainer.max_epochs", "1"]
    assert search.main([*asked, "2", *extra]) == 0
    first = trials(in_tmp / "studies/a.db")
    assert search.main([*asked, "3", *extra]) == 0
    found = trials(in_tmp / "studies/a.db")
    assert [t.params for t in found[:2]] == [t.params for t in first]
    assert [t.number for t in found] == [0, 1, 2]
    assert len({t.params["model.optimizer.lr"] for t in found}) == 3

    # Each trial is a run, in its folder and in W&B, and the runs are one group.
    (group,) = {Path(t.user_attrs["run_dir"]).name.rpartition("-")[0] for t in found}
    for trial in found:
        run_dir = Path(trial.user_attrs["run_dir"])
        (run,) = of_type(records(run_dir), "run")
        assert (run.run_id, run.run_group) == (run_dir.name, group)
        assert not (run_dir / "results.json").exists()  # no trial sees the test set

    best = min(found, key=lambda trial: trial.value)
    printed = capsys.readouterr().out.strip().splitlines()
    assert f"trial {best.number}, val/loss {best.value:.6g}" in printed[-2]
    monkeypatch.setenv("WANDB_MODE", "disabled")
    argv = printed[-1].split()
    assert argv[:2] == ["lit-models", "fit"]
    assert main([*argv[1:], "--run_id", "again"]) == 0
    losses = validations(in_tmp / "runs/tiny/again")
    assert min(losses) == pytest.approx(best.value)


def test_trials_that_fall_behind_are_pruned(in_tmp, capsys):
    """Of two learning rates the hopeless one ends at its first validation."""
    parameters = {"model.optimizer.lr": {"values": [1e-9, 0.03]}}
    stop = {"type": "hyperband", "min_iter": 1, "eta": 2}
    path = write_sweep(in_tmp, parameters=parameters, early_terminate=stop, method="random")
    assert search.main([str(path), "--seed", "1", "--trials", "6", "--study", "p.db"]) == 0
    found = trials(in_tmp / "p.db")
    pruned = [trial for trial in found if trial.state.name == "PRUNED"]
    assert pruned
    assert {trial.params["model.optimizer.lr"] for trial in pruned} == {"1e-09"}
    for trial in found:
        losses = validations(Path(trial.user_attrs["run_dir"]))
        assert losses == pytest.approx(list(trial.intermediate_values.values()))
        assert (len(losses) < 4) == (trial in pruned)
    assert f"6 trials, {len(pruned)} pruned" in capsys.readouterr().out


def test_a_diverged_trial_is_pruned(in_tmp, capsys):
    parameters = {"model.optimizer.lr": {"value": 1e38}}
    path = write_sweep(in_tmp, parameters={**parameters, "data.noise_std": {"values": [0.1]}})
    sgd = ["--model.optimizer", "SGD", "--model.lr_scheduler=null"]
    assert search.main([str(path), "--trials", "1", "--study", "d.db", "--", *sgd]) == 0
    (trial,) = trials(in_tmp / "d.db")
    assert trial.state.name == "PRUNED"
    assert "no trial was completed" in capsys.readouterr().out


def test_a_mended_mistake_needs_no_new_study(in_tmp):
    path = write_sweep(in_tmp, parameters={"model.hiden_size": {"min": 1, "max": 3}})
    asked = [str(path), "--study", "s.db", "--trials", "1"]
    assert search.main(asked) == 2
    write_sweep(in_tmp)
    assert search.main([*asked, "--", "--trainer.max_epochs", "1"]) == 0
    assert [trial.state.name for trial in trials(in_tmp / "s.db")] == ["COMPLETE"]


@pytest.mark.slow
def test_two_workers_share_a_study(in_tmp, monkeypatch):
    """Two processes, exactly as many trials as asked for, no run twice."""
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent.parent}:{Path(__file__).parent}")
    path = write_sweep(in_tmp)
    extra = ["--", "--trainer.max_epochs", "1"]
    assert search.main([str(path), "--trials", "5", "--jobs", "2", "--study", "j.db", *extra]) == 0
    found = trials(in_tmp / "j.db")
    assert [trial.state.name for trial in found] == ["COMPLETE"] * 5
    assert len({trial.user_attrs["run_dir"] for trial in found}) == 5


@pytest.mark.slow
def test_a_worker_s_mistake_ends_the_search(in_tmp, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent.parent}:{Path(__file__).parent}")
    path = write_sweep(in_tmp, parameters={"model.hiden": {"min": 1, "max": 3}})
    assert search.main([str(path), "--trials", "4", "--jobs", "2", "--study", "m.db"]) == 2
    assert "did you mean hidden_size" in capfd.readouterr().err
    assert not (in_tmp / "runs").exists()


def _other_space(folder: Path) -> list[str]:
    path = write_sweep(folder)
    study = sweep_study.Study(folder / "o.db", str(path)).open()
    study.add_trial(optuna.trial.create_trial(value=1.0))
    write_sweep(folder, parameters={"model.hidden_size": {"min": 2, "max": 3}})
    return [str(path), "--study", "o.db"]


def _no_study(folder: Path) -> list[str]:
    (folder / "n.db").write_text("no database, and long enough to be told from an empty one")
    return [str(write_sweep(folder)), "--study", "n.db"]


def _changed(**changes):
    return lambda folder: [str(write_sweep(folder, **changes))]


LR = "model.optimizer.lr"
WRONG = {
    "no file": (lambda _: ["serie"], "packaged ones: diffusion"),
    "no trials": (lambda _: ["series", "--trials", "0"], "--trials must be at least 1"),
    "another study": (_other_space, "was made with another constants"),
    "no study": (_no_study, "n.db is no study file"),
    "method": (_changed(method="grid"), "method must be one of bayes, random"),
    "metric": (_changed(metric={"goal": "minimize"}), "metric needs a name"),
    "goal": (_changed(metric={"name": "a", "goal": "min"}), "one of minimize, maximize"),
    "unknown metric": (
        _changed(metric={"name": "val/los"}),
        "no metric 'val/los'; it has",
    ),
    "program": (_changed(command=["python", "train.py", "${args}"]), "must run `lit-models fit`"),
    "macro": (
        _changed(command=["lit-models", "fit", "${args_json}"]),
        "needs ${args} once",
    ),
    "no parameters": (_changed(parameters={}), "no parameters"),
    "text for a number": (
        _changed(parameters={LR: {"min": "1e-4", "max": 1.0}}),
        "min must be a number such as 0.001; got '1e-4'",
    ),
    "empty range": (_changed(parameters={LR: {"min": 2.0, "max": 1.0}}), LR),
    "unsupported law": (
        _changed(parameters={LR: {"distribution": "beta", "min": 0.1, "max": 1.0}}),
        "distribution must be one of categorical",
    ),
    "several processes": (
        lambda folder: [*_changed()(folder), "--", "--config", "ddp", "--trainer.devices", "2"],
        "a trial is one process",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_line(in_tmp, capsys, name):
    make, message = WRONG[name]
    assert search.main(make(in_tmp)) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_workers_take_turns_on_the_accelerators():
    assert [sweep_study.device_of(i, None, 2) for i in range(3)] == ["0", "1", "0"]
    assert [sweep_study.device_of(i, "2,5", 2) for i in range(2)] == ["2", "5"]
    assert sweep_study.device_of(0, None, 0) is None


@pytest.mark.slow
def test_a_run_of_an_agent_has_the_agent_s_id(in_tmp):
    """In a process of its own, as the agent starts it: wandb reads these variables once."""
    line = ["fit", "--config", TINY, "--trainer.max_epochs", "1", "--runs_dir", str(in_tmp)]
    agent = {"WANDB_MODE": "offline", "WANDB_RUN_ID": "k3x9", "WANDB_SWEEP_ID": "sw1"}
    assert run_command(in_tmp, *line, **agent).returncode == 0
    (run,) = of_type(records(in_tmp / "tiny/k3x9"), "run")
    assert (run.run_id, run.sweep_id) == ("k3x9", "sw1")
