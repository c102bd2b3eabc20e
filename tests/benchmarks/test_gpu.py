"""The benchmark for an accelerator, on a few columns and the CPU: that it runs, and what it adds up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from tuner.readouts.readout import FeatureShape


def test_it_runs_without_an_accelerator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "VGG19", {"features.28": (8, 14), "features.0": (4, 28)})
    page = tmp_path / "gpu.md"
    monkeypatch.setattr("sys.argv", ["gpu", "--device", "cpu", "--quick", "-o", str(page)])
    gpu.main()
    text = page.read_text()
    assert capsys.readouterr().out == text
    assert "not a measurement" in text
    assert "| full | 1 | 8x14x14 | 8 |" in text
    assert "| factorized | 1 | 4x28x28 | 8 |" in text
    assert "All trials" not in text


def test_shapes_are_those_of_the_networks() -> None:
    from tuner.backbones import load_backbone
    from tuner.features.normalize import pooling

    for name, shapes in (("vgg19", gpu.VGG19), ("inceptionv1", gpu.INCEPTIONV1)):
        backbone = load_backbone(name, "random")
        described = backbone.describe(list(backbone.layers), 224)
        pooled = {i.name: (i.channels, pooling(i.height, i.width, 28)[1][0]) for i in described}
        assert pooled == shapes


def test_all_trials_are_added_up() -> None:
    """One second a step for every round of 5,336 columns, at every layer in proportion to its size."""
    shape = FeatureShape(64, 28, 28)
    columns = gpu.UNITS * gpu.TRIALS_AT_ONCE
    same = [
        gpu.Measured(readout, shape, columns, 1.0, 0.0, 0.5, 0, 0)
        for readout in ("full", "factorized")
    ]
    layers = [*gpu.VGG19.values(), *gpu.INCEPTIONV1.values()]
    sizes = sum(channels * side * side for channels, side in layers) / shape.size
    hours = 2 * sizes * gpu.STEPS * gpu.TRIALS / gpu.TRIALS_AT_ONCE / 3600
    assert f"All 42,000 trials: {hours:.1f} h if none were pruned" in gpu.search(same)[-1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an accelerator")
def test_without_an_accelerator_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", ["gpu", "-o", str(tmp_path / "gpu.md")])
    with pytest.raises(SystemExit, match="there is none; use --device cpu"):
        gpu.main()
