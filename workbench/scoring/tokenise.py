"""Prompt and answer as one sequence of tokens, and where the answer begins.

The two are tokenised jointly, as the model would read them, and the answer begins where the joint
tokens first differ from the prompt's own: a token that straddles the border belongs to the
answer. With a chat template a plain prompt is one user turn and the answer one assistant turn,
whose end-of-turn token is the last that is scored, for chosen and rejected alike. Without one,
prompt and answer are joined by a space where neither has one, begin as the tokenizer begins every
text, and the tokenizer's end-of-sequence token closes the answer.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.data.pairs import Text, plain
from workbench.errors import ScoringError

_CHARS_PER_TOKEN = 24
"""No tokenizer here makes fewer tokens of more text than this, blank runs aside."""
_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class TokenisedSequence:
    """A prompt and its answer in tokens.

    Attributes:
        input_ids: Prompt and answer, int32 of shape (tokens,), at most the maximal length.
        response_start: Place of the answer's first token; equal to the length where nothing of
            the answer is left.
        truncated: Whether the maximal length cut anything off.
        empty: Whether the answer has no text (or, when truncated, no token left).
    """

    input_ids: np.ndarray[Any, np.dtype[np.int32]]
    response_start: int
    truncated: bool
    empty: bool


def tokenise_completion(
    tokenizer: Any,  # noqa: ANN401 - a transformers tokenizer
    prompt: Text,
    response: Text,
    max_length: int,
) -> TokenisedSequence:
    """Tokenise an answer together with its prompt; what is too long loses its end (keep-start).

    Raises:
        ScoringError: the roles make no sense, or the chat template refuses them; they are named.
    """
    if max_length < 2:
        raise ScoringError(f"max_length is {max_length}; give at least 2 tokens.")
    _check_roles(prompt, response)
    limit = max_length * _CHARS_PER_TOKEN
    # A megabyte of text would keep the tokenizer busy for what is cut off anyway.
    cut_prompt, cut_response = _cut(prompt, limit), _cut(response, limit)
    with _lock:  # a fast tokenizer refuses to be used by two threads at once
        own, joint = _encoded(tokenizer, cut_prompt, cut_response)
    start = _common_prefix(own, joint)
    too_long = len(joint) > max_length or (cut_prompt, cut_response) != (prompt, response)
    ids = np.asarray(joint[:max_length], dtype=np.int32)
    start = min(start, len(ids))
    empty = not plain(response).strip() or start == len(ids)
    return TokenisedSequence(ids, start, too_long, empty)


def prompt_tokens(tokenizer: Any, prompt: Text, max_length: int) -> list[int]:  # noqa: ANN401
    """Tokens of a prompt as an answer would follow it, at most `max_length` of them.

    Raises:
        ScoringError: the roles make no sense, or the chat template refuses them; they are named.
    """
    _check_roles(prompt, "")
    cut = _cut(prompt, max_length * _CHARS_PER_TOKEN)
    with _lock:
        if not has_chat_template(tokenizer):
            return _opening(tokenizer, plain(cut))[:max_length]
        return _prompt_ids(tokenizer, _turns(cut, "user"))[:max_length]


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:  # noqa: ANN401
    """What each token reads, white space kept; bytes that make no character alone read as �.

    A character spread over several tokens stands whole at the last of them.
    """
    texts, pending = list[str](), list[int]()
    before = list[int]()
    for token in ids:
        pending.append(int(token))
        text = _continued(tokenizer, before, pending)
        whole = not text.endswith("�") or len(pending) >= 4
        texts.append(text if whole else "")
        before, pending = (pending, []) if whole else (before, pending)
    if pending:
        texts[-1] = "�"
    return texts


def _continued(tokenizer: Any, before: list[int], ids: list[int]) -> str:  # noqa: ANN401
    """What tokens read after others: at a text's start some tokenizers drop the first space."""
    texts: list[str] = [
        tokenizer.decode(part, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for part in (before + ids, before)
    ]
    return texts[0][len(texts[1]) :] if before else texts[0]


def has_chat_template(tokenizer: Any) -> bool:  # noqa: ANN401
    """Whether texts are rendered as a conversation."""
    return bool(getattr(tokenizer, "chat_template", None))


def _encoded(tokenizer: Any, prompt: Text, response: Text) -> tuple[list[int], list[int]]:  # noqa: ANN401
    if not has_chat_template(tokenizer):
        return _plain_ids(tokenizer, plain(prompt), plain(response))
    turns = _turns(prompt, "user")
    answer = _turns(response, "assistant")
    own = _prompt_ids(tokenizer, turns)
    closed = _rendered(tokenizer, [*turns, *answer], add_generation_prompt=False)
    joint = tokenizer(closed, add_special_tokens=False)["input_ids"]
    return own, _through_end_of_turn(joint, len(own), tokenizer)


def _prompt_ids(tokenizer: Any, turns: list[dict[str, str]]) -> list[int]:  # noqa: ANN401
    opened = _rendered(tokenizer, turns, add_generation_prompt=True)
    ids: list[int] = tokenizer(opened, add_special_tokens=False)["input_ids"]
    return ids


def _plain_ids(tokenizer: Any, prompt: str, response: str) -> tuple[list[int], list[int]]:  # noqa: ANN401
    gap = "" if not prompt or prompt[-1:].isspace() or response[:1].isspace() else " "
    own, joint = (_text_ids(tokenizer, text) for text in (prompt, prompt + gap + response))
    begin = _begin(tokenizer, own)
    last = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return [*begin, *own], [*begin, *joint, *last]


def _opening(tokenizer: Any, prompt: str) -> list[int]:  # noqa: ANN401
    """A prompt without a template: what stands before its answer."""
    own = _text_ids(tokenizer, prompt)
    return [*_begin(tokenizer, own), *own]


def _begin(tokenizer: Any, own: list[int]) -> list[int]:  # noqa: ANN401
    """Where nothing would stand before the answer, its first token could not be scored."""
    first = tokenizer.bos_token_id
    return [first] if first is not None and not own else []


def _text_ids(tokenizer: Any, text: str) -> list[int]:  # noqa: ANN401
    """A text as the tokenizer begins every one, with <bos> if that is its way, and never closed."""
    ids: list[int] = tokenizer(text)["input_ids"]
    last = tokenizer.eos_token_id
    return ids[:-1] if last is not None and ids[-1:] == [last] and len(ids) > 1 else ids


def _through_end_of_turn(ids: list[int], start: int, tokenizer: Any) -> list[int]:  # noqa: ANN401
    """Drop what a template writes after the end-of-turn token, such as a line break."""
    end = len(ids)
    while end > start and ids[end - 1] not in tokenizer.all_special_ids:
        end -= 1
    return ids[:end] if end > start else ids


def _rendered(tokenizer: Any, turns: list[dict[str, str]], add_generation_prompt: bool) -> str:  # noqa: ANN401
    try:
        text: str = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except Exception as error:
        # A template is a program of the model's author, and raises whatever it likes.
        roles = ", ".join(turn["role"] for turn in turns)
        raise ScoringError(
            f"The model's chat template refuses a conversation of {roles}: {error}. "
            "Change the roles, or write the prompt as plain text."
        ) from error
    return text


def _check_roles(prompt: Text, response: Text) -> None:
    """A conversation asks first and the assistant answers; strings have no roles to be wrong."""
    asked = [] if isinstance(prompt, str) else [message.role for message in prompt]
    said = [] if isinstance(response, str) else [message.role for message in response]
    if not isinstance(prompt, str) and (not asked or asked[-1] not in ("user", "tool")):
        raise ScoringError(
            f"The prompt's roles are {', '.join(asked) or 'none'}; a prompt ends with a user or "
            "tool message. Put the assistant's last words into the answers."
        )
    if not isinstance(response, str) and (not said or said[0] != "assistant"):
        raise ScoringError(
            f"The answer's roles are {', '.join(said) or 'none'}; an answer begins with the "
            "assistant. Put what comes before into the prompt."
        )


def _turns(text: Text, role: str) -> list[dict[str, str]]:
    if isinstance(text, str):
        return [{"role": role, "content": text}]
    return [{"role": message.role, "content": message.content} for message in text]


def _cut(text: Text, limit: int) -> Text:
    """The beginning of an enormous text; ordinary ones are returned as they are."""
    if isinstance(text, str):
        return text if len(text) <= limit else text[:limit]
    if all(len(message.content) <= limit for message in text):
        return text
    return tuple(m.model_copy(update={"content": m.content[:limit]}) for m in text)


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    same = 0
    for one, other in zip(a, b, strict=False):
        if one != other:
            break
        same += 1
    return same
