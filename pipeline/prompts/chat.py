"""From the user message to the tokens that the model sees."""

from collections.abc import Sequence
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

import jinja2
import numpy as np
import pyarrow as pa

from pipeline.errors import ConfigError, ModelError
from pipeline.models.tokenizer import PLACE, TEMPLATE_ARGUMENTS, control_tokens
from pipeline.settings import ModelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Arguments that `apply_chat_template` gets from here and a configuration must not set.
_RESERVED_ARGUMENTS = frozenset({
    "add_generation_prompt", "continue_final_message", "conversation", "max_length", "padding",
    "return_assistant_tokens_mask", "return_dict", "return_tensors",
    "tokenize", "tokenizer_kwargs", "truncation",
})  # fmt: skip

# What chat templates are known to look for in a message: switches (`/no_think`), tool calls, white space
# at its ends (messages have none).
_READ_BY_TEMPLATES = ("/think", "/no_think", "<", "[")


class EncodedPrompt(NamedTuple):
    """A prompt as text, after the chat template, and as token ids; both end with the answer's prefix."""

    text: str
    token_ids: list[int]
    answer_prefix: str | None = None


class PromptEncoder:
    """Wraps messages in the model's chat format and tokenizes them, many at a time.

    A model without a chat template gets the plain text (a system prompt stands before it), with the
    special tokens its tokenizer adds; a chat template writes its special tokens itself.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", model: ModelSettings) -> None:
        reserved = sorted(_RESERVED_ARGUMENTS & model.chat_template_args.keys())
        if reserved:
            raise ConfigError(f"model.chat_template_args.{reserved[0]} cannot be set: the pipeline sets it")
        self._tokenizer = tokenizer
        self._model = model
        self.has_chat_template = bool(getattr(tokenizer, "chat_template", None))
        self._is_control = _control_token_mask(tokenizer)

    def encode(
        self, messages: Sequence[str], system: str | None, prefixes: Sequence[str] | None = None
    ) -> list[EncodedPrompt]:
        """The prompts for `messages`, in their order. `prefixes` are the first words of their answers."""
        if not messages:
            return []
        texts = self._texts(messages, system)
        if prefixes is not None:
            gap = "" if self.has_chat_template else "\n\n"
            texts = [f"{text}{gap}{prefix}" for text, prefix in zip(texts, prefixes, strict=True)]
        return list(map(EncodedPrompt, texts, self._token_ids(texts), prefixes or repeat(None)))

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is not None and hasattr(
            backend, "encode_batch_fast"
        ):  # as below, without offsets and masks
            backend.no_truncation()
            backend.no_padding()
            encoded = backend.encode_batch_fast(texts, add_special_tokens=not self.has_chat_template)
            return [encoding.ids for encoding in encoded]
        ids: list[list[int]] = self._tokenizer(
            texts,
            add_special_tokens=not self.has_chat_template,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        return ids

    def _texts(self, messages: Sequence[str], system: str | None) -> list[str]:
        if not self.has_chat_template:
            return [f"{system}\n\n{message}" if system else message for message in messages]
        first = self._rendered([messages[0]], system)
        frame = self._rendered([PLACE], system)[0].split(PLACE)
        if len(frame) == 2 and first[0] == messages[0].join(frame):
            # A chat template may treat a message by what it says; this one is seen not to touch it.
            is_plain = [not any(mark in message for mark in _READ_BY_TEMPLATES) for message in messages]
            others = [message for message, plain in zip(messages, is_plain, strict=True) if not plain]
            rendered = iter(self._rendered(others, system) if others else [])
            pairs = zip(messages, is_plain, strict=True)
            return [message.join(frame) if plain else next(rendered) for message, plain in pairs]
        return first + (self._rendered(messages[1:], system) if messages[1:] else [])

    def _rendered(self, messages: Sequence[str], system: str | None) -> list[str]:
        head = [{"role": "system", "content": system}] if system else []
        chats = [[*head, {"role": "user", "content": message}] for message in messages]
        try:
            texts: list[str] = self._tokenizer.apply_chat_template(
                chats,
                tokenize=False,
                add_generation_prompt=True,
                **TEMPLATE_ARGUMENTS | self._model.chat_template_args,
            )
            return texts
        except (jinja2.TemplateError, TypeError, ValueError, LookupError) as error:
            raise ModelError(
                f"model.path {self._model.path}: its chat template refuses the prompt: {error}"
            ) from error

    def count_control_tokens(self, token_ids: pa.ListArray) -> np.ndarray:
        """How many control tokens of the model each row of `token_ids` holds, int64."""
        offsets = token_ids.offsets.to_numpy()
        values = token_ids.values.to_numpy()
        before = np.concatenate([[0], np.cumsum(self._is_control[values])])
        return before[offsets[1:]] - before[offsets[:-1]]

    def control_tokens_of_frame(self, system: str | None) -> int:
        """How many control tokens the chat format itself writes around a message without any."""
        ids = self.encode(["x"], system)[0].token_ids
        return int(self._is_control[ids].sum())


def _control_token_mask(tokenizer: "PreTrainedTokenizerBase") -> np.ndarray:
    """By token id: whether it is a control token. An unknown token is none: rare characters write it."""
    mask = np.zeros(len(tokenizer) + 1, dtype=bool)
    mask[list(control_tokens(tokenizer).values())] = True
    if tokenizer.unk_token_id is not None:
        mask[tokenizer.unk_token_id] = False
    return mask
