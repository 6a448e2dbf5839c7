"""Threads: as many as suit the model and are there, for as long as it speaks; and the parts of a job."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import valle
from valle.common.device import SMALL_PARAMETERS, Place, cpu_quota, parse_part, threads_to_speak
from valle.common.errors import UserError
from valle.synthesis.cloner import VoiceCloner
from valle.synthesis.model import Bundle

PROMPT = Path(valle.__file__).parent / "assets" / "eval" / "1688-142285-0002.opus"


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(("asked", "used"), [(None, 1), (3, 3)])
def test_a_small_model_speaks_on_one_thread_unless_told_otherwise(bundle: Bundle, asked: int | None, used: int) -> None:
    cloner, seen = VoiceCloner(bundle, threads=asked), set()
    cloner.clone("Yes.", PROMPT, progress=lambda share: seen.add(torch.get_num_threads()))
    seen |= {torch.get_num_threads() for _ in cloner.stream("Yes.", PROMPT)}
    assert seen == {used}
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(("quota", "used"), [(float("inf"), 4), (2.5, 2), (0.5, 1)])
def test_a_large_model_takes_the_cores_that_are_there(quota: float, used: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("valle.common.device.cpu_quota", lambda: quota)
    assert threads_to_speak(torch.nn.Embedding(SMALL_PARAMETERS, 1, dtype=torch.bfloat16)) == used


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_quota_of_a_container_is_found(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, str], float]] = [
        ({}, float("inf")),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, float("inf")),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        # A group inside one with a smaller quota; a path that is only seen outside of the container.
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "100000 100000",
                "sys/fs/cgroup/a/b/cpu.max": "300000 100000",
            },
            1.0,
        ),
        ({"proc/self/cgroup": "0::/../x\n", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2.0),
        (
            {
                "proc/self/cgroup": "5:memory:/m\n4:cpu,cpuacct:/docker/1\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            0.5,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            float("inf"),
        ),
    ]
    for number, (files, cores) in enumerate(cases):
        assert cpu_quota(write(tmp_path / str(number), files)) == cores, files


@pytest.mark.parametrize(
    ("code", "given", "policy"),
    [
        ("from valle.cli import main; main(['clone'])", None, "PASSIVE"),
        ("from valle.cli import main; main(['clone'])", "ACTIVE", "ACTIVE"),
        ("from valle import VoiceCloner", None, "PASSIVE"),
        ("from valle import UserError", None, None),
        ("from valle.cli import main; main(['bench', 'train', '--steps', '0'])", None, None),
    ],
)
def test_threads_sleep_while_they_wait_where_somebody_speaks(code: str, given: str | None, policy: str | None) -> None:
    """Not where somebody trains, or uses another part of this package beside his own work."""
    report = "; import os; print(os.environ.get('OMP_WAIT_POLICY'))"
    unset = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment = unset if given is None else {**unset, "OMP_WAIT_POLICY": given}
    done = subprocess.run(
        [sys.executable, "-c", code + report], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == str(policy)


def test_parts_are_counted_from_one() -> None:
    assert parse_part("1/1") == Place(0, 1)
    assert parse_part("3/8") == Place(2, 8)
    for wrong in ("0/2", "3/2", "2", "a/b", "-1/2", ""):
        with pytest.raises(UserError, match="I/N"):
            parse_part(wrong)


def test_a_launcher_says_which_part(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightning")
    assert parse_part("auto") == Place(0, 1)
    torchrun = {"TORCHELASTIC_RUN_ID": "x", "GROUP_RANK": "1", "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    assert parse_part("auto") == Place(5, 8, 1)


def test_each_process_of_a_machine_has_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [Place(5, 8, rank).device("cuda") for rank in (0, 3, 5)] == ["cuda:0", "cuda:3", "cuda:1"]
    assert Place(0, 2).device("cuda") == "cuda"
    assert [Place(5, 8, 1).device(other) for other in ("cpu", "cuda:2")] == ["cpu", "cuda:2"]
