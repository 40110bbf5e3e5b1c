"""Warp, occlusion and pixel mapping against reference data."""

import re
from pathlib import Path

import pytest
import torch

from fresco_core.correspondence import (
    consistency_occlusion,
    correspond,
    key_mask,
    link_pairs,
    scale_down,
    trajectories,
    warp,
    window_sum,
)
from fresco_core.smoothing import BackgroundSmoother, background_map
from tests.parity.arrays import (
    correspondence,
    differing,
    frames,
    load_cases,
    normalised,
    relative_error,
    tensor,
)


@pytest.fixture(scope="module")
def occlusion_cases(reference_dir: Path):
    return load_cases(reference_dir / "occlusion.npz")


def test_warp(occlusion_cases):
    checked = 0
    for case in occlusion_cases.values():
        if "warped" in case:
            warped = warp(tensor(case["feature"]), tensor(case["flow"]))
            assert relative_error(warped, case["warped"]) < 1e-6
            checked += 1
        if "warp_frame_i_by_bwd" in case:
            expected = case["warp_frame_i_by_bwd"]
            pictures, flows = frames(case["frames"]), tensor(case["bwd_flows"])
            count = len(expected)
            assert relative_error(warp(pictures[:count], flows[:count]), expected) < 1e-6
            last = warp(pictures[:1], tensor(case["fwd_flows"])[-1:])
            assert relative_error(last, case["warp_frame_ip1_by_fwd"]) < 1e-6
            checked += 1
    assert checked > 1


def test_occlusion(occlusion_cases):
    checked = 0
    for case in occlusion_cases.values():
        if "fwd_occs" not in case:
            continue
        forward, backward = tensor(case["fwd_flows"]), tensor(case["bwd_flows"])
        consistent = consistency_occlusion(forward, backward)
        assert differing(consistent, case["fwd_occs_consistency"]) <= 1e-4
        consistent = consistency_occlusion(backward, forward)
        assert differing(consistent, case["bwd_occs_consistency"]) <= 1e-4
        found = correspond(frames(case["frames"]), forward, backward)
        assert differing(found.forward_occlusions[:, 0], case["fwd_occs"]) <= 1e-4
        assert differing(found.backward_occlusions[:, 0], case["bwd_occs"]) <= 1e-4
        for name, mask in case.items():
            if match := re.fullmatch(r"attn_mask_(\d+)", name):
                assert differing(key_mask(correspondence(case), int(match[1])), mask) == 0
                checked += 1
    assert checked > 0


def test_pixel_mapping(reference_dir: Path):
    for case in load_cases(reference_dir / "mapping.npz").values():
        pictures, pairs = normalised(case["frames"]), correspondence(case)
        factors = {int(m[1]) for n in case if (m := re.fullmatch(r"fwd_mappings_(\d+)", n))}
        assert factors
        for factor in factors:
            found = trajectories(pictures, pairs, factor)
            assert torch.equal(found.forward, tensor(case[f"fwd_mappings_{factor}"])[:, 0])
            assert torch.equal(found.backward, tensor(case[f"bwd_mappings_{factor}"])[:, 0])
            assert differing(found.linked, case[f"interattn_masks_{factor}"][:, 0]) == 0
            colours = scale_down(pictures, 1 / factor)
            flows = scale_down(pairs.backward_flows, 1 / factor) / factor
            occluded = scale_down(pairs.backward_occlusions, 1 / factor)[:, 0] > 0.5
            pairs_of = link_pairs(colours[:-1], colours[1:], flows[:-1], occluded[:-1])
            for i, (mapping, unlinked) in enumerate(zip(*pairs_of, strict=True)):
                assert torch.equal(mapping, tensor(case[f"pair{i}_mapping_{factor}"]))
                assert differing(unlinked, case[f"pair{i}_unlinked_{factor}"]) == 0


def test_background_smoothing(reference_dir: Path):
    for case in load_cases(reference_dir / "warp.npz").values():
        pairs, background = correspondence(case), tensor(case["background"])
        found = background_map(tensor(case["salient_prob"]))
        assert relative_error(found, background) < 1e-5
        picture = normalised(case["frames"])
        smoothed = BackgroundSmoother(pairs, background)(picture)
        assert relative_error(smoothed, case["image_out"]) < 1e-5
        for name in case:
            if match := re.fullmatch(r"feat(\d+)_in", name):
                smoothed = BackgroundSmoother(pairs, background)(tensor(case[name]))
                assert relative_error(smoothed, case[f"feat{match[1]}_out"]) < 1e-5
            if match := re.fullmatch(r"dilate(\d+)_in", name):
                widened = window_sum(tensor(case[name]), int(match[1]))
                assert relative_error(widened, tensor(case[f"dilate{match[1]}_out"])) < 1e-5
