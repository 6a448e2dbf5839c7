"""What no single module can promise: the direction of imports, the names of packages, the size of files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("tokenizers", "data", "lm", "valle", "eval")
ROOMS = {
    "common": 0,
    "tokenizers": 1,
    "data": 2,
    "lm": 3,
    "synthesis": 4,
    "training": 5,
    "serve": 5,
    "bench": 6,
    "eval": 7,
    "commands": 8,
    "cli": 8,
}
"""The rooms of the house, and on which floor they are: a module imports its own room and those on floors below."""


LARGER_SOON = ("tokenizers/codecs/", "valle/bench/", "valle/commands/")
"""Where small files are still to be put together; a command is one however short it is."""


def source_files() -> list[Path]:
    """Every module of the package, relative to the root; the links inside `valle` are not followed."""
    return [path.relative_to(ROOT) for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def module_name(path: Path) -> str:
    """The dotted name under which the module at `path`, relative to the root, is imported."""
    parts = path.with_suffix("").parts
    return ".".join(parts if parts[0] == "valle" else ("valle", *parts)).removesuffix(".__init__")


def parse(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))


def imported_modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of all imports, lazy ones too; `from a import b` counts as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def room_of(module: str) -> str | None:
    """The room that holds `module`; None for other projects' modules and for what `valle` itself always holds."""
    package, _, rest = module.partition(".")
    name = rest.partition(".")[0]
    if package != "valle" or name in ("", "__version__", "__main__"):
        return None
    return "synthesis" if name == "VoiceCloner" else name


def run_python(code: str) -> str:
    """Run `code` in a fresh interpreter at the root of the repository, whose folders then head `sys.path`."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("line", "room"),
    [
        ("import torch", None),
        ("import tokenizers", None),
        ("from valle import __version__", None),
        ("from valle.common.audio import load_audio", "common"),
        ("def f():\n    from valle import eval", "eval"),
        ("from valle import VoiceCloner", "synthesis"),
        ("import valle.serve.app", "serve"),
    ],
)
def test_room_of_an_import(line: str, room: str | None) -> None:
    assert [room_of(module) for _, module in imported_modules(ast.parse(line))] == [room]


def test_every_module_is_in_a_room() -> None:
    assert {room_of(module_name(path)) for path in source_files()} == {None, *ROOMS}


def test_imports_go_one_way() -> None:
    wrong = []
    for path in source_files():
        own = room_of(module_name(path))
        for line, module in imported_modules(parse(path)):
            room = room_of(module)
            if own is not None and room not in (None, own) and ROOMS[room] >= ROOMS[own]:
                wrong.append(f"{path}:{line} imports {module}")
    assert wrong == []


def test_no_import_goes_in_a_circle() -> None:
    """Lazy imports and those for types count, too: two modules that need each other are one."""
    names = {module_name(path): path for path in source_files()}
    needs = {name: imports_within(name, path, names) for name, path in names.items()}
    for codec, stream in (("base", "stream"), ("encodec", "encodec_stream")):  # to be one file each
        needs[f"valle.tokenizers.codecs.{codec}"].discard(f"valle.tokenizers.codecs.{stream}")
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for needed in sorted(needs[name]):
                visit(needed, (*way, name))
            done.add(name)

    for name in names:
        visit(name, ())


def imports_within(name: str, path: Path, names: Collection[str]) -> set[str]:
    """The modules among `names` that the one called `name` imports."""
    found = set()
    for _, module in imported_modules(parse(path)):
        found.add(module if module in names else module.rpartition(".")[0])
    return (found & set(names)) - {name, "valle"}


def test_our_modules_are_imported_by_one_name() -> None:
    """`import data.x` beside `import valle.data.x` would make two copies of every class."""
    ours = {"data", "lm", "eval", "configs", "tests"}
    tokenizer_modules = {path.stem for path in (ROOT / "tokenizers").iterdir()}
    wrong = []
    for path in [*source_files(), *(p.relative_to(ROOT) for p in (ROOT / "tests").rglob("*.py"))]:
        for line, module in imported_modules(parse(path)):
            top, _, rest = module.partition(".")
            if top in ours or (top == "tokenizers" and rest.partition(".")[0] in tokenizer_modules):
                wrong.append(f"{path}:{line} imports {module}, not valle.{module}")
    assert wrong == []


def test_nothing_shadows_hugging_face_tokenizers() -> None:
    """A folder without `__init__.py` loses against an installed package of the same name, whatever the path's order."""
    assert not (ROOT / "tokenizers" / "__init__.py").exists()
    assert list((ROOT / "tests").rglob("__init__.py")) == []
    found = run_python(
        "import tokenizers, transformers; transformers.PreTrainedTokenizerFast; print(tokenizers.__file__)"
    )
    assert Path(found).parent != ROOT / "tokenizers"


def test_cloning_does_not_load_what_only_training_and_evaluation_need() -> None:
    heavy = {"lightning", "pytorch_lightning", "lhotse", "transformers", "matplotlib", "librosa", "deepspeed", "wandb"}
    loaded = run_python("import sys, valle; valle.VoiceCloner; print(*{m.partition('.')[0] for m in sys.modules})")
    assert "torch" in loaded.split()
    assert heavy.intersection(loaded.split()) == set()


def test_a_file_holds_one_concept_whole() -> None:
    """Not more than 600 lines; and what few others need stands with them, not in a small file of its own."""
    files = [*source_files(), *(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py"))]
    lines = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in files}
    assert {path: count for path, count in lines.items() if count > 600} == {}
    names = {module_name(path): path for path in source_files()}
    importers = Counter(needed for name, path in names.items() for needed in imports_within(name, path, names))
    small = {str(path) for name, path in names.items() if lines[path] < 60 and importers[name] < 3}
    by_another_name = ("__init__.py", "__main__.py")
    assert {path for path in small if not path.endswith(by_another_name) and not path.startswith(LARGER_SOON)} == set()


def test_loading_runs_no_code_from_files() -> None:
    """`torch.load` and `numpy.load` unpickle, and a pickle can run anything, unless they are told not to."""
    wrong = []
    for path in source_files():
        for node in ast.walk(parse(path)):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load")):
                continue
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            safe = "weights_only" if ast.unparse(node.func) == "torch.load" else "allow_pickle"
            if options.get(safe, "False") != str(safe == "weights_only"):
                wrong.append(f"{path}:{node.lineno} {ast.unparse(node)}")
    assert wrong == []


def test_no_file_names_somebodys_machine() -> None:
    """Absolute paths of the machine where a file was written are useless to everybody else."""
    pattern = re.compile(r"(?<![\w.:/-])/(?:home|root|Users|work|mnt|scratch)/\w+")
    folders = [ROOT / name for name in (*FOLDERS, "configs", "tests", ".ci")]
    files = [path for folder in folders for path in folder.rglob("*")] + list(ROOT.glob("*"))
    texts = {".cfg", ".ipynb", ".json", ".md", ".py", ".sh", ".toml", ".tsv", ".txt", ".yaml", ""}
    wrong = []
    for path in files:
        # In a worktree of git's, `.git` is a file that names the repository.
        if path.is_file() and path.suffix in texts and path.name != ".git":
            wrong += [
                f"{path.relative_to(ROOT)}: {found}" for found in pattern.findall(path.read_text(encoding="utf-8"))
            ]
    assert wrong == []
