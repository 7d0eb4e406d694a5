"""What DeepSpeed is told: the recipe's own settings, and beside them those of the JSON file ``engine.deepspeed``."""

import json
from pathlib import Path
from typing import Any

from vpoet.errors import ConfigError
from vpoet.nn.transformer import Block
from vpoet.training.engine.base import EngineConfig
from vpoet.training.engine.loss_scale import START
from vpoet.training.optim import OptimizerConfig

ON_CUDA: dict[str, Any] = {
    # Stages 2 and 3 reduce gradients while the backward pass goes on, of every micro-batch; stage 1 once a step, after
    # it (in bf16). At stage 2 DeepSpeed waits for the GPU once a micro-batch for it: far less than a reduction takes.
    "overlap_comm": True,
    "contiguous_gradients": True,  # a bucket is one buffer, and memory does not fall to pieces
    "reduce_scatter": True,
    # Values in a message. 200 MB of fp32 use NVLink and InfiniBand to the full, and of 1B weights all but the last of
    # 20 buckets travel beside the backward pass; DeepSpeed's 5e8 would start when half of it is over, and keep 2 GB
    "reduce_bucket_size": 50_000_000,
    "allgather_bucket_size": 200_000_000,  # weights, after the step: nothing to overlap with
    # Stage 3: as much is fetched ahead as a block of 3B has, norms and the like stay whole
    "stage3_prefetch_bucket_size": 50_000_000,
    "stage3_param_persistence_threshold": 100_000,
}
"""How ZeRO's communication is laid out on GPUs; a file ``engine.deepspeed`` may say otherwise. On CPUs it is
DeepSpeed's own: gloo computes on the cores that the backward pass needs."""


def settings(config: EngineConfig, optimizer: OptimizerConfig, micro_batches: int, *, on_cuda: bool) -> dict[str, Any]:
    """DeepSpeed's configuration; ConfigError if the file is not one, or asks for what vpoet cannot keep its word with.

    Gradients are summed in fp32 over micro-batches and processes alike: 64 micro-batches summed in bf16 are off by
    0.5%, and added up in it across processes by 0.04%. A file may ask for ``communication_data_type`` bf16: half of
    the traffic, and the latter error. Stage 3 gathers the weights of a block at once, at its ends: within it nothing
    of DeepSpeed's stands between operations, so that they can be compiled (`vpoet.training.blocks`). Offloading to the
    CPU needs no op of DeepSpeed's: the optimiser is torch's fused AdamW there as well.
    """
    further: Any = {}
    if config.deepspeed:
        try:
            further = json.loads(Path(config.deepspeed).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"engine.deepspeed = {config.deepspeed}: not readable as JSON: {error}") from None
    sharing = further.get("zero_optimization", {}) if isinstance(further, dict) else None
    if not isinstance(sharing, dict):
        raise ConfigError(f"engine.deepspeed = {config.deepspeed}: not an object, or its zero_optimization is none")
    _check_offloading(sharing, config)
    laid_out = dict(ON_CUDA) if on_cuda and config.zero else {}
    if config.zero == 3:
        laid_out["leaf_module"] = {"classes": [f"{Block.__module__}.{Block.__qualname__}"]}
    told: dict[str, Any] = {"communication_data_type": "fp32"}
    told |= further
    told |= {
        "data_types": {"grad_accum_dtype": "fp32"},
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": micro_batches,
        "gradient_clipping": optimizer.clip,
        "zero_force_ds_cpu_optimizer": False,  # DeepSpeed's own Adams are compiled at the first start, for minutes
        "bf16": {"enabled": config.dtype == "bf16"},
        "fp16": {"enabled": config.dtype == "fp16", "loss_scale": START},
        "zero_optimization": laid_out | sharing | {"stage": config.zero},
        "steps_per_print": 2**31,
    }
    return told


def _check_offloading(sharing: dict[str, Any], config: EngineConfig) -> None:
    for name, least in (("offload_optimizer", 1), ("offload_param", 3)):
        asked = sharing.get(name) or {}
        where = f"engine.deepspeed = {config.deepspeed}: {name}"
        device = asked.get("device", "none")
        if device == "none":
            continue
        if device != "cpu":
            raise ConfigError(
                f"{where}.device = {device}: vpoet's checkpoints were never tried with what is swapped out there; use "
                "cpu, or more processes, which share what is too much for one"
            )
        if config.zero < least:
            raise ConfigError(
                f"{where}: DeepSpeed does so from stage {least} on; use engine.zero={least}, or remove it"
            )
        for key, only in (("ratio", 1), ("super_offload", False)):
            if asked.get(key, only) != only:
                raise ConfigError(
                    f"{where}.{key} = {asked[key]}: a second optimiser would take part of each step, also of those "
                    "that are to be left out (guard); remove it"
                )
