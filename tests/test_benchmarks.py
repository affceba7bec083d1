"""Pages made from benchmarks' figures say what the figures say."""

import json
from pathlib import Path

import pytest

from benchmarks import report, timing


def test_the_pages_are_those_of_the_committed_figures() -> None:
    assert (report.DOCS / "performance.md").read_text() == report.page().rstrip() + "\n"
    findings = (report.DOCS / "findings.md").read_text()
    assert report.with_tables(findings) == findings
    assert report.training().count("AdamW, all epochs") >= 1
    assert report.soap().count("`mgno`") >= 1


def test_what_misses_its_target_is_bold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = {"processor": "P", "cores": 2, "torch": "2", "threads": 2, "date_utc": "2026"}
    case = {
        "times_as_fast": {"plain": 1.5, "neuralop": 2.6},
        "asked": {"plain": 1.9, "neuralop": 2.5},
        "share_of_matrix_product_rate": 0.4,
    }
    (tmp_path / "p.json").write_text(
        json.dumps(
            {
                "steps, freed memory kept": {"cases": {"FNO": case}, "machine": machine},
                "metrics": {"share_of_a_prediction": 0.6, "asked": 0.5, "machine": machine},
                "reading": {"share": {"0 workers": 0.6, "2 workers": 0.8}, "asked": 0.7, "machine": machine},
                "memory of lazy data": {
                    "megabytes of data": {"1": 84.0, "10": 839.0},
                    "peak megabytes": {"read lazily, 1 workers": {"growth": 1.06}, "held in memory": {"growth": 2.5}},
                    "asked": 1.05,
                    "machine": machine,
                },
                "waiting for data": {
                    "of a step": {"0 workers": {"share": 0.05}, "1 workers": {"share": 0.004}},
                    "asked": 0.02,
                    "machine": machine,
                },
                "boards": {
                    "boards": {
                        "1,000 records, 3 of a row": {
                            "seconds": 12.0,
                            "asked_seconds": 10.0,
                            "peak_mib": 300.0,
                            "asked_mib": 1024,
                        }
                    },
                    "machine": machine,
                },
                "data, darcy": {
                    "two_phase_12_3": {"ratio_spsolve": 12.6},
                    "smooth_1e6": {"ratio_splu": 1.4},
                    "machine": machine,
                },
            }
        )
    )
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    page = report.page()
    assert "| FNO | plain form | **1.50** |  | 1.9 |" in page
    assert "|  | neuralop's FNO, equal one to one | 2.60 |" in page
    assert "by the lite FNO | **0.60** |" in page
    assert "relative to `numpy.fromfile`, 0 workers | **0.60** |" in page
    assert "relative to `numpy.fromfile`, 2 workers | 0.80 |" in page
    assert "relative to 84 MB, read lazily, 1 workers | **1.060** | at most 1.05 |" in page
    assert "relative to 84 MB, held in memory | 2.500 |  |" in page
    assert "lazy data, 0 workers | **0.050** | at most 0.02 |" in page
    assert "lazy data, 1 workers | 0.004 |  |" in page
    assert "| seconds to make a board of 1,000 records, 3 of a row | **12.0** | below 10 |" in page
    assert "| peak memory to make a board, MiB, 1,000 records, 3 of a row | 300 | below 1024 |" in page
    assert "speed-up over splu | **1.4x** | 1.5x |" in page
    assert "speed-up over spsolve | 12.6x | 10.0x |" in page


def test_figures_go_into_the_file_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    monkeypatch.setattr(timing, "_processor", lambda: "Some(R) CPU @ 2.0 GHz")
    timing.save("one", {"value": 1})
    timing.save("two", {"value": 2})
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("some-cpu-2-0-ghz-")
    assert {name: section["value"] for name, section in json.loads(path.read_text()).items()} == {"one": 1, "two": 2}


def test_alternatives_take_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    seconds = timing.interleaved({name: lambda name=name: calls.append(name) for name in "ab"}, repeats=2, warm_up=1)
    assert calls == ["a", "b"] * 3
    assert set(seconds) == {"a", "b"}
    assert min(seconds.values()) >= 0
