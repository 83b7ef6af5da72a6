"""Reports: tables, JSON, CSV, ratios against an earlier one, a plot, and what is kept for policies."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from backends.base import RequestError, Runtime
from backends.store import MatrixError
from router.bench.comparison import compare, read
from router.bench.contenders import EXACT, Fidelity
from router.bench.engine import Measurement
from router.bench.metrics import Spread
from router.bench.plot import panels, plot
from router.bench.report import BenchReport, as_csv, as_json, speeds
from router.bench.roofline import Rates, Shares
from router.bench.tables import markdown, number, spread_text, table
from router.estimates import Speed, read_speeds, record_speeds
from router.machine import Machine
from router.models import find
from router.packages import commit, versions
from tests.bench.benches import (
    IMAGE,
    LONG,
    MACHINE,
    OUTCOMES,
    PROCESSOR,
    SAMPLE,
    STANDINGS,
    TEXT,
    report,
    row_of,
    slower,
)


def cells(text: str, first: str) -> list[list[str]]:
    """The rows of a Markdown text whose first cell is ``first``."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line
    ]
    return [row for row in rows if row[0] == first]


def test_the_tables_hold_every_figure_with_its_spread_and_its_weight_error() -> None:
    text = markdown(report())
    assert cells(text, "onnx")[0] == ["onnx", "0.077 / 0.006", "0.500", "3", "500", "int4, faithful"]
    assert cells(text, "torch")[1] == ["torch", "0 / 0", "1.25", "50 / 100", "-"]
    assert cells(text, "onnx")[1] == ["onnx", "0.077 / 0.006", "5", "200 / 400", "1600"]
    section = text.partition("## text 128\n")[2].partition("\n## ")[0]
    assert cells(section, "") == [["", "torch", "onnx"]]
    assert cells(section, "weight error, body / head") == [
        ["weight error, body / head", "0 / 0", "0.077 / 0.006"]
    ]
    assert cells(section, "TTFT, ms") == [["TTFT, ms", "2800 (2100..3500)", "700"]]
    assert cells(section, "tokens out") == [["tokens out", "5", "5"]]
    assert "vision" not in section
    for formula in ("(last token - first token) / (output tokens - 1)", "patches of 16 x 16 pixels / vision"):
        assert formula in text
    assert "hybrid bench -m tiny" in text
    assert "commit abc" in text


def test_what_did_not_run_says_why_in_the_table() -> None:
    text = markdown(report())
    (row,) = cells(text, "genai")
    assert row[-1] == "cannot run: onnxruntime_genai not installed: pip install onnxruntime-genai"
    section = text.partition("## 2 images 64x32\n")[2].partition("\n## ")[0]
    assert "- torch did not run: it reads text only" in section
    assert cells(section, "vision encode, ms") == [["vision encode, ms", "-", "500"]]


def test_notes_stand_above_the_figures() -> None:
    text = markdown(report(notes=("the machine was busy",)))
    assert text.index("> the machine was busy") < text.index("| backend")


def test_the_roofline_is_a_table_of_shares() -> None:
    found = replace(row_of(report(), "onnx", TEXT), shares=Shares(40e6, decode=0.755, prefill=0.5))
    made = report(rows=(found,), rates=Rates(2, 35e9, {"int8 X": 840e9, "fp32 Y": 170e9}))
    text = markdown(made)
    assert "reads 35.0 GB/s" in text
    assert "int8 X 840, fp32 Y 170" in text
    assert cells(text, "text 128") == [
        ["text 128", "onnx", "0.077 / 0.006 / 0.005", "40", "75.5%", "50.0%", "-"]
    ]
    assert "fits into this processor's cache" not in text
    small = replace(found, shares=Shares(30e6, decode=0.1))
    assert "What onnx read for a token fits into" in markdown(replace(made, rows=(small,)))
    assert "## Roofline" not in markdown(report())


def test_numbers_have_three_digits_that_matter() -> None:
    assert [number(value) for value in (1234.5, 123.4, 12.34, 1.234, 0.1234, 0, 64.0, 5)] == [
        "1234", "123", "12.3", "1.23", "0.123", "0", "64", "5",
    ]  # fmt: skip
    assert spread_text(Spread(12.34, 1.0, 123.0, 3)) == "12.3 (1.0..123.0)"
    assert spread_text(Spread(12.34, 12.33, 12.35, 3)) == "12.3"
    assert spread_text(None) == "-"
    assert table([["a", "b"], ["longer", "1"]]) == "| a      |   b |\n| ------ | --: |\n| longer |   1 |"


def test_json_holds_everything_and_reads_back() -> None:
    fields = json.loads(as_json(report(), {"date": "then"}))
    assert fields["setting"]["command"] == "hybrid bench -m tiny"
    assert fields["machine"] == {
        "cpu": "A Processor", "cores": 2, "all_cores": 4, "memory_bytes": 8 << 30, "cache_bytes": 32 << 20,
        "instructions": ["avx2"], "system": "Linux-6-x86_64",
    }  # fmt: skip
    assert fields["versions"]["numpy"] == "2.4.6"
    assert fields["workloads"][2]["size"] == {"width": 64, "height": 32}
    assert fields["rows"][0]["measured"]["ttft_ms"] == {
        "median": pytest.approx(2800), "low": pytest.approx(2100), "high": pytest.approx(3500), "count": 3,
    }  # fmt: skip
    assert fields["standings"][1]["problem"].startswith("onnxruntime_genai not installed")
    assert fields["comparison"] == {"date": "then"}


def test_csv_has_a_line_for_each_backend_at_each_workload() -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(report()))))
    keys = [(line["backend"], line["workload"]) for line in lines]
    assert keys == [
        ("torch", "text 128"), ("torch", "text 512"), ("torch", "2 images 64x32"), ("genai", ""),
        ("onnx", "text 128"), ("onnx", "text 512"), ("onnx", "2 images 64x32"),
        ("onnx", "follow-up to text 128"),
    ]  # fmt: skip
    assert float(lines[0]["decode_tokens_per_second"]) == pytest.approx(1.25)
    assert float(lines[0]["ttft_ms_high"]) == pytest.approx(3500)
    assert float(lines[4]["error_body"]) == 0.077
    assert lines[2]["problem"] == "it reads text only"
    assert lines[3]["problem"].startswith("onnxruntime_genai")
    assert lines[0]["vision_ms"] == ""


def saved(made: BenchReport, tmp_path: Path) -> Path:
    file = tmp_path / "old.json"
    file.write_text(as_json(made))
    return file


def test_ratios_are_above_one_where_it_got_better(tmp_path: Path) -> None:
    faster = [replace(outcome, measurement=outcome.measurement and slower(0.5)) for outcome in OUTCOMES[:5]]
    from router.bench.report import rows

    now = report(rows=rows(faster, (TEXT,), ("torch", "onnx")))
    compared = compare(now, read(saved(report(), tmp_path)))
    assert compared.differences == ()
    torch, onnx = compared.ratios
    assert (torch.target, torch.workload) == ("torch", "text 128")
    assert torch.times["ttft_ms"] == pytest.approx(2800 / 350)
    assert torch.times["decode_tokens_per_second"] == pytest.approx(10 / 1.25)
    assert onnx.times["prefill_tokens_per_second"] == pytest.approx(2)
    assert onnx.times["peak_megabytes"] == pytest.approx(1)
    assert "output_tokens" not in onnx.times
    text = compared.markdown()
    assert "## Against 2026-01-02 03:04 UTC, commit abc" in text
    (row,) = [row for row in cells(text, "text 128") if row[1] == "torch"]
    assert row[2:] == ["8.00x", "8.00x", "8.00x", "1.00x", "1.00x"]
    same = compare(report(), read(saved(report(), tmp_path)))
    assert {times for ratios in same.ratios for times in ratios.times.values()} == {1.0}


def test_what_else_is_not_the_same_is_said(tmp_path: Path) -> None:
    old = report(
        machine=replace(MACHINE, processor=replace(PROCESSOR, name="Another"), cores_usable=8),
        setting=replace(report().setting, threads=8),
        versions={"python": "3.11.7", "torch": "2.13.0"},
    )
    compared = compare(report(), read(saved(old, tmp_path)))
    assert compared.differences == (
        "machine cpu was Another, is A Processor",
        "machine cores was 8, is 2",
        "setting threads was 8, is 2",
        "numpy was not there, is 2.4.6",
        "torch was 2.13.0, is not there",
    )
    assert "> not the same: machine cpu was Another" in compared.markdown()
    shorter = replace(OUTCOMES[4], measurement=Measurement((replace(SAMPLE, output_tokens=3),), 1.0))
    from router.bench.report import rows

    now = report(rows=rows([shorter], (TEXT,), ("onnx",)))
    assert compare(now, read(saved(report(), tmp_path))).differences == (
        "output_tokens of onnx at 'text 128' was 5, is 3",
    )
    nearly = replace(OUTCOMES[4], measurement=Measurement((replace(SAMPLE, prompt_tokens=136),), 1.0))
    alike = report(rows=rows([nearly], (TEXT,), ("onnx",)))
    assert compare(alike, read(saved(report(), tmp_path))).differences == ()
    assert "no row that both have" in compare(report(rows=()), read(saved(report(), tmp_path))).markdown()


def test_a_report_of_before_images_were_called_so_is_compared_row_by_row(tmp_path: Path) -> None:
    former = "pic" + "ture"  # apart, so that no search for the word that is no longer used changes it here
    fields = json.loads(as_json(report()))
    for workload in fields["workloads"]:
        workload[f"{former}s"] = workload.pop("images")
    for named in (*fields["workloads"], *fields["rows"]):
        key = "name" if "name" in named else "workload"
        named[key] = named[key].replace("image", former)
    assert f"2 {former}s 64x32" in {row["workload"] for row in fields["rows"]}
    file = tmp_path / "old.json"
    file.write_text(json.dumps(fields))
    compared = compare(report(), read(file))
    assert compared.differences == ()
    assert compared.ratios == compare(report(), read(saved(report(), tmp_path))).ratios
    assert "2 images 64x32" in {row.workload for row in compared.ratios}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 1}', '{"format": 2, "program": "hybrid bench"}']
)
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "old.json"
    file.write_text(content)
    with pytest.raises(RequestError, match="is not a report of this version"):
        read(file)
    with pytest.raises(RequestError, match="cannot be read: No such file"):
        read(tmp_path / "missing.json")


def test_medians_are_kept_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRID_HOME", str(tmp_path))
    found = speeds(report())
    assert found["onnx"] == Speed(
        0.5,
        prefill=((128, pytest.approx(200)), (512, pytest.approx(400))),
        decode=((130, pytest.approx(5)), (514, pytest.approx(2.5))),
        vision=((400, pytest.approx(1600)),),  # two images of 400 patches each
    )
    assert found["torch"].vision == ()
    assert set(found) == {"torch", "onnx"}
    record_speeds(find(), Runtime(), found)
    assert read_speeds(find(), Runtime()) == found


def test_a_server_s_figures_are_not_kept() -> None:
    served = tuple(replace(standing, load_seconds=None) for standing in STANDINGS)
    assert speeds(report(standings=served)) == {}


SEARCHED_HEAD = [("lm_head.weight", 0.006), ("shortlist.lm_head.weight", 0.1)]


def test_weight_errors_are_means_over_the_parts() -> None:
    layers = "model.language_model.layers.0."
    body = [MatrixError(layers + "mlp.up_proj.weight", 4, 32, 0.08), MatrixError(layers + "q", 4, 32, 0.06)]
    vision = [MatrixError("model.visual.blocks.0.attn.qkv.weight", 8, 0, 0.005)]
    table_, head = (
        MatrixError("model.language_model.embed_tokens.weight", 8, 64, 0.004),
        MatrixError("lm_head.weight", 4, 32, 0.1),
    )
    assert Fidelity.of([*body, table_, *vision]) == Fidelity(pytest.approx(0.07), 0.004, 0.005)
    assert Fidelity.of([*body, head, table_]) == Fidelity(pytest.approx(0.07), 0.1, 0.0)
    assert Fidelity.of([]) == EXACT
    calibrated = [MatrixError(*matrix[:4], output_error=0.05) for matrix in body]
    assert Fidelity.of([*calibrated, head]).text(vision=False) == "0.070 (outputs 0.050) / 0.100"
    assert Fidelity(0.0771, 0.0056, 0.005).text(vision=False) == "0.077 / 0.006"
    whole, search = (MatrixError(name, 4, 32, error) for name, error in SEARCHED_HEAD)
    searched = Fidelity.of([*body, whole, search])
    assert searched.text(vision=True) == "0.070 / 0.006 (past the best 0.100) / 0"
    assert EXACT.text(vision=True) == "0 / 0 / 0"


def test_the_plot_has_a_panel_for_each_figure_that_somebody_has(tmp_path: Path) -> None:
    from PIL import Image

    titles = [panel.title.partition(":")[0] for panel in panels(report())]
    assert titles == ["Decode", "Prefill", "Time to first token", "Vision", "Peak memory"]
    decode = panels(report())[0]
    assert [name for name, _ in decode.groups] == [TEXT.name, LONG.name, IMAGE.name]
    assert [target for target, _ in decode.groups[0][1]] == ["torch", "onnx"]
    for name in ("plot.png", "plot.svg"):
        plot(report(), tmp_path / name)
    with Image.open(tmp_path / "plot.png") as drawn:
        assert drawn.width == 1800
    svg = (tmp_path / "plot.svg").read_text()
    assert "<svg" in svg
    bare = [panel.title.partition(":")[0] for panel in panels(report(rows=()))]
    assert bare == ["Peak memory"]


def test_this_machine_and_this_code_are_named(tmp_path: Path) -> None:
    machine = Machine.read()
    assert machine.cpu
    assert 1 <= machine.cores_usable <= machine.cores_present
    assert {"python", "numpy", "onnxruntime"} <= set(versions())
    assert commit(tmp_path) is None
    found = commit()
    assert found == commit(Path(__file__).parent.parent.parent)
    assert found is None or len(found.rstrip("+")) == 12
