"""Feature optimisation against reference data."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from fresco_core.optimization import (
    OptimizationOptions,
    correlation,
    match_statistics,
    normalise_tokens,
    optimize_features,
)
from tests.parity.arrays import correspondence, load_cases, relative_error, tensor


@pytest.fixture(scope="module")
def cases(reference_dir: Path):
    return load_cases(reference_dir / "optimize.npz")


def test_adaptive_instance_normalisation(cases):
    adain = cases["adain"]
    found = match_statistics(tensor(adain["content"]), tensor(adain["style"]))
    assert relative_error(found, adain["out"]) < 1e-5


def test_losses_and_results(cases):
    checked = 0
    for case in cases.values():
        if "sample" not in case:
            continue
        sample, pairs = tensor(case["sample"]), correspondence(case)
        reference = normalise_tokens(tensor(case["corr_feature"]))
        if "correlation" in case:
            assert relative_error(correlation(reference), case["correlation"]) < 1e-5
        for variant in (n.removesuffix("_loss") for n in case if n.endswith("_loss")):
            numbers = re.search(r"_iters(\d+)_weight(\d+)$", variant)
            losses, variables = [], []

            def record(loss, variable, losses=losses, variables=variables):
                losses.append(loss)
                variables.append(variable.clone())

            found = optimize_features(
                sample,
                reference_BPC=None if variant == "temporal" else reference,
                correspondence=None if variant == "spatial" else pairs,
                options=OptimizationOptions(
                    iterations=len(case[f"{variant}_loss"]),
                    spatial_weight=float(numbers[2]) if numbers else 100.0,
                ),
                on_iteration=record,
            )
            np.testing.assert_allclose(losses, case[f"{variant}_loss"], rtol=1e-4)
            tolerance = 1e-5 if numbers else 1e-3
            assert relative_error(found, case[f"{variant}_out"]) < tolerance, variant
            if f"{variant}_after1" in case:
                assert relative_error(variables[0], case[f"{variant}_after1"]) < 1e-5
                assert relative_error(variables[-1], case[f"{variant}_raw"]) < tolerance
            checked += 1
        if "none_out" in case:
            assert torch.equal(optimize_features(sample), tensor(case["none_out"]))
    assert checked > 0
