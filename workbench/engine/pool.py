"""The loaded models of this process: one copy of each, shared by every session."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from workbench.scoring.logprobs import Scorer

ProgressCallback = Callable[[int, int, str], None]
LoadScorer = Callable[[str, ProgressCallback | None, Callable[[], bool] | None], Scorer]


def load_scorer(
    model: str,
    progress: ProgressCallback | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Scorer:
    """Load a model by its name, folder or hub id, ready to score.

    Raises:
        ModelError: the model is unknown, unsafe, or cannot be fetched or fitted.
    """
    from workbench.scoring.logprobs import ModelScorer
    from workbench.scoring.models import load_model, parse_model

    return ModelScorer(load_model(parse_model(model), progress=progress, cancelled=cancelled))


class ModelPool:
    """Keeps the most recently used scorers, so that a session's two models load once."""

    def __init__(self, load: LoadScorer = load_scorer, keep: int = 4) -> None:
        self._load = load
        self._keep = keep
        self._scorers: OrderedDict[str, Scorer] = OrderedDict()
        self._lock = threading.Lock()
        self._comparable: set[tuple[str, ...]] = set()

    def ready(self, model: str) -> Scorer | None:
        """The scorer if it is loaded; never waits."""
        return self._scorers.get(model)

    def scorer(
        self,
        model: str,
        progress: ProgressCallback | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Scorer:
        """The scorer of `model`, loaded now if need be; slow, so only for the worker."""
        with self._lock:
            if model not in self._scorers:
                self._scorers[model] = self._load(model, progress, cancelled)
            self._scorers.move_to_end(model)
            while len(self._scorers) > self._keep:
                self._scorers.popitem(last=False)
            return self._scorers[model]

    def check_comparable(self, scorers: Sequence[Scorer]) -> None:
        """Refuse models that read a text as different tokens; scorers without a model pass.

        Raises:
            ModelError: the tokenizers or the chat templates differ.
        """
        from workbench.scoring.models import check_same_tokenizer

        models = [scorer.loaded for scorer in scorers if hasattr(scorer, "loaded")]
        key = tuple(model.digest for model in models)
        if key not in self._comparable:
            for model in models[1:]:
                check_same_tokenizer(models[0], model)
            self._comparable.add(key)


def loaded_model(scorer: Scorer) -> Any:  # noqa: ANN401 - a LoadedModel, or nothing for a fake
    """The model inside a scorer, for what needs more than log-probabilities.

    Raises:
        ModelError: the scorer has no model inside, for example a recorded one.
    """
    from workbench.errors import ModelError

    loaded = getattr(scorer, "loaded", None)
    if loaded is None:
        raise ModelError(
            f"{scorer.digest[:12]} gives scores only; choose a model that can be loaded."
        )
    return loaded
