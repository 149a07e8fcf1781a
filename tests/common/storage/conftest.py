# SPDX-License-Identifier: Apache-2.0
import pytest
from servers import storage_report


@pytest.fixture(autouse=True)
def reported(request):
    """A row of build/reports/storage.json: of the fixture `server`, or of the one that the module names as SERVER."""
    server = request.getfixturevalue("server").name if "server" in request.fixturenames else request.module.SERVER
    failed_before = request.session.testsfailed
    yield
    check = request.node.originalname.removeprefix("test_")
    storage_report.add(server, check, request.session.testsfailed == failed_before)
