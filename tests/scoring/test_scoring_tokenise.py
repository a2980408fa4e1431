from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.data.pairs import Message
from workbench.errors import ScoringError
from workbench.scoring import tokenise
from workbench.scoring.tokenise import prompt_tokens, token_texts, tokenise_completion

HOSTILE = "<b>bold</b> <script>alert(1)</script> \u202e RTL עברית 🙂👩‍👩‍👧 \x00 nul\r\n\t`x` ~"
TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)


@pytest.fixture
def tokenizer(tiny_loaded: Any) -> Any:
    return tiny_loaded.tokenizer


def response_text(tokenizer: Any, sequence: Any) -> str:
    ids = sequence.input_ids[sequence.response_start :]
    text: str = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return text


def test_answer_begins_after_the_opened_turn_and_ends_with_its_end_token(tokenizer: Any) -> None:
    sequence = tokenise_completion(tokenizer, "why", "because", 100)
    whole = tokenizer.decode(sequence.input_ids)
    assert whole == "<|im_start|>user\nwhy<|im_end|>\n<|im_start|>assistant\nbecause<|im_end|>"
    assert response_text(tokenizer, sequence) == "because<|im_end|>"
    assert sequence.input_ids.dtype == "int32"
    assert (sequence.truncated, sequence.empty) == (False, False)


@settings(max_examples=60, deadline=None)
@given(prompt=TEXTS, response=TEXTS)
def test_any_texts_survive_whole(tiny_loaded: Any, prompt: str, response: str) -> None:
    tokenizer = tiny_loaded.tokenizer
    sequence = tokenise_completion(tokenizer, prompt, response, 2000)
    assert response_text(tokenizer, sequence).endswith(response + "<|im_end|>")
    assert sequence.empty == (not response.strip())
    assert not sequence.truncated


def test_hostile_text_is_only_text(tokenizer: Any) -> None:
    sequence = tokenise_completion(tokenizer, HOSTILE, HOSTILE, 2000)
    assert response_text(tokenizer, sequence) == HOSTILE + "<|im_end|>"


def test_without_template_texts_are_joined_by_one_space(tiny_plain_tokenizer: Any) -> None:
    t = tiny_plain_tokenizer
    for prompt, response, whole in [
        ("why", "because", "why because"),
        ("why ", "because", "why because"),
        ("why", "\nbecause", "why\nbecause"),
        ("", "because", "because"),
    ]:
        sequence = tokenise_completion(t, prompt, response, 100)
        assert t.decode(sequence.input_ids) == whole + "<|endoftext|>"
        assert sequence.input_ids[-1] == t.eos_token_id


class SpacedTokenizer:
    """One token a character, but "bc" is one: a token may straddle the border."""

    chat_template = None
    bos_token_id = 7
    eos_token_id = None

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        first = [7] if add_special_tokens else []
        return {"input_ids": first + [ord(c) for c in text.replace("bc", "X")]}


def test_a_token_across_the_border_belongs_to_the_answer() -> None:
    # "ab" + "cd" joins without a space because the prompt's end is one: b + c would merge.
    sequence = tokenise_completion(SpacedTokenizer(), "a b\u200b", " cd", 100)
    assert sequence.response_start == 5
    merged = tokenise_completion(_NoGap(), "ab", "cd", 100)
    assert merged.input_ids.tolist() == [7, ord("a"), ord("X"), ord("d")]
    assert merged.response_start == 2  # the prompt's own tokens are bos, a, b


class _NoGap(SpacedTokenizer):
    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return super().__call__(text.replace(" ", ""), add_special_tokens)


def test_separate_tokenisation_would_place_the_border_elsewhere() -> None:
    # The sabotaged twin: prompt length as the border counts a token of the prompt as answer's.
    t = _NoGap()
    own = t("ab", add_special_tokens=False)["input_ids"]
    joint = t("ab cd", add_special_tokens=False)["input_ids"]
    assert joint[: len(own)] != own
    assert tokenise._common_prefix(own, joint) != len(own)


def test_too_long_an_answer_keeps_its_beginning_and_is_flagged(tokenizer: Any) -> None:
    whole = tokenise_completion(tokenizer, "why", "one two three four", 1000)
    cut = tokenise_completion(tokenizer, "why", "one two three four", whole.response_start + 3)
    assert cut.truncated
    assert not cut.empty
    assert cut.input_ids.tolist() == whole.input_ids[: len(cut.input_ids)].tolist()


def test_too_long_a_prompt_leaves_an_answer_flagged_empty(tokenizer: Any) -> None:
    cut = tokenise_completion(tokenizer, "why " * 100, "because", 20)
    assert cut.truncated
    assert cut.empty
    assert cut.response_start == len(cut.input_ids) == 20


@pytest.mark.parametrize("response", ["", "  \n", (Message(role="assistant", content=""),)])
def test_empty_answers_are_flagged_and_still_have_an_end_token(
    tokenizer: Any, response: Any
) -> None:
    sequence = tokenise_completion(tokenizer, "why", response, 100)
    assert sequence.empty
    assert sequence.input_ids[-1] == tokenizer.eos_token_id


def test_messages_are_taken_as_given(tokenizer: Any) -> None:
    prompt = (Message(role="system", content="be brief"), Message(role="user", content="why"))
    answer = (Message(role="assistant", content="because"),)
    as_messages = tokenise_completion(tokenizer, prompt, answer, 200)
    as_text = tokenise_completion(tokenizer, prompt, "because", 200)
    assert as_messages.input_ids.tolist() == as_text.input_ids.tolist()
    assert tokenizer.decode(as_messages.input_ids).startswith("<|im_start|>system\nbe brief")


class Counting:
    """Counts the characters that reach the tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.characters = 0

    def __call__(self, text: str, **options: Any) -> Any:
        self.characters += len(text)
        return self._tokenizer(text, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


@pytest.mark.parametrize("unit", ["a", "word ", " ", "🙂", "\n"])
def test_a_megabyte_is_cut_before_it_is_tokenised(tokenizer: Any, unit: str) -> None:
    counting = Counting(tokenizer)
    long = unit * (1_000_000 // len(unit))
    messages = (Message(role="user", content=long),)
    for prompt, response in [("why", long), (long, "because"), (messages, long)]:
        sequence = tokenise_completion(counting, prompt, response, 64)
        assert sequence.truncated
        assert len(sequence.input_ids) <= 64
    assert counting.characters < 20 * 64 * 24


def test_a_template_that_refuses_names_the_roles(make_folder: Any) -> None:
    from transformers import AutoTokenizer

    template = (
        "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{{ m['content'] }}{% endfor %}"
    )
    tokenizer = AutoTokenizer.from_pretrained(make_folder(template=template))
    twice = (Message(role="user", content="a"), Message(role="user", content="b"))
    with pytest.raises(ScoringError, match=r"user, user.*roles must alternate.*plain text"):
        tokenise_completion(tokenizer, twice, "c", 100)
    with pytest.raises(ScoringError, match="user, user"):
        prompt_tokens(tokenizer, twice, 100)


def test_a_template_cannot_reach_out_of_its_sandbox(make_folder: Any) -> None:
    from transformers import AutoTokenizer

    template = "{{ messages.__class__.__base__.__subclasses__() }}"
    tokenizer = AutoTokenizer.from_pretrained(make_folder(template=template))
    with pytest.raises(ScoringError, match="refuses"):
        tokenise_completion(tokenizer, "a", "b", 100)


def test_a_template_without_end_token_scores_all_it_wrote(make_folder: Any) -> None:
    from transformers import AutoTokenizer

    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer = AutoTokenizer.from_pretrained(make_folder(template=template))
    sequence = tokenise_completion(tokenizer, "a", "bc", 100)
    assert tokenizer.decode(sequence.input_ids) == "abc"


def test_maximal_length_must_leave_room(tokenizer: Any) -> None:
    with pytest.raises(ScoringError, match="max_length is 1"):
        tokenise_completion(tokenizer, "a", "b", 1)


@pytest.mark.parametrize("prompt", ["why", (Message(role="user", content="why"),)])
def test_prompt_tokens_are_what_an_answer_follows(tokenizer: Any, prompt: Any) -> None:
    sequence = tokenise_completion(tokenizer, prompt, "because", 100)
    own = prompt_tokens(tokenizer, prompt, 100)
    assert own == sequence.input_ids[: sequence.response_start].tolist()
    assert prompt_tokens(tokenizer, prompt, 3) == own[:3]


def test_prompt_tokens_without_template(tiny_plain_tokenizer: Any) -> None:
    own = prompt_tokens(tiny_plain_tokenizer, "why", 100)
    assert tiny_plain_tokenizer.decode(own) == "why"
    assert prompt_tokens(SpacedTokenizer(), "a", 100) == [7, ord("a")]


@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_token_texts_put_together_are_the_text(tiny_loaded: Any, text: str) -> None:
    tokenizer = tiny_loaded.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    texts = token_texts(tokenizer, ids)
    assert len(texts) == len(ids)
    assert "".join(texts) == text


def test_a_character_of_several_tokens_stands_at_its_last(tokenizer: Any) -> None:
    ids = tokenizer("a🙂b", add_special_tokens=False)["input_ids"]
    assert token_texts(tokenizer, ids) == ["a", "", "", "", "🙂", "b"]
    assert token_texts(tokenizer, ids[:3]) == ["a", "", "�"]
    assert token_texts(tokenizer, []) == []
    assert token_texts(tokenizer, [tokenizer.eos_token_id]) == ["<|im_end|>"]


def test_bytes_that_make_no_character_are_shown_after_four(tokenizer: Any) -> None:
    (continuation,) = set(tokenizer("\u0410", add_special_tokens=False)["input_ids"][1:])
    texts = token_texts(tokenizer, [continuation] * 5)
    assert texts == ["", "", "", "����", "�"]


def naive_token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    return [tokenizer.decode([token]) for token in ids]


def test_leading_spaces_survive_a_tokenizer_that_drops_them_alone() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"▁the": 0, "▁cat": 1, "▁,": 2, "s": 3}
    inner = Tokenizer(models.WordLevel(words))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    ids = [0, 1, 3, 2]
    assert token_texts(tokenizer, ids) == ["the", " cat", "s", " ,"]
    assert naive_token_texts(tokenizer, ids) != token_texts(tokenizer, ids)
