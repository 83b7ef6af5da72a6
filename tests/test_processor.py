"""What a processor can do, from the words of /proc/cpuinfo."""

from pathlib import Path

import pytest

from backends.machine import Processor
from tests.processors import ARM, OLD, VNNI, processor


def test_a_processor_is_read_by_name_and_by_what_it_has(tmp_path: Path) -> None:
    found = processor(tmp_path, VNNI)
    assert found.name == "Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz"
    assert found.has("avx2")
    assert found.has("amx_int8", "avx512f")
    assert found.has("amx_int8") is False


@pytest.mark.parametrize(
    ("text", "architecture", "whole"),
    [
        (VNNI, "x86_64", True),
        (VNNI.replace("avx512_vnni", "avx_vnni"), "x86_64", True),
        (VNNI.replace("avx512_vnni", "avx512_vnnix"), "x86_64", False),
        (OLD, "x86_64", False),
        (OLD, "AMD64", False),
        ("", "x86_64", False),
        (ARM, "aarch64", True),
        ("", "aarch64", True),
    ],
)
def test_x86_without_vnni_cuts_its_int8_sums(
    tmp_path: Path, text: str, architecture: str, whole: bool
) -> None:
    assert processor(tmp_path, text, architecture).sums_whole is whole


def test_bf16_products_are_those_of_x86(tmp_path: Path) -> None:
    assert processor(tmp_path, VNNI.replace("avx512_vnni", "avx512_bf16")).multiplies_bf16
    assert not processor(tmp_path, VNNI).multiplies_bf16
    # PyTorch has them there too, and how fast was not measured
    assert not processor(tmp_path, ARM, "aarch64").multiplies_bf16


def test_what_only_some_cores_have_is_not_counted(tmp_path: Path) -> None:
    little = ARM.replace(" sve", "")
    assert processor(tmp_path, ARM, "aarch64").has("sve")
    assert processor(tmp_path, f"{ARM}\n{little}", "aarch64").has("sve") is False
    assert processor(tmp_path, f"{ARM}\n{little}", "aarch64").has("i8mm")


def test_an_arm_board_or_its_makers_numbers_stand_for_a_name(tmp_path: Path) -> None:
    assert processor(tmp_path, ARM, "aarch64").name == "CPU implementer 0x41, CPU part 0xd40"
    board = f"{ARM}\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"
    assert processor(tmp_path, board, "aarch64").name == "Raspberry Pi 5 Model B Rev 1.0"


def test_a_system_that_does_not_tell_leaves_it_open(tmp_path: Path) -> None:
    found = Processor.read(tmp_path / "none", "x86_64")
    assert found == Processor("x86_64", "", None)
    assert found.has("avx2") is None
    assert processor(tmp_path, "processor : 0\n").has("avx2") is None
