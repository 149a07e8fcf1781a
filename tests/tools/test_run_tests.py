# SPDX-License-Identifier: Apache-2.0
"""The summary of `make test` cannot look better than the run was."""

from pathlib import Path

import run_tests
from run_tests import Result


def test_summary_counts_every_outcome() -> None:
    results = [Result("cpp", "a", "passed"), Result("cpp", "b", "failed"), Result("python", "c", "skipped")]
    assert run_tests.summary(results) == ("1 passed, 1 failed, 1 skipped", False)
    assert run_tests.summary(results[:1]) == ("1 passed, 0 failed", True)


def test_nothing_passed_is_not_good() -> None:
    assert run_tests.summary([]) == ("0 passed, 0 failed", False)


def test_suite_without_tests_fails() -> None:
    assert [result.outcome for result in run_tests.of_suite("cpp", [], 0)] == ["failed"]


def test_suite_that_went_wrong_beside_its_tests_fails() -> None:
    passed = Result("python", "a", "passed")
    assert [result.outcome for result in run_tests.of_suite("python", [passed], 2)] == ["passed", "failed"]
    assert run_tests.of_suite("python", [passed], 0) == [passed]


CASES = """<testsuites><testsuite name="Adamw">
<testcase name="Step" classname="Adamw" time="0.5" status="run" result="completed"/>
<testcase name="Decay" classname="Adamw" time="1" status="run" result="completed">{}</testcase>
</testsuite></testsuites>"""


def test_cases_of_a_binary_stand_for_it(tmp_path: Path) -> None:
    report = tmp_path / "ops_test.xml"
    report.write_text(CASES.format(""))
    cases = [Result("cpp", "ops_test: Adamw.Step", "passed", 0.5), Result("cpp", "ops_test: Adamw.Decay", "passed", 1)]
    assert run_tests.cases_of(Result("cpp", "ops_test", "passed", 2), report) == cases
    failed = Result("cpp", "ops_test", "failed", 2)
    assert run_tests.cases_of(failed, report) == [*cases, failed]
    report.write_text(CASES.format('<failure message=""/>'))
    assert [case.outcome for case in run_tests.cases_of(failed, report)] == ["passed", "failed"]


def test_binary_that_left_no_report_counts_itself(tmp_path: Path) -> None:
    crashed = Result("cpp", "ops_test", "failed", 2)
    assert run_tests.cases_of(crashed, tmp_path / "none.xml") == [crashed]


def test_junit_is_read_as_ctest_and_pytest_write_it(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        """<testsuite>
        <testcase name="Adamw.Step" classname="Adamw.Step" time="0.5" status="run"/>
        <testcase name="Adamw.Decay" classname="Adamw.Decay" time="1" status="fail"><failure message=""/></testcase>
        <testcase name="Adamw.Off" classname="Adamw.Off" time="0" status="disabled"><skipped/></testcase>
        <testcase name="test_a" classname="tests.test_x" time="2"><error message="fixture"/></testcase>
        </testsuite>"""
    )
    assert run_tests.read_junit("s", report) == [
        Result("s", "Adamw.Step", "passed", 0.5),
        Result("s", "Adamw.Decay", "failed", 1),
        Result("s", "Adamw.Off", "skipped", 0),
        Result("s", "tests.test_x.test_a", "failed", 2),
    ]
