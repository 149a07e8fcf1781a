# SPDX-License-Identifier: Apache-2.0
"""Generates temper.v1 from the protos: those of the checkout, or the copies that a source distribution carries."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = Path(__file__).resolve().parent
PROTOS = ["temper/v1/job.proto", "temper/v1/training_service.proto"]
PACKAGE = '''# SPDX-License-Identifier: Apache-2.0
"""The messages and calls of temper.v1 as protoc generates them; their comments are in proto/temper/v1."""
'''


def proto_root() -> Path:
    for root in (HERE / "proto", HERE.parents[1] / "proto"):
        if (root / PROTOS[0]).exists():
            return root
    raise FileNotFoundError(f"no {PROTOS[0]} in {HERE}/proto or {HERE.parents[1]}/proto")


def generate(directory: Path) -> None:
    """Writes the package temper.v1 below `directory`."""
    import grpc_tools
    from grpc_tools import protoc

    directory.mkdir(parents=True, exist_ok=True)
    includes = [f"-I{proto_root()}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
    outputs = [f"--{kind}_out={directory}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", *includes, *outputs, *PROTOS]) != 0:
        raise RuntimeError("protoc failed")
    (directory / "temper/v1/__init__.py").write_text(PACKAGE, encoding="utf-8")


class BuildWithProtos(build_py):
    def run(self) -> None:
        super().run()
        # An editable installation imports from here.
        generate(HERE if self.editable_mode else Path(self.build_lib))


class SdistWithProtos(sdist):
    def make_release_tree(self, base_dir, files) -> None:
        super().make_release_tree(base_dir, files)
        for name in PROTOS:
            copy = Path(base_dir, "proto", name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(proto_root() / name, copy)


setup(cmdclass={"build_py": BuildWithProtos, "sdist": SdistWithProtos})
