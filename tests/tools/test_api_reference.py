# SPDX-License-Identifier: Apache-2.0
"""tools/api_reference.py writes what the protos say, and every link in it leads somewhere."""

import re
from pathlib import Path

import api_reference

PROTO = """\
syntax = "proto3";
package temper.v1;
// Counts.
service Counter {
  // One more.
  //
  // NOT_FOUND: no such thing.
  rpc Count(Thing) returns (stream Thing);
}
// What is counted.
message Thing {
  // Its | name.
  //
  // Default: none.
  string name = 1;
  map<string, Kind> kinds = 2;
  repeated Thing parts = 3;
  optional int64 size = 4;
  oneof place {
    // On the left.
    bool left = 5;
  }
}
enum Kind {
  // No kind.
  KIND_UNSPECIFIED = 0;
}
"""


def text_of(tmp_path: Path, proto: str) -> str:
    (tmp_path / "thing.proto").write_text(proto)
    return api_reference.Reference(api_reference.describe(tmp_path, ("thing.proto",))).text()


def test_calls_fields_and_values(tmp_path: Path) -> None:
    text = text_of(tmp_path, PROTO)
    assert "### Count\n\n[Thing](#thing) → stream of [Thing](#thing)\n\nOne more.\n\nNOT_FOUND: no such thing." in text
    assert "| `name` | string | Its \\| name.<br>Default: none. |" in text
    assert "| `kinds` | map of string to [Kind](#kind) |  |" in text
    assert "| `parts` | list of [Thing](#thing) |  |" in text
    assert "| `size` | int64, optional |  |" in text
    assert "| `left` | bool | On the left. (One of `place`.) |" in text
    assert "| `KIND_UNSPECIFIED` | No kind. |" in text


def test_every_link_leads_to_a_heading_or_a_file() -> None:
    text = api_reference.reference()
    headings = {heading.lower().replace(".", "") for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif not target.startswith("https:"):
            assert (api_reference.REFERENCE.parent / target).exists(), target


def test_everything_but_requests_and_responses_is_explained() -> None:
    bare = re.findall(r"^### (.+)\n+(?=\| |#)", api_reference.reference(), re.MULTILINE)
    assert [name for name in bare if not name.endswith(("Request", "Response"))] == []
