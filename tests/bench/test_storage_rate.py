# SPDX-License-Identifier: Apache-2.0
"""How fast files get into a bucket, as a share of what the same client reaches alone: storage_rate.py, in short."""

import statistics

import pytest
import storage_rate
from servers import storage_report
from servers.s3_server import Versitygw


def test_a_publication_keeps_up_with_the_client_that_it_goes_through(tmp_path):
    with Versitygw(tmp_path) as server:
        server.make_bucket("bucket")
        raw, ours = storage_rate.publication_seconds(server, size=96 << 20, runs=5)
    share = statistics.median(raw) / statistics.median(ours)
    fast_enough = share >= 0.5  # of the goal, 0.8, what other tests on the same cores leave for certain
    storage_report.add("versitygw", "rate of a publication beside other tests", fast_enough, round(share, 3))
    assert fast_enough, (raw, ours)


@pytest.mark.long  # for a machine that does nothing else
def test_publications_checkpoints_and_exports_reach_four_fifths_of_the_raw_rate(tmp_path):
    shares = storage_rate.shares(tmp_path, size=400 * storage_rate.PIECE, runs=3)
    assert all(share >= storage_rate.GOAL for share in shares.values()), shares
