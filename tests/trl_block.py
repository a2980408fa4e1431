"""TRL's own losses, run on log-probabilities: cut out of the installed trainers and executed."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from workbench.objectives.logps import PairLogps


def oracle_pairs() -> PairLogps:
    """The four pairs of the oracle table (core 4.3), with what else an objective may read."""
    rows = [
        [-10, -25, -7, -40],
        [-12, -20, -7, -65],
        [-11, -24, -7, -55],
        [-11, -26, -7, -45],
        [5, 10, 4, 20],
        [6, 9, 4, 30],
        [-8, -9, -30, -4],
        [3, 4, 9, 2],
        [-9, -21, -6, -33],
        [4, 11, 3, 19],
        [0.4, 1.2, -0.3, 1.5],
    ]
    return PairLogps(*torch.tensor(rows, dtype=torch.float64))


def dpo_losses(pairs: PairLogps, config: Any) -> list[Tensor]:
    """Losses of the DPO trainer by loss type, before their weights; shape (pairs,) each.

    Args:
        pairs: Scores, float64.
        config: A DPOConfig, or something with its fields.
    """
    block = _cut(
        "trainer/dpo_trainer.py",
        "        # Get the log ratios for the chosen and rejected responses",
        "            if self.use_weighting:",
    )
    block += "\n    found.append(per_sequence_loss)\n"
    # TRL has no limit for float64 in its table of exponents.
    block = block.replace("torch.float32: 80.0}", "torch.float32: 80.0, torch.float64: 700.0}")
    lengths = torch.cat([pairs.require("n_chosen"), pairs.require("n_rejected")])
    mask = (torch.arange(32) < lengths[:, None]).long()
    sums = torch.cat([pairs.policy_chosen, pairs.policy_rejected])
    trainer = SimpleNamespace(
        f_divergence_type=config.f_divergence_type,
        f_alpha_divergence_coef=config.f_alpha_divergence_coef,
        beta=config.beta,
        label_smoothing=config.label_smoothing,
        loss_types=config.loss_type,
        loss_weights=[1.0] * len(config.loss_type),
        args=config,
    )
    found: list[Tensor] = []
    names = {
        "self": trainer,
        "chosen_logps": pairs.policy_chosen,
        "rejected_logps": pairs.policy_rejected,
        "ref_chosen_logps": pairs.reference_chosen,
        "ref_rejected_logps": pairs.reference_rejected,
        "per_token_logps": (sums / lengths)[:, None] * mask,
        "completion_mask": mask,
        "shift_completion_mask": mask,
        "found": found,
    }
    _run(block, names)
    return found


def dpo_loss(pairs: PairLogps, config: Any) -> Tensor:
    """The DPO trainer's loss of the batch, its loss types weighted."""
    losses = dpo_losses(pairs, config)
    weights = config.loss_weights or [1.0] * len(losses)
    return sum((w * loss.mean() for w, loss in zip(weights, losses, strict=True)), torch.zeros(()))


def kto_loss(pairs: PairLogps, config: Any) -> Tensor:
    """The KTO trainer's loss of the batch's 2 * pairs answers."""
    block = _cut(
        "trainer/kto_trainer.py", "        # Chosen losses", "        self._metrics[mode]["
    )
    names = {
        "self": _with_accelerator(config, "beta", "loss_type", "desirable_weight",
                                  "undesirable_weight"),
        "kl": pairs.require("mismatched").mean().clamp(min=0),
        "chosen_logps": pairs.policy_chosen,
        "rejected_logps": pairs.policy_rejected,
        "ref_chosen_logps": pairs.reference_chosen,
        "ref_rejected_logps": pairs.reference_rejected,
    }  # fmt: skip
    found: Tensor = _run(block, names)["losses"]
    return found.nanmean()


def cpo_loss(pairs: PairLogps, config: Any) -> Tensor:
    """The CPO trainer's loss of the batch: its preference part and the likelihood."""
    trainer = pytest.importorskip("trl.experimental.cpo").CPOTrainer
    settings = _with_accelerator(
        config, "alpha", "beta", "loss_type", "label_smoothing", "simpo_gamma"
    )
    scores = (pairs.policy_chosen, pairs.policy_rejected)
    if config.loss_type == "simpo":
        scores = (pairs.chosen_per_token, pairs.rejected_per_token)
    preference: Tensor = trainer.cpo_loss(settings, *scores)[0]
    return preference.mean() + config.cpo_alpha * token_mean(
        pairs.policy_chosen, pairs.require("n_chosen")
    )


def orpo_loss(pairs: PairLogps, config: Any) -> Tensor:
    """The ORPO trainer's loss of the batch, in float32 as there."""
    trainer = pytest.importorskip("trl.experimental.orpo").ORPOTrainer
    ratio = trainer.odds_ratio_loss(
        _with_accelerator(config, "beta"), pairs.chosen_per_token, pairs.rejected_per_token
    )[0]
    likelihood = token_mean(
        pairs.policy_chosen + pairs.require("policy_prompt"),
        pairs.require("n_chosen") + pairs.require("n_prompt"),
    )
    found: Tensor = likelihood - ratio.mean()
    return found


def tpo_loss(pairs: PairLogps, config: Any) -> Tensor:
    """The TPO trainer's loss of the batch: its contrast and the gold answers' likelihood."""
    block = _cut(
        "experimental/tpo/tpo_trainer.py",
        "        delta_score = chosen_logps - rejected_logps",
        "        # NLL loss on the gold",
    )
    means = config.loss_type in ("ipo", "tpo-l")
    names = {
        "self": config,
        "chosen_logps": pairs.chosen_per_token if means else pairs.policy_chosen,
        "rejected_logps": pairs.rejected_per_token if means else pairs.policy_rejected,
    }
    found: Tensor = _run(block, names)["loss"]
    gold = token_mean(pairs.require("policy_gold"), pairs.require("n_gold"))
    return found + config.tpo_alpha * gold


def token_mean(logp: Tensor, n_tokens: Tensor) -> Tensor:
    """Negative log-likelihood a token over a whole batch."""
    return -logp.sum() / n_tokens.sum()


def _cut(file: str, first: str, behind: str) -> str:
    """The lines of a trainer's `_compute_loss` from `first` to before `behind`."""
    trl = pytest.importorskip("trl")
    lines = (Path(trl.__file__).parent / file).read_text("utf-8")
    start = lines.find(first, lines.find("def _compute_loss("))
    end = lines.find(behind, start)
    if min(start, end) < 0:
        pytest.skip("this TRL has no loss block that we know how to cut out")
    return textwrap.dedent(lines[start:end])


def _run(block: str, names: Mapping[str, Any]) -> dict[str, Any]:
    scope = {"torch": torch, "F": functional, "math": math, "device": "cpu", **names}
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # some of TRL's constants are tensors
    try:
        exec(block, scope)
    finally:
        torch.set_default_dtype(usual)
    return scope


def _with_accelerator(config: Any, *names: str) -> SimpleNamespace:
    fields: Sequence[tuple[str, Any]] = [(name, getattr(config, name)) for name in names]
    return SimpleNamespace(accelerator=SimpleNamespace(device="cpu"), **dict(fields))
