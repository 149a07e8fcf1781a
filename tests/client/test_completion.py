# SPDX-License-Identifier: Apache-2.0
"""Completion in the shells themselves: the tab key is pressed, and the line is what is then on it."""

import os
import pty
import re
import select
import shutil
import subprocess
import time

import pytest
from temper_process import BIN, LIMIT

# A prompt to wait for, and a key (Ctrl-X p) that says what the line is.
BASH_SETTINGS = r"""
PS1='READY> '
bind 'set enable-bracketed-paste off'
bind -x '"\C-xp": printf "LINE<%s>\n" "$READLINE_LINE"'
source <(temper completion bash)
"""
ZSH_SETTINGS = r"""
PS1='READY> '
unset zle_bracketed_paste
autoload -Uz compinit && compinit -u -D
show() { print -r -- "LINE<$BUFFER>" }
zle -N show
bindkey '^Xp' show
source <(temper completion zsh)
"""

COMPLETED = [
    ("temper che\t", "temper checkpoints "),
    ("temper list --ou\t", "temper list --output "),
    ("temper list --output js\t", "temper list --output json "),
    ("temper list --output=js\t", "temper list --output=json "),
    ("temper list --state ru\t", "temper list --state running "),
    ("temper list --state queued,ru\t", "temper list --state queued,running "),
    ("temper list --state=queued,ru\t", "temper list --state=queued,running "),
    ("temper submit jo\t", "temper submit job.yaml "),
    ("temper download a --to out\t", "temper download a --to output/"),
    ("temper get jo\t", "temper get jo"),  # an id of a job: no file
    ("temper completion f\t", "temper completion fish "),
]


@pytest.fixture
def environment(tmp_path):
    (tmp_path / "job.yaml").touch()
    (tmp_path / "output").mkdir()
    return os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "TERM": "dumb", "HOME": str(tmp_path)}


def needs(shell):
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


class Shell:
    """An interactive shell on a terminal of its own."""

    def __init__(self, command, directory, environment):
        self._terminal, other = pty.openpty()
        self._process = subprocess.Popen(
            command, stdin=other, stdout=other, stderr=other, cwd=directory, env=environment, start_new_session=True
        )
        os.close(other)
        self._read_until("READY> ")

    def line_after(self, keys):
        os.write(self._terminal, f"{keys}\x18p".encode())
        return self._read_until(r"LINE<(.*)>\r?\n").group(1)

    def _read_until(self, pattern):
        seen, deadline = "", time.monotonic() + LIMIT
        while not (match := re.search(pattern, seen)):
            ready, _, _ = select.select([self._terminal], [], [], deadline - time.monotonic())
            assert ready, f"waited in vain for {pattern} in {seen!r}"
            seen += os.read(self._terminal, 4096).decode()
        return match

    def close(self):
        self._process.kill()
        self._process.wait(LIMIT)
        os.close(self._terminal)


@needs("bash")
@pytest.mark.parametrize(("keys", "line"), COMPLETED)
def test_bash(keys, line, tmp_path, environment):
    (tmp_path / "settings").write_text(BASH_SETTINGS)
    shell = Shell(["bash", "--noprofile", "--rcfile", "settings", "-i"], tmp_path, environment)
    try:
        assert shell.line_after(keys) == line
    finally:
        shell.close()


@needs("zsh")
@pytest.mark.parametrize(("keys", "line"), COMPLETED)
def test_zsh(keys, line, tmp_path, environment):
    (tmp_path / ".zshrc").write_text(ZSH_SETTINGS)
    shell = Shell(["zsh", "-d", "-i"], tmp_path, environment | {"ZDOTDIR": str(tmp_path)})
    try:
        assert shell.line_after(keys) == line
    finally:
        shell.close()


@needs("fish")
@pytest.mark.parametrize(("keys", "line"), COMPLETED)
def test_fish(keys, line, tmp_path, environment):
    typed = keys.removesuffix("\t")
    script = f"temper completion fish | source; complete --do-complete '{typed}'"
    found = subprocess.run(
        ["fish", "--no-config", "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=LIMIT,
        check=True,
    ).stdout
    start, _, _ = typed.rpartition(" ")
    candidates = [candidate.partition("\t")[0] for candidate in found.splitlines()]
    assert candidates == ([] if line == typed else [line.removeprefix(f"{start} ").rstrip()])
