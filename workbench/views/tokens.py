"""Rows of a token strip: implicit rewards of tokens, and the tokens that a margin comes from."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workbench.engine.session import Session
from workbench.scoring.attribution import MarginAttribution, SideAttribution
from workbench.scoring.logprobs import SequenceScore
from workbench.scoring.tokenise import token_texts
from workbench.views.figure import plain
from workbench.views.markup import number

_MOST = 600


def token_rewards(session: Session, row: int, beta: float) -> list[dict[str, Any]] | None:
    """The token strips of a pair: implicit reward of each token of both answers."""
    pair = session.snapshot().pairs.pairs[row]
    scores = session.sequence_scores(pair)
    scorer = session.hub.pool.ready(session.models["policy"])
    tokenizer = getattr(getattr(scorer, "loaded", None), "tokenizer", None)
    if scores is None or tokenizer is None:
        return None
    return [
        _strip(title, policy, reference, tokenizer, beta)
        for title, policy, reference in zip(
            ("Chosen", "Rejected"), scores["policy"], scores["reference"], strict=True
        )
    ]


def _strip(
    title: str,
    policy: SequenceScore,
    reference: SequenceScore,
    tokenizer: Any,  # noqa: ANN401
    beta: float,
) -> dict[str, Any]:
    rewards = beta * (policy.token_logps.astype(np.float64) - reference.token_logps)
    return {
        "title": title,
        "tokens": token_texts(tokenizer, policy.token_ids.tolist()),
        "scores": rewards.tolist(),
        "total": float(rewards.sum()),
        "unit": "β·nats",
    }


def attributed(found: MarginAttribution, beta: float) -> list[dict[str, Any]]:
    """The token strips of an attributed margin."""
    return [
        _attributed_strip("Chosen (raises the margin)", found.chosen, beta),
        _attributed_strip("Rejected (lowers the margin)", found.rejected, beta),
    ]


def margin_words(found: MarginAttribution, beta: float) -> str:
    """The margin as a difference of two rewards."""
    return (
        f"Margin {number(beta * found.margin)} = chosen {number(beta * found.chosen.value)} "
        f"− rejected {number(beta * found.rejected.value)}"
    )


def attribution_note(found: MarginAttribution, beta: float) -> str:
    """What a reader must know to trust the scores."""
    if found.method == "feature_ablation":
        return (
            "Each word is replaced by the vocabulary's mean embedding, and what that does to the "
            "reward is its score, spread over its tokens. These scores need not add up."
        )
    errors = " and ".join(
        f"{number(beta * side.completeness_error)} ({name})"
        for name, side in (("chosen", found.chosen), ("rejected", found.rejected))
    )
    return (
        f"Completeness error: {errors}, the sum of the scores minus the reward's difference from a "
        "neutral text. Use more steps if it is not small beside the margin."
    )


def _attributed_strip(title: str, side: SideAttribution, beta: float) -> dict[str, Any]:
    return {
        "title": title,
        "tokens": list(side.tokens),
        "scores": [beta * score for score in side.scores],
        "kinds": ["response" if inside else "prompt" for inside in side.is_response],
        "total": beta * sum(side.scores),
        "unit": "β·nats",
    }


def strip_html(rows: Sequence[Mapping[str, Any]]) -> str:
    """Token strips without a script: each token on its colour, every text escaped.

    Orange lies below zero and blue above, as in the live strip.
    """
    scores = [abs(each) for row in rows for each in row["scores"] if _finite(each)]
    scale = max(scores, default=0.0) or 1.0
    return "".join(_strip_row(row, scale) for row in rows)


def _strip_row(row: Mapping[str, Any], scale: float) -> str:
    total = f"{number(row['total'], 3)} {row['unit']}"
    tokens = "".join(
        _token(token, score, scale)
        for token, score in zip(row["tokens"][:_MOST], row["scores"], strict=False)
    )
    more = len(row["tokens"]) - _MOST
    rest = f" … and {more} more tokens" if more > 0 else ""
    head = f"<b>{html.escape(row['title'])}</b> {html.escape(total)}"
    return f"<p>{head}</p><p style='line-height:1.9'>{tokens}{rest}</p>"


def _token(token: str, score: float | None, scale: float) -> str:
    known = score is not None and math.isfinite(score)
    share = 0.5 * math.sqrt(min(abs(score) / scale, 1.0)) if known and score is not None else 0.0
    red, green, blue = (213, 94, 0) if known and score is not None and score < 0 else (0, 114, 178)
    style = f"background:rgba({red},{green},{blue},{share:.2f});padding:1px 0"
    title = "no score" if not known or score is None else number(score, 3)
    shown = html.escape(plain(token, 200)).replace("\n", "↵<br>")
    return f"<span style='{style}' title='{title}'>{shown}</span>"


def _finite(score: float | None) -> bool:
    return score is not None and math.isfinite(score)
