"""The target model's tokenizer and vocabulary, read from its local folder."""

from typing import TYPE_CHECKING

from pipeline.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
