"""The wheel: three packages and the configurations, beside a project with names of its own."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts.lowest import lowest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PACKAGES = ("callbacks", "datamodules", "lit_models")


def run(arguments, folder, *paths, check=True):
    """Ends a program in a folder, with nothing but the given places to import from first."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    return subprocess.run(
        [str(argument) for argument in arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=check,
        timeout=120,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy, since setuptools writes into the folder it builds from."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns("__pycache__")
    for name in (*PACKAGES, "configs", "scripts"):
        shutil.copytree(ROOT / name, source / name, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run([*pip, "--wheel-dir", target, source], target)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    run([*pip, "--target", target, wheel], target)
    return target


@pytest.fixture
def project(tmp_path):
    """A project of somebody's own, with packages of every name that the checkout has."""
    folder = tmp_path / "project"
    for name in (*PACKAGES[:2], "configs", "scripts"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"mine = {name!r}\n")
    return folder


def test_it_holds_every_module_and_configuration_and_no_more(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for pattern in ("*.py", "*.pyi", "py.typed")
        for path in (ROOT / package).rglob(pattern)
    }
    configs = {
        f"lit_models/{path.relative_to(ROOT).as_posix()}"
        for path in (ROOT / "configs").rglob("*.yaml")
    }
    assert names == modules | configs


def test_it_runs_from_the_folder_of_another_project(installed, project):
    listed = run([installed / "bin" / "lit-models", "list"], project, installed, project).stdout
    assert {path.stem for path in (ROOT / "configs").glob("*.yaml")} - {"defaults"} == {
        line.split()[0] for line in listed.splitlines()[1:] if line[0] != " "
    }
    program = "import lit_models, scripts, configs; print(lit_models.__file__, scripts.mine)"
    shown = run([sys.executable, "-c", program], installed, installed, project).stdout
    assert shown.split() == [str(installed / "lit_models" / "__init__.py"), "scripts"]


def check_refusal(line, project, installed, name):
    assert f"{name!r} is {project / name} here" in line
    assert f"hides {installed / name} of lit_models; rename it" in line


@pytest.mark.parametrize("kept", PACKAGES[:2])
@pytest.mark.parametrize("kind", ["package", "module", "namespace"])
def test_a_stranger_in_front_is_named_in_one_line(installed, project, kept, kind):
    """As in a notebook and with ``python -m``, for which the current folder comes first."""
    for name in PACKAGES[:2]:
        if name != kept:
            shutil.rmtree(project / name)
    (project / kept / "__init__.py").unlink()
    if kind == "package":
        (project / kept / "__init__.py").touch()
    elif kind == "module":
        (project / kept).rmdir()
        (project / f"{kept}.py").touch()
    done = run([sys.executable, "-m", "lit_models", "list"], project, installed, check=False)
    if kind == "namespace":  # Python prefers a package on a later path
        assert done.returncode == 0
        return
    suffix = ".py" if kind == "module" else ""
    assert done.returncode == 2
    assert done.stderr.startswith("lit-models: error: ")
    assert done.stderr.count("\n") == 1
    check_refusal(done.stderr.replace(f"{kept}.py here", f"{kept} here"), project, installed, kept)
    assert f"{kept}{suffix} here" in done.stderr

    for imported in ("import lit_models", "from lit_models import LitGPT"):
        done = run([sys.executable, "-c", imported], project, installed, check=False)
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith("ImportError: ")
        assert f"{kept}{suffix} here" in last

    script = [installed / "bin" / "lit-models", "list"]
    done = run(script, project, project, installed, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_a_stranger_that_is_imported_already_is_named(installed, project):
    program = "import datamodules, sys; sys.path.remove(''); import lit_models"
    done = run([sys.executable, "-c", program], project, installed, check=False)
    assert f"'datamodules' is {project / 'datamodules'} here" in done.stderr.splitlines()[-1]


def test_a_list_without_configurations_is_an_error(installed, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(installed, broken)
    shutil.rmtree(broken / "lit_models" / "configs")
    command = [sys.executable, "-m", "lit_models", "list"]
    done = run(command, tmp_path, broken, check=False)
    assert done.returncode == 2
    assert f"{broken / 'lit_models' / 'configs'} is missing; install" in done.stderr
    assert done.stderr.count("\n") == 1


def test_every_dependency_names_its_lowest_version():
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    found = lowest(project, list(project["optional-dependencies"]))
    named = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    assert len({text.split(">=")[0].split("[")[0] for text in named}) <= len(found)
    assert {"torch", "lightning", "numpy", "jsonargparse", "pytest"} <= set(found)
    assert all(text.startswith(tuple(found)) for text in named)
