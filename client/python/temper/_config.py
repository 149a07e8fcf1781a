# SPDX-License-Identifier: Apache-2.0
"""What a user has written down about the server, for the `temper` command and for this client."""

import os
from dataclasses import dataclass, field
from pathlib import Path

_KEYS = ("server", "token", "token_file", "ca_file", "cert_file", "key_file", "insecure")
_LONGEST_NAME = 20  # what is longer may be a token


@dataclass
class Config:
    """Empty: nothing."""

    server: str = ""
    token: str = field(default="", repr=False)
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    insecure: bool = False


def config_path() -> Path:
    """${XDG_CONFIG_HOME:-~/.config}/temper/config.yaml"""
    config = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(config) if config.startswith("/") else Path.home() / ".config") / "temper/config.yaml"


def _others(keys: object) -> str:
    """What a file has instead of our keys, without what may be a secret: values, and whatever is not a short name."""
    others = [key for key in keys if key not in _KEYS] if isinstance(keys, dict) else []
    names = [key for key in others if isinstance(key, str) and key.isidentifier() and len(key) <= _LONGEST_NAME]
    return f", found {', '.join(names)}" if names else ""


def read_config(path: Path) -> Config:
    """Reads a file with the keys `server`, `token` or `token_file`, `ca_file`, `cert_file`, `key_file` and `insecure`.
    Relative paths are meant relative to the file. A file that does not exist says nothing.

    ValueError: what is wrong with it, without what it says: there may be a token in it. ImportError: there is one, but
    no PyYAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Config()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
    try:
        import yaml
    except ImportError:
        raise ImportError(f"reading {path} needs PyYAML: pip install 'temper-client[yaml]'") from None
    try:
        keys = yaml.safe_load(text)
    except yaml.YAMLError as error:
        # Its text quotes the file.
        mark = getattr(error, "problem_mark", None)
        raise ValueError(f"{path}{f':{mark.line + 1}' if mark else ''}: is not valid YAML") from None
    if keys is None:
        return Config()
    if not isinstance(keys, dict) or any(key not in _KEYS for key in keys):
        raise ValueError(f"{path}: expected the keys {', '.join(_KEYS)}{_others(keys)}")
    insecure = keys.pop("insecure", False)
    if not isinstance(insecure, bool):
        raise ValueError(f"{path}: insecure must be true or false")
    for key, value in keys.items():
        if not isinstance(value, str):
            raise ValueError(f"{path}: {key} must be a text")
    token = keys.get("token", "")
    if token_file := keys.get("token_file"):
        if token:
            raise ValueError(f"{path}: has token and token_file; remove one of them")
        try:
            token = (path.parent / token_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ValueError(f"{path}: token_file: {error}") from None
    files = {name: str(path.parent / keys[name]) for name in ("ca_file", "cert_file", "key_file") if keys.get(name)}
    return Config(keys.get("server", ""), token, **files, insecure=insecure)
