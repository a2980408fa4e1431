"""Which tokens a reward margin comes from, by captum on the margin itself.

The margin is the chosen answer's implicit reward minus the rejected one's, and each reward
depends on its own text alone. So each side is attributed to its own tokens (prompt and answer),
as a reward: a positive score raises that answer's reward. In the margin the rejected side counts
with the opposite sign.

Integrated gradients (Sundararajan et al., arXiv 1703.01365) go from a neutral text, every token's
embedding replaced by the vocabulary's mean (or by zeros), to the text at hand; their sum should
equal the difference of the two rewards, and the completeness error says by how much it does not.
Feature ablation replaces one word at a time by the same neutral embedding. Policy and reference
each read the text in their own embeddings, which differ where the policy was tuned as a whole.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from workbench.data.pairs import Text
from workbench.errors import Cancelled, ScoringError
from workbench.scoring.logprobs import IsCancelled, active, interruptible, target_logps
from workbench.scoring.tokenise import token_texts, tokenise_completion

if TYPE_CHECKING:
    from workbench.scoring.models import LoadedModel

Method = Literal["integrated_gradients", "feature_ablation"]
METHODS: dict[Method, str] = {
    "integrated_gradients": "Integrated gradients on embeddings",
    "feature_ablation": "Feature ablation over words",
}
Baseline = Literal["mean", "zero"]
MAX_TOKENS = 512
_VOCABULARY_CHUNK = 8192
OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class SideAttribution:
    """One answer's implicit reward, attributed to the tokens of its prompt and itself.

    Attributes:
        tokens: Readable tokens of prompt and answer, the template's own included.
        scores: Contribution of each token to the reward, in units of beta times nats.
        is_response: Whether a token belongs to the answer.
        value: The reward of the text.
        baseline_value: The reward of the answer's tokens after the neutral text.
        completeness_error: Sum of the scores minus (value - baseline_value). Integrated gradients
            bring it to 0 with more steps; for ablation it is what the words do jointly, and need
            not be small.
    """

    tokens: tuple[str, ...]
    scores: tuple[float, ...]
    is_response: tuple[bool, ...]
    value: float
    baseline_value: float
    completeness_error: float


@dataclass(frozen=True)
class MarginAttribution:
    """Both sides of a margin, side by side; at `beta`, and linear in it."""

    chosen: SideAttribution
    rejected: SideAttribution
    method: Method
    beta: float

    @property
    def margin(self) -> float:
        """Reward of the chosen answer minus that of the rejected one."""
        return self.chosen.value - self.rejected.value


def attribute_margin(
    policy: "LoadedModel",
    reference: "LoadedModel",
    prompt: Text,
    chosen: Text,
    rejected: Text,
    *,
    beta: float = 1.0,
    method: Method = "integrated_gradients",
    steps: int = 16,
    baseline: Baseline = "mean",
    on_step: OnStep | None = None,
    cancelled: IsCancelled | None = None,
) -> MarginAttribution:
    """Attribute a pair's reward margin to the tokens of both texts.

    Args:
        policy: Model whose preference is explained.
        reference: Model it is compared with; the same tokenizer.
        prompt: The shared prompt.
        chosen: The preferred answer.
        rejected: The other answer.
        beta: Inverse temperature of the reward.
        method: Integrated gradients or feature ablation.
        steps: Points of the integral (integrated gradients only); more make it more complete.
        baseline: Neutral embedding: the vocabulary's mean, or zeros.
        on_step: Called with (done, total) passes of both models.
        cancelled: Asked before every pass and between the layers, forwards and backwards.

    Raises:
        ScoringError: an answer without tokens, a text longer than `MAX_TOKENS`, or no steps.
        Cancelled: asked to stop.
    """
    if steps < 1:
        raise ScoringError(f"{steps} steps make no integral; give at least 1.")
    count = _Counter(on_step, cancelled)
    models = (policy, reference)
    sides = [_Side(models, prompt, side, beta, baseline, count) for side in (chosen, rejected)]
    count.total = sum(side.passes(method, steps) for side in sides)
    first, second = (side.attributed(method, steps) for side in sides)
    return MarginAttribution(first, second, method, beta)


class _Counter:
    """Counts model passes of both sides, and stops them when asked."""

    def __init__(self, on_step: OnStep | None, cancelled: IsCancelled | None) -> None:
        self._on_step = on_step
        self.cancelled = cancelled
        self.total = 0
        self.done = 0

    def step(self) -> None:
        if self.cancelled is not None and self.cancelled():
            raise Cancelled("the attribution was cancelled")
        self.done += 1
        if self._on_step is not None:
            self._on_step(self.done, self.total)


class _Side:
    """One text and the reward of its answer as a function of the text's embeddings."""

    def __init__(
        self,
        models: tuple["LoadedModel", "LoadedModel"],
        prompt: Text,
        answer: Text,
        beta: float,
        baseline: Baseline,
        count: _Counter,
    ) -> None:
        policy = models[0]
        longest = min(MAX_TOKENS, *(model.max_length for model in models))
        sequence = tokenise_completion(policy.tokenizer, prompt, answer, longest)
        self._start = max(sequence.response_start, 1)
        ids = torch.as_tensor(sequence.input_ids).long()
        if sequence.truncated:
            raise ScoringError(
                f"This text has more than {longest} tokens; shorten it to attribute its reward."
            )
        if sequence.empty or len(ids) <= self._start:
            raise ScoringError("An answer without text has nothing to attribute; write one first.")
        self._ids = ids.to(policy.model.device)
        self._models = models
        self._beta = beta
        self._baseline = baseline
        self._count = count
        self._texts = token_texts(policy.tokenizer, ids.tolist())

    def passes(self, method: Method, steps: int) -> int:
        """Model passes that the attribution will make, both models together counted once."""
        return steps + 2 if method == "integrated_gradients" else len(self._words()) + 3

    def attributed(self, method: Method, steps: int) -> SideAttribution:
        text, neutral = self._embedded()
        with torch.no_grad():
            value, baseline = (float(self._reward(x)) for x in (text, neutral))
        if method == "integrated_gradients":
            scores = self._integrated(text, neutral, steps)
        else:
            scores = self._ablated(text, neutral)
        return SideAttribution(
            tuple(self._texts),
            tuple(scores.tolist()),
            tuple(place >= self._start for place in range(len(self._ids))),
            value,
            baseline,
            float(scores.sum()) - (value - baseline),
        )

    def _integrated(self, text: Tensor, neutral: Tensor, steps: int) -> Tensor:
        from captum.attr import IntegratedGradients

        method = IntegratedGradients(self._reward, multiply_by_inputs=True)
        found: Tensor = method.attribute(
            text, baselines=neutral, n_steps=steps, method="gausslegendre", internal_batch_size=1
        )
        return found.detach().double().sum(dim=-1)[0].cpu()

    def _ablated(self, text: Tensor, neutral: Tensor) -> Tensor:
        """Each word's share, spread evenly over its tokens so that the row adds up by word."""
        from captum.attr import FeatureAblation

        words = self._words()
        mask = torch.zeros(text.shape[:2], dtype=torch.long, device=text.device)
        for number, word in enumerate(words):
            mask[0, word] = number
        method = FeatureAblation(self._reward)
        found: Tensor = method.attribute(text, baselines=neutral, feature_mask=mask[..., None])
        by_token = found.detach().double()[0, :, 0].cpu()
        size = torch.tensor([len(words[number]) for number in mask[0].tolist()])
        return by_token / size

    def _words(self) -> list[list[int]]:
        """Places of the tokens of each word: a word begins with white space or a new kind."""
        words: list[list[int]] = []
        last = ""
        for place, text in enumerate(self._texts):
            # A token that reads as nothing is the first part of the character that follows it.
            joins = (last[-1:].isalnum() and text[:1].isalnum()) or (last == "" and place > 0)
            if place in (0, self._start) or not joins:
                words.append([])
            words[-1].append(place)
            last = text
        return words

    def _embedded(self) -> tuple[Tensor, Tensor]:
        """The text's embeddings and the neutral text's, shape (1, tokens, width of all tables)."""
        text, neutral = [], []
        for table in self._tables():
            own = table(self._ids).detach().float()
            middle = _mean_embedding(table) if self._baseline == "mean" else own.new_zeros(())
            text.append(own)
            neutral.append(middle.expand_as(own))
        return torch.cat(text, dim=-1)[None], torch.cat(neutral, dim=-1)[None]

    def _tables(self) -> list[Any]:
        """The models' embedding tables; one where they share it."""
        return list(dict.fromkeys(model.model.get_input_embeddings() for model in self._models))

    def _reward(self, embeddings: Tensor) -> Tensor:
        """beta (log pi - log pi_ref) of the answer's tokens after these embeddings, shape (b,)."""
        self._count.step()
        tables = self._tables()
        widths = [table.weight.shape[1] for table in tables]
        parts = torch.split(embeddings, widths, dim=-1)
        own = dict(zip(tables, parts, strict=True))
        policy, reference = (
            self._answer_logp(model, own[model.model.get_input_embeddings()])
            for model in self._models
        )
        return self._beta * (policy - reference)

    def _answer_logp(self, loaded: "LoadedModel", embeddings: Tensor) -> Tensor:
        model: Any = loaded.model
        keep = torch.arange(self._start - 1, len(self._ids) - 1, device=embeddings.device)
        with active(loaded), interruptible(model, self._count.cancelled):
            out = model(
                inputs_embeds=embeddings.to(model.dtype), logits_to_keep=keep, use_cache=False
            )
        targets = self._ids[self._start :].expand(len(embeddings), -1)
        return target_logps(out.logits, targets).double().sum(dim=-1)


def _mean_embedding(table: Any) -> Tensor:  # noqa: ANN401 - an embedding module
    """The mean of what the table gives, which may be scaled, over its vocabulary; (width,)."""
    size, device = table.weight.shape[0], table.weight.device
    total = torch.zeros(table.weight.shape[1], device=device)
    for start in range(0, size, _VOCABULARY_CHUNK):
        ids = torch.arange(start, min(start + _VOCABULARY_CHUNK, size), device=device)
        total += table(ids).detach().float().sum(dim=0)
    mean: Tensor = total / size
    return mean
