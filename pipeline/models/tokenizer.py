"""The target model's tokenizer and vocabulary, read from its local folder; what ends a text of the model."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from pipeline.errors import ModelError
from pipeline.settings import ModelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Knowledge, not deliberation: models that can reason do so unless told, and templates do not agree on the
# name of the switch. A template does not look at what it does not know.
TEMPLATE_ARGUMENTS: dict[str, bool | str | int] = {"enable_thinking": False, "thinking": False}
PLACE = "PLACE\u2603OF\u2603THE\u2603MESSAGE"


def load_tokenizer(path: str, trust_remote_code: bool = False) -> "PreTrainedTokenizerBase":
    """The tokenizer of the model in folder `path`."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: no usable tokenizer ({str(error).splitlines()[0]})") from error


def vocabulary_size(path: str, trust_remote_code: bool = False) -> int:
    """Number of token ids of the model in folder `path`, as its config says (vLLM goes by the same)."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: no usable config.json ({str(error).splitlines()[0]})") from error
    return int(config.get_text_config().vocab_size)


def control_tokens(tokenizer: "PreTrainedTokenizerBase") -> dict[str, int]:
    """The strings that the tokenizer parses as control tokens, and their ids.

    Special tokens, and added ones that look like markup (`<think>`); added plain words and runs of
    white space are ordinary text. The unknown token counts only by its string.
    """
    special = {str(token) for token in tokenizer.all_special_tokens}
    return {
        token.content: token_id
        for token_id, token in tokenizer.added_tokens_decoder.items()
        if token.special or token.content in special or _looks_like_markup(token.content)
    }


def _looks_like_markup(token: str) -> bool:
    return len(token) > 1 and not token.isspace() and token[0] in "<[|"


def turn_end(tokenizer: "PreTrainedTokenizerBase", model: ModelSettings) -> tuple[str, int] | None:
    """The token that closes an assistant's turn in the rendered chat template, and its id.

    None if there is no template, or the template refuses such a chat or closes the turn with no token.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    chat = [{"role": "user", "content": "x"}, {"role": "assistant", "content": PLACE}]
    arguments = TEMPLATE_ARGUMENTS | model.chat_template_args
    try:
        text: str = tokenizer.apply_chat_template(chat, tokenize=False, **arguments)
    except (jinja2.TemplateError, TypeError, ValueError, LookupError):
        return None  # what it says to the prompts themselves is another matter
    after = text.rpartition(PLACE)[2].lstrip()
    known = control_tokens(tokenizer)
    closing = max((token for token in known if after.startswith(token)), key=len, default=None)
    return None if closing is None else (closing, known[closing])


def unnamed_turn_end(path: str, model: ModelSettings) -> tuple[str, int] | None:
    """The `turn_end` of the model in folder `path` if none of its files names that as an end of texts.

    vLLM ends a text at what `generation_config.json` (without it, `config.json`) and the tokenizer name.
    """
    folder = Path(path)
    has_template = any(folder.glob("chat_template*")) or _content(folder / "tokenizer_config.json").get(
        "chat_template"
    )
    if not has_template:
        return None
    tokenizer = load_tokenizer(path, model.trust_remote_code)
    closing = turn_end(tokenizer, model)
    config = _content(folder / "generation_config.json") or _content(folder / "config.json")
    ends = config.get("eos_token_id")
    named = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
    return None if closing is None or closing[1] in named else closing


def _content(file: Path) -> dict[str, Any]:
    """The JSON object in `file`; empty if there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
