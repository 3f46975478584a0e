import copy

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import ConfigError, ModelError
from pipeline.models.tokenizer import control_tokens, turn_end
from pipeline.prompts.chat import PromptEncoder
from pipeline.schemas import TOKEN_IDS


def test_is_what_the_chat_template_and_the_tokenizer_make_of_one_message(tokenizer, make_model):
    messages = ["What is Up?", "And Jaws?"]
    for system in (None, "Be brief."):
        encoded = PromptEncoder(tokenizer, make_model()).encode(messages, system)
        for message, prompt in zip(messages, encoded, strict=True):
            chat = [{"role": "user", "content": message}]
            chat = [{"role": "system", "content": system}, *chat] if system else chat
            text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            assert prompt.text == text
            assert prompt.token_ids == tokenizer(text, add_special_tokens=False)["input_ids"]
            assert text.endswith("<|im_start|>assistant\n")


def test_a_model_without_chat_template_gets_the_plain_text(tokenizer, make_model):
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = None
    encoder = PromptEncoder(plain, make_model())
    assert encoder.encode(["What is Up?"], None)[0].text == "What is Up?"
    prompt = encoder.encode(["What is Up?"], "Be brief.")[0]
    assert prompt.text == "Be brief.\n\nWhat is Up?"
    assert tokenizer.decode(prompt.token_ids) == prompt.text


def test_thinking_is_off_unless_the_chat_template_arguments_say_otherwise(tokenizer, make_model):
    thinking = copy.deepcopy(tokenizer)
    thinking.chat_template = "{{ messages[0].content }}{{ '' if enable_thinking else ' /no_think' }}"
    for args, expected in (({}, "Hi /no_think"), ({"enable_thinking": True}, "Hi")):
        encoder = PromptEncoder(thinking, make_model(chat_template_args=args))
        assert encoder.encode(["Hi"], None)[0].text == expected


def test_a_chat_template_that_refuses_is_one_line_of_error(tokenizer, make_model):
    strict = copy.deepcopy(tokenizer)
    strict.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}x"
    )
    with pytest.raises(ModelError, match=r"^model.path /models/smollm2: .* no system role$"):
        PromptEncoder(strict, make_model()).encode(["Hi"], "Be brief.")


def test_arguments_of_the_pipeline_cannot_be_overridden(tokenizer, make_model):
    with pytest.raises(ConfigError, match=r"^model\.chat_template_args\.tokenize "):
        PromptEncoder(tokenizer, make_model(chat_template_args={"tokenize": True}))


def test_counts_control_tokens_of_each_row(tokenizer, make_model):
    encoder = PromptEncoder(tokenizer, make_model())
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    rows = pa.array([[], [500, 300], [end, 500, end], [end]], TOKEN_IDS)
    np.testing.assert_array_equal(encoder.count_control_tokens(rows), [0, 0, 2, 1])
    np.testing.assert_array_equal(encoder.count_control_tokens(rows.slice(2)), [2, 1])
    # system, user and the open assistant turn: three starts, two ends
    assert encoder.control_tokens_of_frame("Be brief.") == 5


def test_added_words_are_no_control_tokens(tokenizer):
    extended = copy.deepcopy(tokenizer)
    extended.add_tokens(["iPhone", "   ", "<think>"])
    tokens = control_tokens(extended)
    assert "<think>" in tokens and "<|im_end|>" in tokens
    assert not {"iPhone", "   "} & tokens.keys()


@pytest.mark.parametrize(
    ("template", "closing"),
    [
        (
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
            "<|im_end|>",
        ),
        ("{% for m in messages %}{{ m.content }}\n<|endoftext|>{% endfor %}", "<|endoftext|>"),
        ("{% for m in messages %}### {{ m.role }}: {{ m.content }}\n{% endfor %}", None),
        ("{% for m in messages %}{{ m.content }} bye<|im_end|>{% endfor %}", None),  # not by a token
        ("{{ messages[0].content }}<|im_end|>", None),  # shows no answer
        ("{{ raise_exception('one turn only') }}", None),
        (None, None),
    ],
)
def test_the_token_that_closes_a_turn_is_seen_in_the_template(tokenizer, make_model, template, closing):
    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    expected = None if closing is None else (closing, tokenizer.convert_tokens_to_ids(closing))
    assert turn_end(other, make_model()) == expected
