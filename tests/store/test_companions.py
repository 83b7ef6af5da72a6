"""Which small files an export, a pull and a look into a folder take for those of a model."""

import pytest

from backends.store import companions, lacking

TODAY = (
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "tokenizer.json",
    "chat_template.jinja",
)
BEFORE = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json")
OLD = ("config.json", "preprocessor_config.json", "chat_template.json", "vocab.json", "merges.txt")


@pytest.mark.parametrize("names", [TODAY, BEFORE, OLD])
def test_folders_of_every_saver_lack_nothing(names: tuple[str, ...]) -> None:
    assert lacking(names) is None


@pytest.mark.parametrize(
    ("names", "without", "lack"),
    [
        (TODAY, "config.json", "config.json"),
        (TODAY, "tokenizer.json", "tokenizer.json"),
        (TODAY, "processor_config.json", "image settings"),
        (OLD, "merges.txt", "tokenizer.json"),
        (OLD, "chat_template.json", "chat template"),
    ],
)
def test_what_no_other_file_gives_is_named(names: tuple[str, ...], without: str, lack: str) -> None:
    assert str(lacking([name for name in names if name != without])).startswith(lack)


def test_an_older_tokenizer_is_read_where_there_is_no_newer_one() -> None:
    assert companions(OLD) == ("config.json", "preprocessor_config.json", "chat_template.json", *OLD[3:])
    assert companions([*BEFORE, "model.safetensors", "README.md"]) == BEFORE[:-1]
