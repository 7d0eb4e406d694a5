"""Further settings of DeepSpeed: passed on, or refused with what to do."""

import json
from pathlib import Path
from typing import Any

import pytest

from vpoet.errors import ConfigError
from vpoet.training.engine.base import EngineConfig
from vpoet.training.engine.settings import settings
from vpoet.training.optim import OptimizerConfig


def told(path: Path, further: Any, zero: int = 3) -> dict[str, Any]:
    path.write_text(json.dumps(further))
    return settings(EngineConfig(name="deepspeed", zero=zero, deepspeed=str(path)), OptimizerConfig(clip=0.5), 4)


def test_further_settings_are_passed_on_and_what_the_recipe_says_wins(tmp_path: Path) -> None:
    offload = {"device": "cpu", "pin_memory": True}
    further = {
        "zero_optimization": {"stage": 1, "overlap_comm": True, "offload_optimizer": offload, "offload_param": offload},
        "gradient_clipping": 7,
        "communication_data_type": "fp32",
    }
    given = told(tmp_path / "file.json", further)
    assert given["zero_optimization"] == further["zero_optimization"] | {"stage": 3}
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
