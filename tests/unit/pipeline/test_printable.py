from pipeline.printable import plural, printable


def test_what_a_terminal_would_obey_is_written_out():
    assert printable("a\x1b[31m\x07\x9b\u202e\ud800b\n") == "a\\x1b[31m\\x07\\x9b\\u202e\\ud800b\\n"
    assert printable("one\n\ttwo\x1b", keep="\n\t") == "one\n\ttwo\\x1b"


def test_text_of_any_script_stays():
    text = "Amélie \u0645\u0631\u062d\u0628\u0627 \U0001f468\u200d\U0001f469 C:\\x1b"
    assert printable(text) == text


def test_numbers_are_counted_as_in_english():
    assert [plural(number, "shard") for number in (0, 1, 2000)] == ["0 shards", "1 shard", "2,000 shards"]
    assert [plural(number, "entity is", "entities are") for number in (1, 2)] == [
        "1 entity is",
        "2 entities are",
    ]
