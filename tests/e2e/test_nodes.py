# SPDX-License-Identifier: Apache-2.0
"""Jobs of several nodes, each in a network namespace of its own (in_namespaces.py)."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(660)
def test_in_network_namespaces():
    """They are made below a namespace that goes with the run, in which anybody is root: the host sees none of it."""
    cases = Path(__file__).with_name("in_namespaces.py")
    run_cases = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", str(cases)]
    # c10d asks for the names of addresses. In the namespace no server of names answers: none is asked.
    command = f"mount --bind /dev/null /etc/resolv.conf && exec {shlex.join(run_cases)}"
    result = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c", command],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=os.environ,
    )
    assert result.returncode == 0, result.stdout + result.stderr
