# SPDX-License-Identifier: Apache-2.0
"""file://: the promises of a store, as those in test_s3.py and test_clouds.py keep them."""

from servers.storage_probe import keeps_every_promise

SERVER = "file"


def test_every_promise(tmp_path):
    keeps_every_promise({}, f"file://{tmp_path}/below")
    assert list(tmp_path.rglob("*")) == [tmp_path / "below"]
