# SPDX-License-Identifier: Apache-2.0
"""How fast files get into a bucket, as a share of what the same client reaches alone (storage_rate.py)."""

import pytest
import storage_rate


@pytest.mark.long  # for a machine that does nothing else
def test_publications_checkpoints_and_exports_reach_four_fifths_of_the_raw_rate(tmp_path):
    shares = storage_rate.shares(tmp_path, size=400 * storage_rate.PIECE, runs=3)
    assert all(share >= storage_rate.GOAL for share in shares.values()), shares
