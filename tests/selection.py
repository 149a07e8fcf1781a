# SPDX-License-Identifier: Apache-2.0
"""What of a test module is run. A report of all is not for who chose a few: theirs leaves it as it is."""

import pytest


def is_whole(request: pytest.FixtureRequest) -> bool:
    """Whether this session runs every case, but for the long ones, of the module whose fixture asks."""
    chosen = {item.nodeid for item in request.session.items}
    return all(item.nodeid in chosen for item in request.node.collect() if not item.get_closest_marker("long"))
