"""Blocks fused by the compiler, or computed again in the backward pass, beside those that are run as they stand."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vpoet.nn.attention import backend
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.nn.visibility import Visibility
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.training.blocks import runner

CPU = torch.device("cpu")
SDPA = backend("sdpa", CPU, torch.float32)
VOCABULARY = Vocabulary(30, (6, 4, 3), "t", "v")
SIZES = TransformerConfig(width=32, depth=2, heads=4, kv_heads=2, hidden=48)


def model(config: TransformerConfig = SIZES) -> Transformer:
    torch.manual_seed(0)
    return Transformer(config, VOCABULARY).train()


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
def test_compiled_blocks_give_the_same_states_and_gradients() -> None:
    transformer = model()
    visibility = Visibility((5, 4, 6), (0, 2, 5))
    ids, positions = torch.randint(VOCABULARY.size, (15,)), torch.randint(9, (15, 3))
    found = []
    for compiled in (False, True):
        transformer.zero_grad()
        states = transformer(ids, positions, SDPA(visibility, CPU), runner(compiled=compiled))
        states.square().sum().backward()
        gradients = [p.grad.clone() for p in transformer.blocks.parameters() if p.grad is not None]
        found.append([states.detach(), *gradients])
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointed_blocks_give_the_same_gradients_and_keep_their_inputs_alone(dropout: float) -> None:
    transformer = model(replace(SIZES, depth=3, dropout=dropout))
    visibility = Visibility((50, 40, 60), (0, 20, 50))
    ids, positions = torch.randint(VOCABULARY.size, (150,)), torch.randint(9, (150, 3))
    weights = {weight.untyped_storage().data_ptr() for weight in transformer.parameters()}
    found, kept = [], []
    for checkpointed in (False, True):
        transformer.zero_grad()
        torch.manual_seed(1)
        saved = {}

        def keep(tensor: Tensor, saved: dict[int, int] = saved) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            states = transformer(ids, positions, SDPA(visibility, CPU), runner(checkpointed=checkpointed))
        kept.append(sum(saved.values()))
        states.square().sum().backward()
        found.append(
            [states.detach(), *(p.grad.clone() for p in transformer.blocks.parameters() if p.grad is not None)]
        )
    for whole, again in zip(*found, strict=True):
        assert torch.equal(again, whole)
    assert kept[1] < kept[0] / 5


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
def test_blocks_are_compiled_and_checkpointed_at_once() -> None:
    transformer = model()
    visibility = Visibility((5, 4, 6), (0, 2, 5))
    ids, positions = torch.randint(VOCABULARY.size, (15,)), torch.randint(9, (15, 3))
    found = []
    for checkpointed in (False, True):
        transformer.zero_grad()
        run = runner(compiled=True, checkpointed=checkpointed)
        transformer(ids, positions, SDPA(visibility, CPU), run).square().sum().backward()
        found.append([p.grad.clone() for p in transformer.parameters() if p.grad is not None])
    for whole, again in zip(*found, strict=True):
        torch.testing.assert_close(again, whole, rtol=1e-5, atol=1e-6)
