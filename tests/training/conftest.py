"""A tiny random Llama with pairs of tokens for it; nothing is fetched."""

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from workbench.training.preference import PairTokens

os.environ.setdefault("HF_HUB_OFFLINE", "1")

VOCABULARY = 97
SIZES = [(5, 7, 3), (1, 2, 9), (12, 4, 4), (6, 1, 1), (3, 20, 2), (8, 5, 11)]


@pytest.fixture
def make_llama() -> Callable[[], Any]:
    """Make a fresh Llama of four blocks, always the same, frozen and in evaluation mode."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        # Wide weights, so that a random model has opinions.
        initializer_range=0.3,
        tie_word_embeddings=True,
    )

    def make() -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return LlamaForCausalLM(config).eval().requires_grad_(False)

    return make


@pytest.fixture
def pairs() -> list[PairTokens]:
    """Pairs of several lengths, among them a prompt and answers of one token."""
    generator = torch.Generator().manual_seed(1)

    def some(n: int) -> Tensor:
        return torch.randint(0, VOCABULARY, (n,), generator=generator)

    return [PairTokens(some(p), (some(a), some(b))) for p, a, b in SIZES]
