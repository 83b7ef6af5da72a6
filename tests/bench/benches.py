"""Turns, targets and reports of benchmarks, made up."""

from dataclasses import replace

from backends.machine import Processor
from router.bench.contenders import EXACT, Fidelity
from router.bench.engine import Measurement, Sample
from router.bench.report import BenchReport, Row, Setting, Standing, rows
from router.bench.schedule import Outcome, Step
from router.bench.workloads import Size, Workload
from router.machine import Machine

TEXT = Workload(5, prompt_tokens=128)
LONG = Workload(5, prompt_tokens=512)
IMAGE = Workload(5, images=2, size=Size(64, 32))
FOLLOW_UP = replace(TEXT, follow_up=True)

PROCESSOR = Processor("x86_64", "A Processor", frozenset({"avx2", "fma"}))
MACHINE = Machine("Linux-6-x86_64", PROCESSOR, 2, 4, 8 << 30, 32 << 20)
SETTING = Setting("tiny", None, "hybrid bench -m tiny", 2, 3, 1, 1, "auto", "auto", "onnx")

SAMPLE = Sample(
    prompt_tokens=128,
    output_tokens=5,
    first_token_seconds=0.7,
    decode_seconds=0.8,
    total_seconds=1.6,
    gaps=(0.1, 0.3, 0.2, 0.2),
    prefill_seconds=0.64,
)
SEEN = replace(
    SAMPLE,
    prompt_tokens=164,
    prefill_seconds=0.9,
    vision_seconds=0.5,
    patches=800,
    preprocess_seconds=0.01,
    first_token_seconds=1.0,
)


def turn(sample: Sample = SAMPLE, **changes: object) -> Measurement:
    return Measurement((replace(sample, **changes),), 1.6, 500_000_000)


def slower(times: float) -> Measurement:
    return turn(first_token_seconds=0.7 * times, decode_seconds=0.8 * times, prefill_seconds=0.64 * times)


OUTCOMES = [
    Outcome(Step(TEXT, "torch", 0), slower(100.0)),
    Outcome(Step(TEXT, "torch", 1), slower(4.0)),
    Outcome(Step(TEXT, "torch", 2), slower(5.0)),
    Outcome(Step(TEXT, "torch", 3), slower(3.0)),
    Outcome(Step(TEXT, "onnx", 1), slower(1.0)),
    Outcome(Step(LONG, "torch", 1), turn(prompt_tokens=512, prefill_seconds=5.12)),
    Outcome(Step(LONG, "onnx", 1), turn(prompt_tokens=512, prefill_seconds=1.28, decode_seconds=1.6)),
    Outcome(Step(IMAGE, "torch", 0), problem="it reads text only"),
    Outcome(Step(IMAGE, "onnx", 1), turn(SEEN)),
    Outcome(Step(FOLLOW_UP, "onnx", 1), turn(cached_tokens=64, prefill_seconds=0.1)),
]
WORKLOADS = (TEXT, LONG, IMAGE, FOLLOW_UP)
STANDINGS = (
    Standing("torch", "float32", 6.0, 8_000_000, 700_000_000, EXACT),
    Standing("genai", problem="onnxruntime_genai not installed: pip install onnxruntime-genai"),
    Standing("onnx", "int4, faithful", 0.5, 3_000_000, 500_000_000, Fidelity(0.077, 0.006, 0.005)),
)


def report(**changes: object) -> BenchReport:
    names = [standing.name for standing in STANDINGS]
    made = BenchReport(
        setting=SETTING,
        machine=MACHINE,
        versions={"python": "3.11.7", "numpy": "2.4.6"},
        commit="abc",
        date="2026-01-02 03:04 UTC",
        workloads=WORKLOADS,
        standings=STANDINGS,
        rows=rows(OUTCOMES, WORKLOADS, names),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def row_of(made: BenchReport, target: str, workload: Workload) -> Row:
    (found,) = [row for row in made.of(workload) if row.target == target]
    return found
