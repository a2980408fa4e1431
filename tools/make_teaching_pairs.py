"""Expand `tools/teaching_source.txt` into the bundled teaching set, the same bytes each time.

Each prompt has four answers, one of each grade. They are joined to four pairs: 4v3, 3v2, 2v1
and 4v1, so every answer takes part and every prompt has a candidate set of four.

The votes are simulated. Nine raters see each pair, and each independently prefers the better
answer with the Bradley-Terry probability sigmoid(SHARPNESS * (better grade - worse grade)).
Every pair has a generator of its own, seeded by SEED and the pair's name, so that adding a
prompt changes no other pair's votes.

Run: python tools/make_teaching_pairs.py [OUTPUT]
"""

import json
import math
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SEED = 20
RATERS = 9
SHARPNESS = 1.0
PAIRINGS = ((4, 3), (3, 2), (2, 1), (4, 1))
TRAPS = ("length", "flattery", "refusal", "confident_error")

SOURCE = Path(__file__).with_name("teaching_source.txt")
OUTPUT = Path(__file__).parents[1] / "workbench" / "data" / "bundled" / "teaching.jsonl"

_HEADING = re.compile(r"= (?P<key>(?P<topic>[a-z_]+)-\d\d) \| (?P<kind>\w+) \| (?P<register>\w+)")
_ANSWER = re.compile(rf"(?P<grade>[1-4])(?: \[(?P<trap>{'|'.join(TRAPS)})\])? (?P<text>[^\[].*)")


@dataclass(frozen=True)
class Answer:
    """One answer: its text and the fault it was written to show ("none" for no trap)."""

    text: str
    trap: str


@dataclass
class Prompt:
    """One prompt of the source with its answers by grade (4 is best)."""

    key: str
    topic: str
    kind: str
    register: str
    text: str = ""
    answers: dict[int, Answer] = field(default_factory=dict)


def read_prompts(source: str) -> list[Prompt]:
    """Parse the source text.

    Raises:
        ValueError: a line that is neither heading, prompt nor answer; the message has its number.
    """
    prompts: list[Prompt] = []
    for number, line in enumerate(source.splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        if heading := _HEADING.fullmatch(line):
            prompts.append(
                Prompt(heading["key"], heading["topic"], heading["kind"], heading["register"])
            )
        elif line.startswith("? ") and prompts:
            prompts[-1].text = line.removeprefix("? ")
        elif (answer := _ANSWER.fullmatch(line)) and prompts:
            text = answer["text"].replace("\\n", "\n")
            prompts[-1].answers[int(answer["grade"])] = Answer(text, answer["trap"] or "none")
        else:
            raise ValueError(
                f"line {number} is {line!r}; expected '= key', '? prompt' or an answer"
            )
    return prompts


def simulate_votes(pair_id: str, better: int, worse: int) -> int:
    """How many of the RATERS prefer the better grade under the Bradley-Terry model."""
    generator = random.Random(f"{SEED}:{pair_id}")
    probability = 1 / (1 + math.exp(-SHARPNESS * (better - worse)))
    return sum(generator.random() < probability for _ in range(RATERS))


def make_row(prompt: Prompt, better: int, worse: int) -> dict[str, object]:
    """One line of the data set: the pair of the two grades of a prompt."""
    pair_id = f"t-{prompt.key}-{better}v{worse}"
    votes = simulate_votes(pair_id, better, worse)
    return {
        "pair_id": pair_id,
        "prompt": prompt.text,
        "chosen": prompt.answers[better].text,
        "rejected": prompt.answers[worse].text,
        "votes_chosen": votes,
        "votes_rejected": RATERS - votes,
        "chosen_score": better,
        "rejected_score": worse,
        "strength": better - worse,
        "attributes": {"topic": prompt.topic, "register": prompt.register},
        "metadata": {
            "topic": prompt.topic,
            "kind": prompt.kind,
            "trap": prompt.answers[worse].trap,
            "chosen_grade": better,
            "rejected_grade": worse,
            "votes": "simulated",
        },
    }


def make_rows(prompts: list[Prompt]) -> Iterator[dict[str, object]]:
    """All pairs, prompt by prompt in the order of the source."""
    for prompt in prompts:
        for better, worse in PAIRINGS:
            yield make_row(prompt, better, worse)


def render() -> bytes:
    """The whole data set: one JSON object a line, UTF-8."""
    rows = make_rows(read_prompts(SOURCE.read_text(encoding="utf-8")))
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else OUTPUT).write_bytes(render())
