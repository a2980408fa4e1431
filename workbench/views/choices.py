"""What a reader chooses from, in the words of the served page and the notebook alike."""

_DECADES = range(-3, 2)
_MANTISSAS = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
BETAS = (*(float(f"{m}e{decade}") for decade in _DECADES for m in _MANTISSAS), 100.0)
GAMMAS = tuple(round(0.05 * step, 2) for step in range(41))
TIES = {"counts as correct": "correct", "counts as wrong": "wrong", "counts one half": "half"}
SHARES = {
    "raters (votes or alpha)": "raters",
    "scores (Bradley-Terry)": "scores",
    "one constant": "constant",
}
OUTCOMES = {
    "reward margin": "margin",
    "reward of the chosen answer": "chosen_reward",
    "reward of the rejected answer": "rejected_reward",
}
POLICIES = {
    "Language model": "language-model",
    "Softmax over each prompt's answers (exact)": "exact",
    "Tiny transformer": "tiny",
}
