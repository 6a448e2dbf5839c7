"""The package as users get it: a wheel and an editable install, away from the repository's root."""

from __future__ import annotations

import ast
import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from valle.cli import build_parser

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("tokenizers", "data", "lm", "valle", "eval", "configs")
FILES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "NOTICE")


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build reads: building in place would leave files behind, and find those of earlier builds."""
    copy = tmp_path_factory.mktemp("source")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, by way of the source distribution, which thus must be complete too."""
    out = tmp_path_factory.mktemp("dist")
    build = "import setuptools.build_meta as b, sys; print(b.build_sdist(sys.argv[1]))"
    name = run(sys.executable, "-c", build, out, cwd=source).splitlines()[-1]
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", out, out / name, cwd=out)
    return next(out.glob("*.whl"))


def install(environment: Path, *what: str | Path) -> Path:
    """Install into a fresh virtual environment that sees the other packages of this one; gives its Python."""
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment.parent)
    site = next(environment.glob("lib/python*/site-packages"))
    # Path files in a folder that a path file names are not read: an editable `valle` there stays out of sight.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = environment / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, *what, cwd=environment.parent)
    return python


@pytest.mark.slow
def test_wheel_holds_every_module_config_and_asset(wheel: Path) -> None:
    names = set(ZipFile(wheel).namelist())
    expected = {f"valle/{name}" for name in files_below(ROOT / "valle")}
    for folder in FOLDERS:
        if folder != "valle":
            expected |= {f"valle/{folder}/{name}" for name in files_below(ROOT / folder)}
    assert expected - names == set()
    assert {name for name in names - expected if ".dist-info/" not in name} == set()
    assert {Path(name).name for name in names if "/licenses/" in name} == {"LICENSE", "NOTICE"}


def imported_from(python: Path, modules: list[str], cwd: Path) -> list[Path]:
    """Import `modules` in a fresh interpreter; gives the file of each."""
    code = "import importlib, sys; print(*(importlib.import_module(name).__file__ for name in sys.argv[1:]), sep='\\n')"
    return [Path(line) for line in run(python, "-c", code, *modules, cwd=cwd).splitlines()[-len(modules) :]]


@pytest.mark.slow
def test_every_module_of_the_wheel_imports(wheel: Path, tmp_path: Path) -> None:
    python = install(tmp_path / "venv", wheel)
    modules = [name[:-3].replace("/", ".") for name in ZipFile(wheel).namelist() if name.endswith(".py")]
    modules = [name.removesuffix(".__init__") for name in modules if not name.endswith("__main__")]
    assert all(place.is_relative_to(tmp_path / "venv") for place in imported_from(python, modules, tmp_path))
    assert "clone" in run(tmp_path / "venv" / "bin" / "valle", "--help", cwd=tmp_path)


@pytest.mark.slow
def test_editable_install_imports_from_anywhere(source: Path, tmp_path: Path) -> None:
    python = install(tmp_path / "venv", "--editable", source)
    modules = [
        "valle.tokenizers.text",
        "valle.data.batch",
        "valle.lm.config",
        "valle.synthesis.model",
        "valle.eval.protocols",
    ]
    for place in (tmp_path, source):
        assert all(file.is_relative_to(source) for file in imported_from(python, modules, place))


def requirements() -> dict[str, list[Requirement]]:
    """What setup.cfg asks for: extra -> requirements, "" for the base."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    groups = {"": config["options"]["install_requires"], **config["options.extras_require"]}
    return {
        extra: [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]
        for extra, text in groups.items()
    }


def test_constraints_are_exact_public_and_within_the_ranges() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    # No `+cpu`, no file, no address: the same file serves everybody.
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []
    pins = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    assert "torchaudio" not in pins
    for extra, group in requirements().items():
        for requirement in group:
            pin = pins.get(canonicalize_name(requirement.name))
            assert pin is not None, f"[{extra}] {requirement.name} has no version in constraints.txt"
            assert requirement.specifier.contains(pin), f"[{extra}] {requirement} does not allow {pin}"


def test_nobody_is_sent_to_a_package_that_is_on_no_index() -> None:
    """valle itself is not: `pip install 'valle[serve]'` gives somebody else's package, or none."""
    texts = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    texts += [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").iterdir()]
    named = re.compile(r"pip install[^\n#]*\bvalle\b|\bvalle\[")
    assert [str(path.relative_to(ROOT)) for path in texts if named.search(path.read_text(encoding="utf-8"))] == []


def test_an_image_is_built_from_what_a_build_reads_and_starts_a_command_that_exists() -> None:
    """No Docker engine is asked: what it copies is what `wheel` above is built from, and its commands are parsed."""
    lines = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == {*FOLDERS, *FILES, "constraints.txt"}
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert "pip install --no-cache-dir -c constraints.txt '.[serve]'" in dockerfile
    assert "pip install '.[serve]' " in (ROOT / "README.md").read_text()
    (words,) = re.findall(r"^CMD (.*)$", dockerfile, re.MULTILINE)
    service = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["valle"]
    assert shlex.split(service["command"]) == json.loads(words)
    assert (ROOT / "deploy" / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    cuda = yaml.safe_load((ROOT / "deploy" / "compose.cuda.yaml").read_text())["services"]["valle"]
    assert all(f"ARG {name}=" in dockerfile for name in cuda["build"]["args"])
    unit = (ROOT / "deploy" / "valle.service").read_text().replace("\\\n", " ")
    (started,) = re.findall(r"^ExecStart=\S*/valle (.*)$", unit, re.MULTILINE)
    for argv in (json.loads(words), shlex.split(started)):
        assert build_parser(argv).parse_args(argv).command == "serve"


def test_cloning_works_without_the_extras() -> None:
    extras = requirements()
    base = {canonicalize_name(requirement.name) for requirement in extras.pop("")}
    del extras["dev"]
    others = {canonicalize_name(requirement.name) for group in extras.values() for requirement in group} - base
    others -= {"setuptools"}  # torch asks for it, too
    blocked = [top for top, names in packages_distributions().items() if others & set(map(canonicalize_name, names))]
    assert {"lightning", "lhotse", "transformers", "jiwer"} <= set(blocked)
    needed = "valle.synthesis.cloner, valle.common.plot, valle.commands.clone"
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); import {needed}"
    run(sys.executable, "-c", code, cwd=ROOT)


def test_every_import_is_declared() -> None:
    """What is imported stands in setup.cfg, in the base or in an extra; what others bring along does not count."""
    declared = {canonicalize_name(requirement.name) for group in requirements().values() for requirement in group}
    distributions = packages_distributions()
    missing = set()
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for top in {name.partition(".")[0] for name in names if name} - sys.stdlib_module_names - {"valle"}:
                if declared.isdisjoint(canonicalize_name(name) for name in distributions.get(top, [top])):
                    missing.add(f"{path.relative_to(ROOT)}:{node.lineno} imports {top}")
    assert missing == set()
