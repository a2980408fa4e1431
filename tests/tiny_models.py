"""A tiny random Llama and a tiny byte-level tokenizer, made afresh in a temporary folder."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "the cat sat on the mat and the dog sat on the log",
    "which answer is better and why would a person prefer the other answer",
    "user assistant system the quick brown fox jumps over the lazy dog",
    "please explain how the weather will be tomorrow in the town",
]

MakeFolder = Callable[..., Path]


def save_tokenizer(folder: Path, *, template: str | None = CHAT_TEMPLATE, merges: int = 60) -> None:
    """Write a byte-level BPE tokenizer (every byte, and a few merges) that knows ChatML."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=len(SPECIAL) + len(alphabet) + merges,
        special_tokens=SPECIAL,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>" if template else "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 128,
        "clean_up_tokenization_spaces": False,
    }
    if template is not None:
        settings["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def save_model(folder: Path, *, seed: int = 0, vocabulary: int = 319, **changes: Any) -> None:
    """Write a random Llama of two layers as config.json and model.safetensors."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    settings: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
        # Wide weights, so that a random model has opinions and its scores differ visibly.
        "initializer_range": 0.3,
        **changes,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**settings))
    model.save_pretrained(folder, safe_serialization=True)


@pytest.fixture(scope="session")
def make_folder(tmp_path_factory: pytest.TempPathFactory) -> MakeFolder:
    """Make another tiny model folder: make_folder(seed=1), make_folder(template=None), ..."""

    def make(
        *, template: str | None = CHAT_TEMPLATE, merges: int = 60, seed: int = 0, **changes: Any
    ) -> Path:
        folder = tmp_path_factory.mktemp("model")
        save_tokenizer(folder, template=template, merges=merges)
        save_model(folder, seed=seed, vocabulary=259 + merges, **changes)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_folder(make_folder: MakeFolder) -> Path:
    """A model folder: Llama of 2 layers and 32 hidden units, ChatML tokenizer. Do not change it."""
    return make_folder()


@pytest.fixture(scope="session")
def tiny_loaded(tiny_folder: Path) -> Any:
    """`tiny_folder` loaded on the CPU in float32."""
    from workbench.scoring.models import load_model, parse_model

    return load_model(parse_model(str(tiny_folder)), dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def tiny_plain_tokenizer(make_folder: MakeFolder) -> Any:
    """A tokenizer without a chat template; its end of sequence is <|endoftext|>."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(make_folder(template=None))


def save_adapter(folder: Path, base: Path, *, seed: int = 0, rank: int = 2) -> Path:
    """Write a random LoRA adapter (not zero, so that it changes scores) on a base folder."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(
        r=rank, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(model, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.5)
    adapted.save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def tiny_adapter(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter folder on `tiny_folder`."""
    return save_adapter(tmp_path_factory.mktemp("adapter"), tiny_folder)


@pytest.fixture(scope="session")
def make_adapter(tmp_path_factory: pytest.TempPathFactory) -> MakeFolder:
    """Make another adapter: make_adapter(base, seed=1)."""

    def make(base: Path, **changes: Any) -> Path:
        return save_adapter(tmp_path_factory.mktemp("adapter"), base, **changes)

    return make
