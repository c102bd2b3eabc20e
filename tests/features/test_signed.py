"""Layers whose features keep their sign, or are rectified whatever the network did."""

from __future__ import annotations

import pytest
import torch

from tests.features.tiny import Pictures, raw, tiny
from tuner.backbones.backbone import Rectify
from tuner.features.extract import extract
from tuner.features.layout import feature_key
from tuner.features.normalize import Normalization


@pytest.mark.parametrize("rectify", ["auto", True, False])
def test_each_way_of_rectifying(rectify: Rectify) -> None:
    backbone, images = tiny(), Pictures(40)
    backbone.rectify = rectify
    found = extract(backbone, ["first", "relu"], images, max_grid=0, cache=None)
    for layer in ("first", "relu"):
        values = raw(backbone, images, layer)
        mean = values.mean(dim=(0, 2, 3), keepdim=True)
        sd = values.std(dim=(0, 2, 3), keepdim=True, correction=0)
        expected = (values - mean) / sd
        if layer == "relu" and rectify is not True:
            expected = values / sd
        elif rectify is not False:
            expected = expected.relu()
        features = torch.from_numpy(found[layer].train[:]).float()
        torch.testing.assert_close(features, expected, rtol=2e-3, atol=2e-3)
        state = found[layer].normalization.state()
        again = Normalization.from_state(state).apply(values)
        torch.testing.assert_close(again, expected, rtol=1e-3, atol=1e-3)
        assert ("signed" in state) == (rectify is False and layer == "first")


def test_what_was_cached_before_keeps_its_name() -> None:
    images = Pictures(4)
    keys = {}
    for rectify in ("auto", True, False):
        backbone = tiny()
        backbone.rectify = rectify
        keys[rectify] = feature_key(backbone, "first", images, 0)
    assert keys["auto"] == keys[True] != keys[False]
