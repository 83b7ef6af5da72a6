"""What /proc/cpuinfo says on machines with and without the instruction sets that matter, shortened."""

from pathlib import Path

from backends.machine import Processor

VNNI = """\
processor	: 0
vendor_id	: GenuineIntel
model		: 106
model name	: Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz
flags		: fpu sse4_2 avx f16c avx2 fma bmi2 avx512f avx512dq avx512bw avx512vl avx512_vnni
vmx flags	: vnmi amx_int8
bugs		: spectre_v1
"""
OLD = """\
processor	: 0
vendor_id	: AuthenticAMD
model		: 1
model name	: AMD EPYC
flags		: fpu sse4_2 avx f16c avx2 fma bmi2 vaes
"""
ARM = """\
processor	: 0
BogoMIPS	: 2100.00
Features	: fp asimd aes crc32 asimdhp asimddp sve i8mm bf16
CPU implementer	: 0x41
CPU part	: 0xd40
"""


def processor(folder: Path, text: str, architecture: str = "x86_64") -> Processor:
    """The processor that ``text`` describes."""
    file = folder / "cpuinfo"
    file.write_text(text)
    return Processor.read(file, architecture)
