# SPDX-License-Identifier: Apache-2.0
"""Reading data takes no more memory when there is more of it, whatever a file says about itself."""

import gzip
import json
import os
import subprocess
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

ROOT = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("TEMPER_BIN", ROOT / "build/release/bin")).parent
MIB = 1 << 20
ROW = 4096


def read(file: Path) -> dict:
    # Under AddressSanitizer, freed memory counts until its quarantine is full.
    environment = os.environ | {"ASAN_OPTIONS": f"{os.environ.get('ASAN_OPTIONS', '')}:quarantine_size_mb=1"}
    command = [BUILD / "tests/data_probe", "records", file]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment)
    return json.loads(result.stdout)


def texts(megabytes: int) -> list[str]:
    """No two are alike, or a Parquet file would hold one and its numbers."""
    return [f"{i:08}".ljust(ROW, "x") for i in range(megabytes * MIB // ROW)]


def write_jsonl(path: Path, megabytes: int) -> None:
    with pyarrow.output_stream(path, compression="detect") as file:
        for text in texts(megabytes):
            file.write(json.dumps({"text": text}).encode() + b"\n")


def write_parquet(path: Path, megabytes: int) -> None:
    """In one row group, which is what there is to hold for a reader that takes them one by one."""
    table = pyarrow.table({"text": texts(megabytes)})
    pyarrow.parquet.write_table(table, path, row_group_size=table.num_rows)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.jsonl", write_jsonl),
        ("a.jsonl.gz", write_jsonl),
        ("a.jsonl.zst", write_jsonl),
        ("a.parquet", write_parquet),
    ],
)
def test_memory_does_not_grow_with_the_file(name, write, tmp_path):
    peaks = []
    for megabytes in (16, 80):
        write(tmp_path / name, megabytes)
        found = read(tmp_path / name)
        assert found["error"] == ""
        assert found["records"] == megabytes * MIB // ROW
        peaks.append(found["peak_bytes"])
    assert peaks[1] - peaks[0] < 8 * MIB


def test_gzip_bomb_is_given_up_at_the_longest_line(tmp_path):
    """4 GiB in 4 MB, and not one line in them."""
    (tmp_path / "bomb.jsonl.gz").write_bytes(64 * gzip.compress(bytes(64 * MIB)))
    found = read(tmp_path / "bomb.jsonl.gz")
    assert "bomb.jsonl.gz, line 1: the line is longer than 256 MiB" in found["error"]
    assert found["peak_bytes"] < 1024 * MIB
