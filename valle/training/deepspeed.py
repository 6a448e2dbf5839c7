"""DeepSpeed's ZeRO for `valle train`: the strategies, and a dry run of them on CPUs.

Names for `--trainer.strategy`: `deepspeed_stage_1`, `…_2` and `…_3` on GPUs, `deepspeed_cpu_stage_1`, `…_2` and `…_3`
for a try on CPUs before GPUs are paid for. ZeRO (arXiv 1910.02054) splits the optimizer's state (1), also the gradients
(2), also the weights (3) between the devices.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DeepSpeedStrategy, StrategyRegistry
from torch import Tensor

from valle.common.errors import UserError
from valle.training.checkpoints import WEIGHTS, load_checkpoint

STAGES = (1, 2, 3)
_ONLY_TO_CONTINUE = ("averaging_state", "callbacks", "loops", "lr_schedulers", "optimizer_states")


def register(name: str) -> None:
    """Make the strategy known to Lightning by its name. Raises `UserError` for a name that is none of ours."""
    if find_spec("deepspeed") is None:
        raise ModuleNotFoundError("DeepSpeed is not installed", name="deepspeed")
    known = {f"deepspeed_stage_{stage}": (Zero, stage) for stage in STAGES}
    known |= {f"deepspeed_cpu_stage_{stage}": (CPUZero, stage) for stage in STAGES}
    if name not in known:
        raise UserError(f"trainer.strategy {name}: known with DeepSpeed are {', '.join(known)}")
    strategy, stage = known[name]
    StrategyRegistry.register(name, strategy, override=True, stage=stage)


class Zero(DeepSpeedStrategy):
    """Lightning's DeepSpeed strategy with whole checkpoints and a guard at every stage.

    A checkpoint is a folder with what DeepSpeed needs to go on, a part for each process, and beside it one ordinary
    file with the whole weights in float32, which is all that `valle export` reads: no DeepSpeed is needed there. The
    folder gets its name when it is complete.
    """

    guards_gradients = True

    def __init__(self, stage: int = 2, **options: Any) -> None:
        super().__init__(stage=stage, **options)
        self._keep: Tensor | None = None

    def setup_environment(self) -> None:
        if not isinstance(self.accelerator, CUDAAccelerator):
            raise UserError(
                "trainer.strategy deepspeed_stage_N needs NVIDIA GPUs; for a try here: deepspeed_cpu_stage_N"
            )
        self._check_averaging()
        super().setup_environment()

    def teardown(self) -> None:
        engine = self.model
        super().teardown()
        if hasattr(engine, "destroy"):
            engine.destroy()  # its hooks would keep it, and its part in the group, until Python ends

    def _check_averaging(self) -> None:
        module = self.lightning_module
        assert module is not None
        if self.zero_stage_3 and any(isinstance(callback, WeightAveraging) for callback in module.trainer.callbacks):
            raise UserError(
                "ZeRO stage 3 leaves no device with the whole weights that the callback EMA averages: use stage 2, or "
                "do without averages (--trainer.callbacks '[]')"
            )

    def init_deepspeed(self) -> None:
        module = self.lightning_module
        assert module is not None
        # Stage 3 checks gradients in fp16 only, so here they are dropped as they are made, if the loss is not finite.
        for parameter in module.parameters():
            if self.zero_stage_3 and parameter.requires_grad:
                parameter.register_hook(self._drop_bad)
        super().init_deepspeed()

    def _drop_bad(self, gradient: Tensor) -> Tensor:
        return gradient if self._keep is None else torch.where(self._keep, gradient, 0)

    def backward(self, closure_loss: Tensor, optimizer: Any, *args: Any, **kwargs: Any) -> Tensor:
        if self.zero_stage_3:
            bad = (~torch.isfinite(closure_loss.detach())).float()
            self._keep = self.reduce(bad, reduce_op="sum") == 0
        return super().backward(closure_loss, optimizer, *args, **kwargs)

    def optimizer_step(self, optimizer: Any, closure: Callable[[], Any], model: Any = None, **kwargs: Any) -> Any:
        result = super().optimizer_step(optimizer, closure, model, **kwargs)
        if self.deepspeed_engine.is_gradient_accumulation_boundary():
            norm = torch.as_tensor(self.deepspeed_engine.get_global_grad_norm() or 0.0)
            dropped = self._keep is not None and not bool(self._keep)
            task: Any = self.lightning_module
            task.count_step(norm.new_tensor(torch.inf) if dropped else norm)
        return result

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        final = Path(self.broadcast(filepath))
        temporary = final.with_name(f".{final.name}.tmp")
        if self.is_global_zero:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        self.barrier()
        averaged = checkpoint.pop("current_model_state", None) is not None
        average = checkpoint.pop("state_dict")
        whole = average if averaged else self._whole_weights()
        if self.is_global_zero:
            facts = {name: value for name, value in checkpoint.items() if name not in _ONLY_TO_CONTINUE}
            facts |= {"state_dict": whole, "processes": self.world_size}
            with (temporary / WEIGHTS).open("wb") as file:
                torch.save(facts, file)
        super().save_checkpoint(checkpoint, temporary, storage_options)
        self.barrier()
        if self.is_global_zero:
            shutil.rmtree(final, ignore_errors=True)
            os.sync()
            temporary.rename(final)
        self.barrier()

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        path = Path(checkpoint_path)
        whole = load_checkpoint(path)
        if whole["processes"] != self.world_size:
            raise UserError(
                f"{path} is that of {whole['processes']} processes, now there are {self.world_size}; "
                "continue with as many, or export it and start a new run from that model (--model)"
            )
        state = super().load_checkpoint(path, weights_only)
        if "averaging_state" in state:
            assert self.lightning_module is not None
            state["state_dict"] = whole["state_dict"]
            state["current_model_state"] = self.lightning_module.state_dict()
        return state

    def _whole_weights(self) -> dict[str, Tensor]:
        """All weights in float32, on the CPU of the first process; buffers as they are."""
        from deepspeed.utils import safe_get_full_fp32_param

        module = self.lightning_module
        assert module is not None
        weights = {
            name: buffer.cpu() for name, buffer in module.state_dict().items() if name not in _parameters(module)
        }
        for name, parameter in _parameters(module).items():
            full = safe_get_full_fp32_param(parameter)  # a joint act of all processes
            if self.is_global_zero:
                weights[name] = (parameter if full is None else full).detach().float().cpu().clone()
        return weights


class CPUZero(Zero):
    """ZeRO on CPUs: slow, but the same code does the same things, so that a job can be tried anywhere."""

    def __init__(self, stage: int = 2, **options: Any) -> None:
        # DeepSpeed looks for its device when it is imported.
        os.environ["DS_ACCELERATOR"] = "cpu"
        super().__init__(stage=stage, **options)

    @property
    def root_device(self) -> torch.device:
        return torch.device("cpu", 0)  # DeepSpeed wants a number

    def setup_environment(self) -> None:
        if not isinstance(self.accelerator, CPUAccelerator):
            raise UserError("deepspeed_cpu_stage_N is for a try on CPUs; on GPUs it is deepspeed_stage_N")
        self._check_averaging()
        # Lightning's own refuses CPUs, and all else that it does is its parents'.
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        import deepspeed

        # What would be compiled for a minute: faster exchange between processes of one machine. A compile that is
        # killed leaves a lock behind that the next run waits for, without end.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self.set_world_ranks()
        self._init_deepspeed_distributed()


def _parameters(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return dict(module.named_parameters())
