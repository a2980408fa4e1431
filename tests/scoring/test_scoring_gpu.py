"""An accelerator gives the scores of the CPU; skipped, with the reason, where there is none."""

from pathlib import Path

import numpy as np
import pytest
import torch

from workbench.scoring.logprobs import ModelScorer, Request
from workbench.scoring.models import load_model, parse_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]
REQUESTS = [Request("the cat", f"sat on the mat {n}") for n in range(6)]


@pytest.mark.parametrize(("dtype", "nats"), [("float32", 1e-3), ("bfloat16", 0.3)])
def test_an_accelerator_gives_the_scores_of_the_cpu(
    tiny_folder: Path, dtype: str, nats: float
) -> None:
    spec = parse_model(str(tiny_folder))
    here = ModelScorer(load_model(spec, dtype="float32", device="cpu")).score(REQUESTS)
    there = ModelScorer(load_model(spec, dtype=dtype, device="cuda")).score(REQUESTS)
    for ours, theirs in zip(here, there, strict=True):
        assert np.abs(ours.token_logps - theirs.token_logps).max() < nats
