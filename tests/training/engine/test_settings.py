"""Further settings of DeepSpeed: passed on, or refused with what to do."""

import json
from pathlib import Path
from typing import Any

import pytest
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

from vpoet.errors import ConfigError
from vpoet.training.engine.base import EngineConfig
from vpoet.training.engine.settings import ON_CUDA, settings
from vpoet.training.optim import OptimizerConfig


def told(path: Path, further: Any, zero: int = 3, on_cuda: bool = False) -> dict[str, Any]:
    path.write_text(json.dumps(further))
    config = EngineConfig(name="deepspeed", zero=zero, deepspeed=str(path))
    return settings(config, OptimizerConfig(clip=0.5), 4, on_cuda=on_cuda)


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_communication_overlaps_on_gpus_in_messages_of_200_megabytes_unless_told_otherwise(
    tmp_path: Path, zero: int
) -> None:
    sharing = told(tmp_path / "file.json", {}, zero, on_cuda=True)["zero_optimization"]
    assert all(sharing[name] for name in ("overlap_comm", "contiguous_gradients", "reduce_scatter"))
    assert sharing["reduce_bucket_size"] == sharing["stage3_prefetch_bucket_size"] == 50_000_000
    asked = {"zero_optimization": {"overlap_comm": False, "reduce_bucket_size": 7}}
    sharing = told(tmp_path / "file.json", asked, zero, on_cuda=True)["zero_optimization"]
    assert (sharing["overlap_comm"], sharing["reduce_bucket_size"], sharing["stage"]) == (False, 7, zero)
    on_cpu = told(tmp_path / "file.json", {}, zero)["zero_optimization"]
    assert not on_cpu.keys() & ON_CUDA.keys()


def test_deepspeed_knows_every_setting_for_gpus() -> None:
    """It takes names that it does not know without a word."""
    known = DeepSpeedZeroConfig.model_fields
    assert ON_CUDA.keys() <= known.keys() | {field.alias for field in known.values()}


def test_gradients_are_summed_in_fp32_and_exchanged_in_another_type_only_if_asked(tmp_path: Path) -> None:
    assert told(tmp_path / "file.json", {})["communication_data_type"] == "fp32"
    asked = told(
        tmp_path / "file.json", {"communication_data_type": "bf16", "data_types": {"grad_accum_dtype": "bf16"}}
    )
    assert (asked["communication_data_type"], asked["data_types"]["grad_accum_dtype"]) == ("bf16", "fp32")


def test_further_settings_are_passed_on_and_what_the_recipe_says_wins(tmp_path: Path) -> None:
    offload = {"device": "cpu", "pin_memory": True}
    further = {
        "zero_optimization": {"stage": 1, "overlap_comm": True, "offload_optimizer": offload, "offload_param": offload},
        "gradient_clipping": 7,
        "communication_data_type": "fp32",
    }
    given = told(tmp_path / "file.json", further)
    assert given["zero_optimization"].items() >= (further["zero_optimization"] | {"stage": 3}).items()
    assert (given["gradient_clipping"], given["gradient_accumulation_steps"]) == (0.5, 4)
    assert given["communication_data_type"] == "fp32"


@pytest.mark.parametrize(
    ("name", "asked", "zero", "named"),
    [
        ("offload_optimizer", {"device": "cpu"}, 0, "from stage 1 on; use engine.zero=1"),
        ("offload_param", {"device": "cpu"}, 2, "from stage 3 on; use engine.zero=3"),
        ("offload_optimizer", {"device": "nvme", "nvme_path": "/x"}, 3, "device = nvme: .* use cpu, or more"),
        ("offload_param", {"device": "nvme", "nvme_path": "/x"}, 3, "device = nvme: .* use cpu, or more"),
        ("offload_optimizer", {"device": "cpu", "ratio": 0.5}, 3, r"offload_optimizer\.ratio = 0\.5"),
        ("offload_optimizer", {"device": "cpu", "super_offload": True}, 3, "super_offload = True"),
    ],
)
def test_offloading_that_could_not_be_saved_or_held_back_is_refused(
    tmp_path: Path, name: str, asked: dict[str, Any], zero: int, named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        told(tmp_path / "file.json", {"zero_optimization": {name: asked}}, zero)


@pytest.mark.parametrize("further", [[], {"zero_optimization": 3}])
def test_a_file_that_is_no_settings_is_refused(tmp_path: Path, further: Any) -> None:
    with pytest.raises(ConfigError, match=r"file\.json: not an object"):
        told(tmp_path / "file.json", further)
