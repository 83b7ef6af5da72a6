"""What is asked of the product is answered as it was when that was last agreed on."""

import subprocess
import sys
from collections.abc import Sequence
from difflib import unified_diff
from pathlib import Path

import pytest

from tests.record import masks

AGREED = Path(__file__).with_name("record.txt")
ROOT = Path(__file__).parents[2]


def differences(agreed: Sequence[str], told: Sequence[str]) -> str:
    return "\n".join(unified_diff(agreed, told, "agreed", "now", lineterm="", n=4))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_what_is_asked_is_answered_as_agreed() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.record"], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found = differences(AGREED.read_text("utf-8").splitlines(), done.stdout.decode("utf-8").splitlines())
    assert not found, f"python -m tests.record > {AGREED.relative_to(ROOT)} agrees to this:\n{found}"


def test_a_line_that_differs_is_shown_under_its_case() -> None:
    agreed = AGREED.read_text("utf-8").splitlines()
    place = agreed.index("=== cli: a temperature out of range") + 2
    told = [*agreed[:place], "exit code 1", *agreed[place + 1 :]]
    found = differences(agreed, told).splitlines()
    assert "-exit code 2" in found
    assert "+exit code 1" in found
    assert " === cli: a temperature out of range" in found


def test_a_mask_takes_what_a_clock_chose_and_leaves_what_was_counted() -> None:
    told = {
        "id": "cmpl-" + "0a" * 16,
        "created": 5,
        "usage": {"n": 7, "seconds": 0.5},
        "memory": None,
    }
    assert masks.value(told) == {
        "id": "cmpl-#",
        "created": "#",
        "usage": {"n": 7, "seconds": "#"},
        "memory": None,
    }
    assert masks.value({"top": [{"logprob": -0.04}, {"logprob": -1.5}]}) == {"top": [2, {"logprob": 0.0}]}
    line = "13 prompt tokens in /tmp/x/y; first token after 0.25 s; 12.5 tok/s; 3.61 MB; 2 s"
    kept = "13 prompt tokens in <folder>/y; first token after # s; # tok/s; # MB; 2 s"
    assert masks.text(line, {"/tmp/x": "<folder>"}) == [kept]


def test_the_keys_of_a_list_are_those_of_all_its_elements() -> None:
    assert masks.keys({"a": [{"b": 1}, {"c": {"d": 2}}], "e": None}) == [
        "a",
        "a[].b",
        "a[].c",
        "a[].c.d",
        "e",
    ]
