"""Naming, checking, loading and sharing models."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from workbench.errors import Cancelled, ModelError, ScoringError
from workbench.scoring import default_model, memory, models
from workbench.scoring.models import (
    BUNDLED_POLICY,
    LoadedModel,
    check_adapter,
    check_folder,
    check_same_tokenizer,
    list_models,
    load_model,
    model_digest,
    parse_model,
)

MakeFolder = Callable[..., Path]
IDS = torch.tensor([[1, 87, 318, 201, 260]])


def load(name: str | Path, **changes: Any) -> LoadedModel:
    return load_model(parse_model(str(name)), **{"dtype": "float32", "device": "cpu", **changes})


def logits(loaded: LoadedModel) -> torch.Tensor:
    with torch.inference_mode(), loaded.active():
        found: torch.Tensor = loaded.model(IDS).logits[0]
        return found


@pytest.fixture
def copy(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that may be spoiled."""
    return _copied(tiny_folder, tmp_path / "copy")


@pytest.fixture
def adapter_copy(tiny_adapter: Path, tmp_path: Path) -> Path:
    """A copy of the tiny adapter that may be spoiled."""
    return _copied(tiny_adapter, tmp_path / "adapter")


def _copied(source: Path, target: Path) -> Path:
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def _change(path: Path, **changes: Any) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**value, **changes}), encoding="utf-8")


# Names


def test_names_are_read(tiny_folder: Path, tmp_path: Path) -> None:
    spec = parse_model(" default ")
    assert (spec.name, spec.base, spec.adapter) == ("default", "default", None)
    assert parse_model("default+policy").adapter == BUNDLED_POLICY
    assert parse_model("hub:org/name@v1.0").base == "hub:org/name@v1.0"
    assert parse_model(f"hub:org/name+adapter:{tmp_path}").adapter == tmp_path
    folder = parse_model(f"{tiny_folder}+adapter:{tmp_path}")
    assert (folder.base, folder.adapter) == (str(tiny_folder), tmp_path)
    assert parse_model(str(tiny_folder)).base == str(tiny_folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing-of-that-name",
        "a\0b",
        "x" * 1_000_000,
        "~nobody-of-that-name/model",
        "default+adapter:",
        "default+adapter:a\0b",
        "default+adapter:" + "x" * 1_000_000,
        "default+adapter:~nobody-of-that-name/adapter",
        "+adapter:x",
        "hub:name",
        "hub:../..",
        "hub:a/b/c",
        "hub:a/b@../../c",
        "hub:a/b@",
        "<script>alert(1)</script>",
    ],
)
def test_what_names_no_model_is_refused_briefly(text: str, tiny_folder: Path) -> None:
    with pytest.raises(ModelError) as caught:
        check_adapter(parse_model(text).adapter or Path("none"))
    assert len(str(caught.value)) < 500


def test_the_list_tells_what_is_here(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    default, policy = list_models()
    assert (default.name, default.available) == ("default", False)
    assert "93 MB" in default.note
    assert (policy.name, policy.available) == ("default+policy", False)
    ours = default_model.default_model_path()
    ours.parent.mkdir(parents=True)
    _copied(tiny_folder, ours)
    _copied(tiny_folder, ours.parent / "another")
    (ours.parent / "no-weights").mkdir()
    (ours.parent / "no-weights" / "config.json").write_text("{}", encoding="utf-8")
    default, _, another = list_models()
    assert (default.available, default.note) == (True, "")
    assert another.title == "another"
    assert load(another.name).n_parameters > 0


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from workbench.scoring.models import list_models; list_models();"
        "print([m for m in ('torch', 'transformers', 'peft', 'gguf') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


# Loading


def test_a_folder_loads_as_transformers_loads_it(
    tiny_folder: Path, tiny_loaded: LoadedModel
) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        torch.testing.assert_close(logits(tiny_loaded), theirs(IDS).logits[0])
    assert tiny_loaded.name == str(tiny_folder)
    assert (tiny_loaded.dtype, tiny_loaded.device, tiny_loaded.max_length) == (
        "float32",
        "cpu",
        128,
    )
    assert tiny_loaded.n_parameters == sum(p.numel() for p in theirs.parameters())
    assert not any(p.requires_grad for p in tiny_loaded.model.parameters())
    assert tiny_loaded.model.config._attn_implementation == "sdpa"


def test_default_is_the_converted_folder(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, adapter_copy: Path
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(default_model, "default_model_folder", lambda *args: tiny_folder)
    monkeypatch.setattr(models, "BUNDLED_POLICY", adapter_copy)
    reference = load("default", progress=lambda done, total, note: notes.append(note))
    policy = load("default+policy")
    assert notes == ["loading default"]
    assert policy.model is reference.model
    assert policy.digest != reference.digest
    assert not torch.allclose(logits(policy), logits(reference), atol=1e-3)


def test_a_missing_bundled_policy_is_named(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(default_model, "default_model_folder", lambda *args: tiny_folder)
    monkeypatch.setattr(models, "BUNDLED_POLICY", tmp_path)
    with pytest.raises(ModelError, match=r"adapter_config\.json"):
        load("default+policy")


def test_cancelling_stops_before_the_weights_are_read(tiny_folder: Path) -> None:
    with pytest.raises(Cancelled, match="loading"):
        load(tiny_folder, cancelled=lambda: True)
    assert load(tiny_folder, cancelled=lambda: False).n_parameters


def test_what_does_not_fit_is_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _change(copy / "config.json", note="another digest")
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1000)
    with pytest.raises(ScoringError, match=r"Loading copy.*choose a smaller model"):
        load(copy)


def test_dtype_and_device_are_chosen(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_cpu_has_bfloat16", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert load(tiny_folder, dtype="auto", device="auto").dtype == "float32"
    assert models.choose_dtype("cpu", 10**9) == "bfloat16"
    assert models.choose_dtype("cuda", 10**9) == "bfloat16"
    assert models.choose_dtype("cuda", 10**8) == "float32"
    assert models.choose_dtype("mps", 10**9) == "float32"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert models.choose_device() == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert models.choose_device() == "cuda"
    with pytest.raises(ModelError, match="no number type"):
        load(tiny_folder, dtype="fast")
    with pytest.raises(ModelError, match="no number type"):
        load(tiny_folder, dtype="nn")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("flags: sse avx512_bf16", True), ("flags: amx_bf16", True), ("flags: avx2", False)],
)
def test_bfloat16_is_for_processors_that_multiply_it(
    monkeypatch: pytest.MonkeyPatch, flags: str, expected: bool
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path, **options: flags)
    assert models._cpu_has_bfloat16() is expected


def test_an_unknown_processor_gets_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(path: Path, **options: object) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", unreadable)
    assert models.choose_dtype("cpu", 10**9) == "float32"


# Digests and sharing


def test_digests_follow_the_content_not_the_place(tiny_folder: Path, copy: Path) -> None:
    assert model_digest(copy) == model_digest(tiny_folder)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        before = model_digest(copy)
        with (copy / name).open("ab") as file:
            file.write(b" ")
        assert model_digest(copy) != before, name
    before = model_digest(copy)
    (copy / "README.md").write_text("not scored", encoding="utf-8")
    assert model_digest(copy) == before


def test_files_are_read_once_for_their_digest(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = model_digest(copy)
    monkeypatch.setattr(Path, "open", lambda *args, **options: pytest.fail("read again"))
    assert model_digest(copy) == first


def test_one_base_is_in_memory_once(tiny_folder: Path, tiny_adapter: Path, copy: Path) -> None:
    one, same = load(tiny_folder), load(copy)
    policy = load(f"{tiny_folder}+adapter:{tiny_adapter}")
    assert one.model is same.model is policy.model
    assert load(tiny_folder, dtype="bfloat16").model is not one.model


def test_a_base_that_nobody_uses_is_freed(make_folder: MakeFolder) -> None:
    import gc

    folder = make_folder(seed=77)
    gc.collect()  # what other tests have left
    loaded = load(folder)
    held = len(models._bases)
    del loaded
    gc.collect()
    assert len(models._bases) == held - 1


def test_adapters_switch_on_and_off_exactly(
    tiny_folder: Path, tiny_adapter: Path, make_adapter: MakeFolder
) -> None:
    reference = load(tiny_folder)
    before = logits(reference)
    first = load(f"{tiny_folder}+adapter:{tiny_adapter}")
    second = load(f"{tiny_folder}+adapter:{make_adapter(tiny_folder, seed=5)}")
    one, other = logits(first), logits(second)
    assert not torch.allclose(one, other, atol=1e-3)
    for loaded, expected in [(reference, before), (first, one), (second, other)] * 2:
        assert torch.equal(logits(loaded), expected)
    assert len({reference.digest, first.digest, second.digest}) == 3


def test_an_adapter_scores_as_if_merged(tiny_folder: Path, tiny_adapter: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, tiny_adapter).merge_and_unload().eval()
    policy = load(f"{tiny_folder}+adapter:{tiny_adapter}")
    with torch.inference_mode():
        torch.testing.assert_close(logits(policy), merged(IDS).logits[0], rtol=1e-4, atol=1e-4)


def test_roles_do_not_mix_between_threads(tiny_folder: Path, tiny_adapter: Path) -> None:
    reference, policy = load(tiny_folder), load(f"{tiny_folder}+adapter:{tiny_adapter}")
    expected = {id(each): logits(each) for each in (reference, policy)}
    right: list[bool] = []

    def work(loaded: LoadedModel) -> None:
        right.extend(torch.equal(logits(loaded), expected[id(loaded)]) for _ in range(30))

    threads = [threading.Thread(target=work, args=(each,)) for each in (reference, policy) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(right) == 120
    assert all(right)


def test_a_retrained_adapter_in_the_same_folder_is_another(
    tiny_folder: Path, adapter_copy: Path, make_adapter: MakeFolder
) -> None:
    name = f"{tiny_folder}+adapter:{adapter_copy}"
    old = load(name)
    before = logits(old)
    newer = make_adapter(tiny_folder, seed=9) / "adapter_model.safetensors"
    (adapter_copy / newer.name).write_bytes(newer.read_bytes())
    new = load(name)
    assert new.digest != old.digest
    assert not torch.allclose(logits(new), before, atol=1e-3)
    assert torch.equal(logits(old), before)


def test_a_lone_model_needs_no_switch(tiny_loaded: LoadedModel) -> None:
    lone = LoadedModel(tiny_loaded.model, None, "lone", "d", "t", "float32", "cpu", 128, 1)
    with lone.active():
        assert lone.adapter is None


# Refusals


@pytest.mark.parametrize(
    "change",
    [
        {"auto_map": {"AutoModelForCausalLM": "code.Model"}},
        {"text_config": {"inner": [{"auto_map": {}}]}},
        {"_attn_implementation": "eager"},
        {"sub": {"_attn_implementation_internal": "org/kernel"}},
        {"attn_implementation": "org/kernel"},
    ],
)
def test_configurations_that_ask_for_code_are_refused(copy: Path, change: dict[str, Any]) -> None:
    (copy / "code.py").write_text("raise SystemExit('code was run')", encoding="utf-8")
    _change(copy / "config.json", **change)
    with pytest.raises(ModelError, match="asks for code of its own"):
        load(copy)


def test_a_tokenizer_that_asks_for_code_is_refused(copy: Path) -> None:
    _change(copy / "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.T", None]})
    with pytest.raises(ModelError, match="asks for code of its own"):
        load(copy)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("config.json", None, r"has no config\.json"),
        ("config.json", b"{", "not valid JSON"),
        ("config.json", b"\xff\xfe", "not valid JSON"),
        ("config.json", b"[" * 100_000, "not valid JSON"),
        ("config.json", b"[]", "no JSON object"),
        ("config.json", b"{}", "cannot be loaded"),
        ("config.json", b'{"model_type": "t5"}', "cannot be loaded"),
        ("config.json", b'{"model_type": "llama", "hidden_size": "x"}', "cannot be loaded"),
        ("model.safetensors", None, "no safetensors"),
        ("model.safetensors", b"", "no whole safetensors file"),
        ("model.safetensors", b"\xff" * 64, "no whole safetensors file"),
        ("model.safetensors", b"\x02" + bytes(7) + b"[]", "no whole safetensors file"),
        ("model.safetensors", b"\x06" + bytes(7) + b'{"a":1', "no whole safetensors file"),
        ("tokenizer.json", None, "has no tokenizer"),
        ("tokenizer.json", b"{}", "cannot be loaded"),
    ],
)
def test_spoiled_files_are_named(copy: Path, name: str, content: bytes | None, found: str) -> None:
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_bytes(content)
    with pytest.raises(ModelError, match=found):
        load(copy)


def test_a_file_cut_short_is_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"model\.safetensors is no whole"):
        load(copy)


def test_pickles_are_refused_unread(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(ModelError, match="only pickle files, which can run code"):
        load(copy)


def test_links_out_of_the_folder_are_refused(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}", encoding="utf-8")
    (copy / "inside.json").symlink_to(copy / "config.json")
    check_folder(copy)
    (copy / "generation_config.json").unlink(missing_ok=True)
    (copy / "generation_config.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ModelError, match="link out of its folder"):
        load(copy)


def test_the_hubs_cache_may_link_to_its_blobs(tiny_folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    _copied(tiny_folder, repository / "blobs")
    for path in (repository / "blobs").iterdir():
        (snapshot / path.name).symlink_to(path)
    assert load(snapshot).n_parameters
    (tmp_path / "secret.json").write_text("{}", encoding="utf-8")
    (snapshot / "vocab.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ModelError, match="link out of its folder"):
        load(snapshot)


def test_pipes_are_refused(copy: Path) -> None:
    os.mkfifo(copy / "generation_config_2.json")
    with pytest.raises(ModelError, match="is not a file"):
        load(copy)


@pytest.mark.parametrize("named", ["../other/model.safetensors", "pytorch_model.bin", "/etc/x"])
def test_an_index_may_name_only_what_is_in_the_folder(copy: Path, named: str) -> None:
    index = copy / "model.safetensors.index.json"
    weights = {"model.norm.weight": "model.safetensors"}
    index.write_text(json.dumps({"metadata": {}, "weight_map": weights}), encoding="utf-8")
    check_folder(copy)
    weights["lm_head.weight"] = named
    index.write_text(json.dumps({"metadata": {}, "weight_map": weights}), encoding="utf-8")
    with pytest.raises(ModelError, match="which is not in the folder"):
        load(copy)
    index.write_text(json.dumps({"weight_map": []}), encoding="utf-8")
    with pytest.raises(ModelError, match="which is not in the folder"):
        load(copy)


def test_missing_weights_are_not_made_up(copy: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of its model's weights.*up_proj"):
        load(copy)


def test_weights_that_are_not_numbers_are_refused(copy: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm.weight"] = np.full_like(tensors["model.norm.weight"], np.nan)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="not numbers"):
        load(copy)


# Of 300 random models these two hide it from a probe with a single other ending.
@pytest.mark.parametrize("seed", [100, 169])
def test_a_model_that_reads_both_ways_is_refused(
    tiny_folder: Path, tmp_path: Path, seed: int
) -> None:
    from transformers import BertConfig, BertLMHeadModel

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=319,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.5,
    )
    BertLMHeadModel(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_folder / name).read_bytes())
    with pytest.raises(ModelError, match="does not read from left to right"):
        load(tmp_path)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(
    make_folder: MakeFolder, copy: Path
) -> None:
    larger = make_folder(merges=80)
    (copy / "tokenizer.json").write_bytes((larger / "tokenizer.json").read_bytes())
    with pytest.raises(ModelError, match=r"token 338, and its model knows 319"):
        load(copy)


# Adapters


@pytest.mark.parametrize(
    "change",
    [
        {"peft_type": "PREFIX_TUNING"},
        {"auto_mapping": {"parent_library": "os"}},
        {"megatron_config": {}, "megatron_core": "antigravity"},
        {"layer_replication": [[0, 1], [0, 1]]},
        {"bias": "all"},
        {"init_lora_weights": "pissa"},
    ],
)
def test_adapters_that_would_change_more_are_refused(
    adapter_copy: Path, tiny_folder: Path, change: dict[str, Any]
) -> None:
    _change(adapter_copy / "adapter_config.json", **change)
    with pytest.raises(ModelError, match="only plain LoRA adapters"):
        load(f"{tiny_folder}+adapter:{adapter_copy}")


def test_adapter_folders_are_checked_like_models(adapter_copy: Path, tmp_path: Path) -> None:
    check_adapter(adapter_copy)
    with pytest.raises(ModelError, match="no adapter folder"):
        check_adapter(tmp_path / "none")
    (adapter_copy / "adapter_model.safetensors").rename(adapter_copy / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"only pickle files.*adapter weights"):
        check_adapter(adapter_copy)


@pytest.mark.parametrize("first", [True, False])
def test_an_adapter_for_another_base_leaves_this_one_as_it_was(
    make_folder: MakeFolder, make_adapter: MakeFolder, first: bool
) -> None:
    base = make_folder(seed=21 + first)
    reference = load(base)
    before = logits(reference)
    fitting = f"{base}+adapter:{make_adapter(base)}"
    expected = None if first else logits(load(fitting))
    wide = make_folder(hidden_size=64, intermediate_size=64)
    with pytest.raises(ModelError, match="does not fit its base"):
        load(f"{base}+adapter:{make_adapter(wide)}")
    deep = make_folder(num_hidden_layers=3)
    with pytest.raises(ModelError, match="does not fit its base"):
        load(f"{base}+adapter:{make_adapter(deep)}")
    assert torch.equal(logits(reference), before)
    if expected is not None:
        assert torch.equal(logits(load(fitting)), expected)
    assert not torch.allclose(logits(load(fitting)), before, atol=1e-3)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "change", [{"target_modules": ["q_proj", "k_proj", "v_proj"]}, {"r": 3}, {"r": "x"}]
)
def test_an_adapter_whose_settings_and_weights_disagree_is_refused(
    make_folder: MakeFolder,
    make_adapter: MakeFolder,
    adapter_copy: Path,
    change: dict[str, Any],
    first: bool,
) -> None:
    base = make_folder(seed=31 + first)
    reference = load(base)
    before = logits(reference)
    if not first:
        load(f"{base}+adapter:{make_adapter(base)}")
    _change(adapter_copy / "adapter_config.json", **change)
    with pytest.raises(ModelError, match="does not fit its base"):
        load(f"{base}+adapter:{adapter_copy}")
    assert torch.equal(logits(reference), before)
    fitting = load(f"{base}+adapter:{make_adapter(base, seed=4)}")
    assert not torch.allclose(logits(fitting), before, atol=1e-3)
    assert torch.equal(logits(reference), before)


def test_an_adapter_without_lora_weights_is_refused(tiny_folder: Path, adapter_copy: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"other": np.zeros(2, np.float32)}, adapter_copy / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="no LoRA weights"):
        load(f"{tiny_folder}+adapter:{adapter_copy}")


# Two models together


def test_equal_tokenizers_may_be_compared(
    tiny_loaded: LoadedModel, make_folder: MakeFolder
) -> None:
    check_same_tokenizer(tiny_loaded, tiny_loaded)
    check_same_tokenizer(tiny_loaded, load(make_folder(seed=2)))


def test_other_vocabularies_are_refused(tiny_loaded: LoadedModel, make_folder: MakeFolder) -> None:
    with pytest.raises(ModelError, match=r"different tokenizers \(10 entries differ\)"):
        check_same_tokenizer(tiny_loaded, load(make_folder(merges=70)))


@pytest.mark.parametrize("template", [None, "{{ raise_exception('no') }}"])
def test_other_templates_are_refused(
    tiny_loaded: LoadedModel, make_folder: MakeFolder, template: str | None
) -> None:
    other = load(make_folder(template=template, seed=2))
    with pytest.raises(ModelError, match="chat templates differ"):
        check_same_tokenizer(tiny_loaded, other)


# The hub


def test_hub_names_go_to_the_hub_with_safe_patterns(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Any]] = []

    def fetch(name: str, **options: Any) -> str:
        asked.append((name, options))
        return str(tiny_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert load("hub:org/name@v2").n_parameters
    assert load("hub:org/name").n_parameters
    (name, options), (_, plain) = asked
    assert (name, options["revision"], plain["revision"]) == ("org/name", "v2", None)
    assert not any(".py" in p or ".bin" in p or p == "*" for p in options["allow_patterns"])


def test_an_unreachable_hub_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(name: str, **options: Any) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    with pytest.raises(ModelError, match=r"cannot be fetched from the hub.*no route"):
        load("hub:org/name")
