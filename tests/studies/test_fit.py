"""Fitted power laws against an independent calculation."""

from __future__ import annotations

import numpy as np
import pytest

from mlenergy.diffusion.studies.fit import PowerLaw, power_law

X = [1.0, 2.0, 4.0, 8.0, 16.0]
Y = [3.1, 11.5, 49.0, 190.0, 770.0]


def test_an_exact_law_is_found_again():
    fit = power_law(X, [0.25 * x**1.75 for x in X])
    assert isinstance(fit, PowerLaw)
    assert (fit.factor, fit.exponent) == (pytest.approx(0.25), pytest.approx(1.75))
    assert fit.error == pytest.approx(0, abs=1e-9) and fit.points == 5
    assert fit.at(32.0) == pytest.approx(0.25 * 32**1.75)


def test_exponent_error_and_interval_are_those_of_least_squares():
    fit = power_law(X, Y)
    assert isinstance(fit, PowerLaw)
    # The normal equations, and the covariance of their solution.
    matrix = np.stack([np.ones(5), np.log(X)], axis=1)
    solution = np.linalg.solve(matrix.T @ matrix, matrix.T @ np.log(Y))
    residuals = np.log(Y) - matrix @ solution
    covariance = residuals @ residuals / (5 - 2) * np.linalg.inv(matrix.T @ matrix)
    assert fit.exponent == pytest.approx(solution[1])
    assert fit.factor == pytest.approx(np.exp(solution[0]))
    assert fit.error == pytest.approx(np.sqrt(covariance[1, 1]))
    assert fit.half_width == pytest.approx(3.182446 * np.sqrt(covariance[1, 1]))  # t(0.975, 3)


def test_two_points_have_an_exponent_without_an_error():
    fit = power_law([1.0, 4.0], [2.0, 32.0])
    assert isinstance(fit, PowerLaw)
    assert fit.exponent == pytest.approx(2) and fit.error is None and fit.half_width is None


def test_a_line_goes_from_end_to_end():
    line = PowerLaw(2.0, 3.0, None, 2).line(1.0, 100.0)
    assert line[0] == pytest.approx((1.0, 2.0)) and line[-1] == pytest.approx((100.0, 2e6))


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ([4.0, 4.0], [1.0, 1.1], "two or more different points; 1 measured"),
        ([1.0, 2.0], [0.0, 1.0], "values above 0"),
    ],
)
def test_what_cannot_be_fitted_says_why(x, y, reason):
    assert reason in str(power_law(x, y))
