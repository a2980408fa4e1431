"""The figures of the exact world and of the estimator laboratory, from their tables."""

from collections.abc import Mapping

from workbench.study import plot
from workbench.study.base import Figure, Figures
from workbench.study.result import Cell, StudyResult, Table, rows_where

_FLOOR = 1e-16
"""What is smaller, or exactly 0, is drawn here: a logarithmic axis has no 0."""
_READING = "The paper's figure could not be read in full; sizes and steps are ours."
_OURS = "Not in the paper as far as we know"
_SMALL = "Ours is a small model, trained on and read at twelve pairs of ours a set."


def draw(result: StudyResult) -> Figures:
    """All figures, the paper's main one first."""
    tables = result.tables
    return {
        "distance": _distance(tables["distance"]),
        "rejected-distribution": _distributions(tables["distributions"]),
        "wrong-rejected": _wrong_rejected(tables["wrong_rejected"]),
        "power-law": _power_law(tables["power_law"]),
        "margins": _margins(tables["margins"]),
        "displacement": _displacement(result),
        "predicted-displacement": _predicted(tables["predicted"]),
        "projected-gradient": _projected(tables["projected"]),
        "entropy": _entropy(tables["entropy"], tables["drawn_targets"]),
        "sampling-bias": _bias(tables["estimators"]),
        "sampling-spread": _spread(tables["estimators"]),
        "effective-draws": _effective(tables["estimators"]),
        "candidate-set": _candidates(tables["candidates"]),
        "answer-length": _lengths(tables["lengths"]),
        **(_language(tables) if "language_answers" in tables else {}),
    }


def _distance(table: Table) -> Figure:
    figure = plot.figure(
        "Only the log-ratio reward reaches the target",
        "Step",
        "JS(policy, target) [bits]",
        "After Fig. 1 (right): Jensen-Shannon divergence to the target policy under each "
        f"preference loss. {_READING}",
        log_y=True,
    )
    _lines(figure, table, "objective", "step", "js", floor=True)
    return figure


def _distributions(table: Table) -> Figure:
    figure = plot.figure(
        "What must be rejected so that DPO finds the target",
        "Answer, in the order in which the target favours them",
        "Probability over the reference's",
        "After the paper's closed form of the optimal rejected distribution: pi_l ∝ pi_ref "
        "(pi_ref / pi*)^beta gives weight to what the target drops. Beside it the distributions "
        f"that fail: of twice the beta, uniform, and the reference itself. {_READING}",
        log_y=True,
    )
    names = [name for name in table if name not in ("rank", "reference")]
    for place, name in enumerate(names):
        ratio = zip(table[name], table["reference"], strict=True)
        over = [_number(own) / _number(reference) for own, reference in ratio]
        plot.line(figure, table["rank"], over, name, place)
    return figure


def _wrong_rejected(table: Table) -> Figure:
    figure = plot.figure(
        "DPO needs the right distribution of rejected answers",
        "Step",
        "JS(policy, target) [bits]",
        f"{_OURS}: DPO alone, rejected answers drawn from the closed form and from distributions "
        "that break it.",
        log_y=True,
    )
    _lines(figure, table, "rejected", "step", "js", floor=True)
    return figure


def _power_law(table: Table) -> Figure:
    figure = plot.figure(
        "One beta for every pair, or none",
        "log2(beta of the pair / beta of the loss)",
        "Share of all pairs",
        "A diagnostic of ours for the paper's power law: the beta by which each pair of answers "
        "would obey it. One bar means that it holds, and bars apart from 0 with another beta; "
        "where bars spread it does not hold, and the legend says how many pairs have no beta "
        "at all. Bars of one bin stand side by side; the end bins hold what lies beyond them.",
    )
    for place, name in enumerate(dict.fromkeys(table["rejected"])):
        rows = rows_where(table, {"rejected": name})
        label = f"{name} ({_number(rows['without'][0]):.0%} without)"
        plot.bars(figure, rows["octaves"], rows["share"], label, place)
    return figure


def _margins(table: Table) -> Figure:
    figure = plot.figure(
        "One beta orders the log-margins of every pair",
        "Log-margin of the policy less the reference's [nats]",
        "Log-margin of the reference less pi_l's [nats]",
        "After the log-margin ordered policies: the power law holds where all pairs lie on one "
        "rising line through 0, whose slope is beta; target and trained policy then coincide. "
        + _READING,
    )
    for place, (column, name) in enumerate({"target": "target", "trained": "DPO"}.items()):
        ahead = _difference(table[column], table["reference"])
        behind = _difference(table["reference"], table["rejected"])
        plot.points(figure, ahead, behind, name, place)
    return figure


def _displacement(result: StudyResult) -> Figure:
    figure = plot.figure(
        "Chosen answers lose likelihood, by the predicted amount",
        "Step",
        "Mean change of log-probability [nats]",
        "After the log-likelihood displacement of section 4; dashed, the closed-form values of "
        "the optimum. " + _READING,
    )
    table = result.tables["displacement"]
    for place, side in enumerate(("chosen", "rejected")):
        plot.line(figure, table["step"], table[side], side, place)
        expected = result.claim(f"displacement-{side}").expected
        plot.rule(figure, y=expected, label=f"{side}, predicted")
    return figure


def _predicted(table: Table) -> Figure:
    figure = plot.figure(
        "Displacement as predicted, whatever is rejected",
        "Predicted mean change of log-probability [nats]",
        "Measured [nats]",
        f"{_OURS}: the values of the closed-form optimum pi_ref (pi_ref / pi_l)^(1/beta) beside "
        "those of the trained policies, for every distribution of rejected answers; on the "
        "dotted line they are equal. Chosen answers, drawn from the reference, never gain.",
    )
    for place, side in enumerate(dict.fromkeys(table["answers"])):
        rows = rows_where(table, {"answers": side})
        labels = [f"pi_l: {name}" for name in rows["rejected"]]
        plot.points(figure, rows["predicted"], rows["measured"], str(side), place, labels)
    ends = [min(map(_number, table["predicted"])), 0.0]
    plot.line(figure, ends, ends, "as predicted", 7, "dot")
    return figure


def _projected(table: Table) -> Figure:
    figure = plot.figure(
        "Keeping chosen answers likely keeps the policy from the target",
        "Mean change of chosen answers' log-probability [nats]",
        "JS(policy, target) [bits]",
        "Stands for the paper's comparison of DPO with DPO-PG, which is on language models and "
        "benchmarks; DPO-PG is our reading of it. Each path leads from the reference (at 0) down "
        "the gradient: by exact expectations, where the projection leaves no way, and by batches "
        "of sampled pairs, whose chosen answers differ so much that it seldom acts.",
    )
    _lines(figure, table, "method", "chosen", "js")
    for place, name in enumerate(dict.fromkeys(table["method"])):
        rows = rows_where(table, {"method": name})
        plot.points(figure, rows["chosen"][-1:], rows["js"][-1:], f"{name}: end", place)
    return figure


def _entropy(powers: Table, drawn: Table) -> Figure:
    figure = plot.figure(
        "DID entropy alone does not say whether the policy sharpens",
        "H(q) / log |Y|",
        "H(policy) − H(reference) [nats]",
        "Ours, a caution beside the paper's reading that low entropy of q reinforces and high "
        "entropy smooths. Line: q ∝ pi_ref^s with the reference (.7, .2, .1), on which one H(q) "
        "belongs to a rise and to a fall, and s = −3 smooths nothing: it turns the reference "
        "over. Points: updates drawn at random in this study's world.",
    )
    plot.line(figure, powers["efficiency"], powers["entropy_change"], "q ∝ pi_ref^s, |Y| = 3")
    plot.points(figure, drawn["efficiency"], drawn["entropy_change"], "drawn updates", 2)
    named = [place for place, s in enumerate(powers["s"]) if s in (-3.0, -1.0, 0.0, 1.0, 3.0)]
    x, y = ([powers[name][n] for n in named] for name in ("efficiency", "entropy_change"))
    labels = [f"s = {_number(powers['s'][n]):g}" for n in named]
    plot.points(figure, x, y, "s = −3, −1, 0, 1, 3", 1, labels)
    plot.rule(figure, y=0.0)
    return figure


def _bias(table: Table) -> Figure:
    figure = plot.figure(
        "Bias of H(q) by sampling",
        "Draws K",
        "Mean estimate less H(q) [nats]",
        f"{_OURS}; the paper samples 32 answers a prompt and gives no intervals. Importance "
        "sampling from four proposals in a fixed world of 32 answers, and, dashed, the entropy of "
        "the weights, which is no estimate of H(q) and grows with K.",
        log_x=True,
    )
    _lines(figure, table, "proposal", "draws", "bias")
    rows = rows_where(table, {"proposal": "reference"})
    label = "entropy of the weights (reference)"
    plot.line(figure, rows["draws"], rows["plug_in"], label, 4, "dash")
    plot.rule(figure, y=0.0)
    return figure


def _spread(table: Table) -> Figure:
    figure = plot.figure(
        "Spread of H(q) by sampling, and its prediction",
        "Draws K",
        "Standard deviation [nats]",
        f"{_OURS}: the spread of the estimates over repeats; dotted, the standard error of the "
        "delta method, which a single sample also gives. From the reference it is right only for "
        "thousands of draws.",
        log_x=True,
        log_y=True,
    )
    _lines(figure, table, "proposal", "draws", "spread")
    for place, name in enumerate(dict.fromkeys(table["proposal"])):
        rows = rows_where(table, {"proposal": name})
        label = f"{name}, predicted"
        plot.line(figure, rows["draws"], rows["predicted_error"], label, place, "dot")
    return figure


def _effective(table: Table) -> Figure:
    figure = plot.figure(
        "Of many draws from the reference few count",
        "Draws K",
        "Effective draws",
        f"{_OURS}: effective sample size of the weights. Below the dashed line the workbench "
        "shows no estimate; the table has the share that it would refuse.",
        log_x=True,
        log_y=True,
    )
    _lines(figure, table, "proposal", "draws", "ess")
    plot.rule(figure, y=10.0, label="refused below")
    return figure


def _candidates(table: Table) -> Figure:
    figure = plot.figure(
        "A candidate set has an entropy of its own",
        "Draws K from the mixture",
        "Entropy [nats]",
        f"{_OURS}: H_S of the distinct answers among K draws lies below log |S| and grows towards "
        "H(q) as the set becomes complete, so that sets of different sizes do not compare. With "
        "copies kept it grows without end.",
        log_x=True,
    )
    names = {"entropy": "H_S, each answer once", "with_copies": "copies kept", "largest": "log |S|"}
    for place, (column, name) in enumerate(names.items()):
        plot.line(figure, table["draws"], table[column], name, place)
    plot.rule(figure, y=_number(table["exact"][0]), label="H(q)")
    return figure


def _lengths(table: Table) -> Figure:
    figure = plot.figure(
        "Of long answers sampling loses H(q), and tokens tell another number",
        "Length of the answers T [tokens]",
        "Entropy a token [nats]",
        f"{_OURS}: two Markov chains, whose H(q) over all strings of T tokens is known. With 256 "
        "strings from the mixture a few weights take over and the estimate leaves H(q), which "
        "dwells on strings that neither chain writes often. The mean next-token entropy is exact, "
        "is what a language model permits, and is another quantity: it follows the prefixes.",
        log_x=True,
    )
    names = {
        "exact": "H(q) / T",
        "sampled": "sampled from the mixture",
        "tokens_of_policy": "by token, prefixes of the policy",
        "tokens_of_reference": "by token, prefixes of the reference",
        "largest": "log |V|",
    }
    for place, (column, name) in enumerate(names.items()):
        plot.line(figure, table["length"], table[column], name, place)
    return figure


def _language(tables: Mapping[str, Table]) -> Figures:
    """What the language model's tables show."""
    return {
        "language-candidates": _language_candidates(tables["language_candidates"]),
        "language-tokens": _language_tokens(tables["language_answers"]),
        "language-displacement": _language_displacement(tables["language_answers"]),
        "language-training": _language_training(tables["language_training"]),
    }


def _language_candidates(table: Table) -> Figure:
    figure = plot.figure(
        "The language model's DID over candidate answers",
        "H_S / log |S|",
        "Change of the policy's entropy over S [nats]",
        "Stands for the paper's DID entropy of real policies, which it estimates from 32 sampled "
        f"answers a prompt: here over each prompt's own answers in the set of pairs. {_SMALL} "
        "Before training every point is at 1 and 0.",
    )
    for place, (pairs, policy) in enumerate(_trained_runs(table)):
        x, y, prompts = (
            _of_run(table, pairs, policy, column)
            for column in ("efficiency", "entropy_change", "prompt")
        )
        labels = [f"prompt {prompt}" for prompt in prompts]
        plot.points(figure, x, y, f"{pairs}: {policy}", place, labels)
    plot.rule(figure, y=0.0)
    return figure


def _language_tokens(table: Table) -> Figure:
    figure = plot.figure(
        "The language model's DID by token",
        "log |V| − H(q_t), mean of an answer [nats]",
        "Change of next-token entropy [nats]",
        f"{_OURS}: exact at every token of the given answers, over the whole vocabulary; 0 is a "
        f"uniform q_t, as before training. {_SMALL} The table has the same over the likeliest "
        "tokens alone.",
        log_x=True,
    )
    for place, (pairs, policy) in enumerate(_trained_runs(table)):
        x, y, sides = (
            _of_run(table, pairs, policy, column)
            for column in ("from_uniform", "policy_entropy_change", "side")
        )
        plot.points(figure, x, y, f"{pairs}: {policy}", place, [str(side) for side in sides])
    plot.rule(figure, y=0.0)
    return figure


def _language_displacement(table: Table) -> Figure:
    figure = plot.figure(
        "Likelihood displacement in the language model",
        "Answers in the order of their change",
        "Change of log-probability a token [nats]",
        f"After the paper's log-likelihood displacement. {_SMALL} Every answer that was trained "
        "on, by set and side; below 0 it has become less likely.",
    )
    for place, (pairs, side) in enumerate(
        (pairs, side) for pairs in dict.fromkeys(table["pairs"]) for side in ("chosen", "rejected")
    ):
        changes = zip(
            _of_run(table, pairs, "after", "change_per_token"),
            _of_run(table, pairs, "after", "side"),
            strict=True,
        )
        shown = sorted(_number(change) for change, own in changes if own == side)
        plot.points(figure, list(range(1, len(shown) + 1)), shown, f"{pairs}, {side}", place)
    plot.rule(figure, y=0.0)
    return figure


def _language_training(table: Table) -> Figure:
    figure = plot.figure(
        "The language model learns both sets",
        "Step",
        "DPO's loss",
        f"{_OURS}: the loss of each step's pairs, from log 2. {_SMALL}",
    )
    _lines(figure, table, "pairs", "step", "loss")
    return figure


def _trained_runs(table: Table) -> list[tuple[Cell, Cell]]:
    """Every set with every policy that is not the reference itself."""
    both = zip(table["pairs"], table["policy"], strict=True)
    return [(pairs, policy) for pairs, policy in dict.fromkeys(both) if policy != "before"]


def _of_run(table: Table, pairs: Cell, policy: Cell, column: str) -> list[Cell]:
    rows = zip(table[column], table["pairs"], table["policy"], strict=True)
    return [value for value, *of in rows if of == [pairs, policy]]


def _difference(left: list[Cell], right: list[Cell]) -> list[float]:
    return [_number(a) - _number(b) for a, b in zip(left, right, strict=True)]


def _lines(
    figure: Figure, table: Table, group: str, x: str, y: str, *, floor: bool = False
) -> None:
    """One line for each value of the column `group`."""
    for place, name in enumerate(dict.fromkeys(table[group])):
        rows = rows_where(table, {group: name})
        shown = [max(_number(each), _FLOOR) for each in rows[y]] if floor else rows[y]
        plot.line(figure, rows[x], shown, str(name), place)


def _number(cell: Cell) -> float:
    return float(cell or 0)
