# SPDX-License-Identifier: Apache-2.0
"""What a user has written down about the server, for the `temper` command and for this client."""

import os
from dataclasses import dataclass, field
from pathlib import Path


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


def read_config(path: Path) -> Config:
    """Reads a file with the keys `server`, `token` or `token_file`, `ca_file`, `cert_file`, `key_file` and `insecure`.
    Relative paths are meant relative to the file. A file that does not exist says nothing.

    ValueError: what is wrong with it. ImportError: there is one, but no PyYAML.
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
        raise ValueError(f"{path}: {error}") from None
    if keys is None:
        return Config()
    known = ("server", "token", "token_file", "ca_file", "cert_file", "key_file", "insecure")
    if not isinstance(keys, dict) or any(key not in known for key in keys):
        raise ValueError(f"{path}: expected the keys {', '.join(known)}, found {keys!r}")
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
