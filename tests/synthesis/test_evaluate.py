"""Images judged by other encoders, and against natural ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.encoders import SIZE, pictures, random_encoder
from tuner.encoder import Together, as_batch
from tuner.errors import InputError
from tuner.synthesis.evaluate import (
    COLUMNS,
    compare,
    headline,
    judge_of,
    natural_extremes,
    responses,
    summary,
    variant_distances,
)
from tuner.synthesis.mei import MeiSettings, synthesize
from tuner.synthesis.photometry import Photometry
from tuner.synthesis.receptive_fields import from_readout

PHOTOMETRY = Photometry(mean=0.5, contrast=0.1)


class Pictures:
    """Prepared images, in memory."""

    def __init__(self, count: int) -> None:
        self.pixels = pictures(count, seed=11)
        self.names = [f"picture {k}" for k in range(count)]

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, indices):
        return self.pixels[indices]


@pytest.fixture
def made():
    one = random_encoder(n_units=4, layer="_blocks.0", max_grid=4)
    other = random_encoder("factorized", n_units=4, layer="_blocks.1", seed=3)
    settings = MeiSettings(steps=20, chunk=4, variants=2)
    return one, other, synthesize([one], None, settings)


def test_together_is_each_on_its_own():
    encoders = [
        random_encoder(),
        random_encoder("factorized", seed=2),
        random_encoder(layer="_blocks.0"),
        random_encoder(seed=4),
    ]
    images = as_batch(pictures(3))
    for answer, encoder in zip(Together(encoders).respond(images), encoders, strict=True):
        assert torch.equal(answer, encoder(images))


def test_together_runs_a_shared_backbone_once(monkeypatch):
    encoders = [random_encoder(), random_encoder("factorized"), random_encoder(layer="_blocks.0")]
    calls = []
    original = type(encoders[0].backbone).features

    def counted(self, images, layers):
        calls.append(layers)
        return original(self, images, layers)

    monkeypatch.setattr(type(encoders[0].backbone), "features", counted)
    Together(encoders).respond(as_batch(pictures(2)))
    assert calls == [["_blocks.1", "_blocks.0"]]


def test_different_sizes_are_refused():
    with pytest.raises(InputError, match="32, 64 px"):
        Together([random_encoder(), random_encoder(size=64)])


def test_responses_are_the_encoders(made):
    one, other, result = made
    flat = result.pixels.reshape(-1, SIZE, SIZE, 3)
    answers = responses([one, other], flat)
    with torch.no_grad():
        np.testing.assert_allclose(answers[1], other(as_batch(flat)).numpy(), rtol=1e-4, atol=1e-4)


def test_extremes_are_those_of_all_images():
    encoder = random_encoder()
    images = Pictures(70)
    (found,) = natural_extremes([encoder], images, PHOTOMETRY, count=3)
    with torch.no_grad():
        answers = encoder(as_batch(PHOTOMETRY.match(images.pixels))).numpy()
    order = np.argsort(answers, axis=0)
    np.testing.assert_array_equal(found.best, order[::-1][:3].T)
    np.testing.assert_array_equal(found.worst, order[:3].T)
    np.testing.assert_allclose(found.highest[:, 0], answers.max(0), rtol=1e-4)
    np.testing.assert_allclose(found.lowest[:, 0], answers.min(0), rtol=1e-4, atol=1e-4)


def test_more_than_there_are_is_all_there_are():
    (found,) = natural_extremes([random_encoder()], Pictures(2), PHOTOMETRY, count=5)
    assert found.best.shape == (5, 2)


def test_no_images_is_an_error():
    with pytest.raises(InputError, match="no natural images"):
        natural_extremes([random_encoder()], Pictures(0), PHOTOMETRY)


def test_the_table(made):
    one, other, result = made
    rows = compare(result, {"a": one, "b": other}, {"a"}, PHOTOMETRY, Pictures(40))
    assert len(rows) == 4 * 2 * 2
    assert tuple(rows[0]) == COLUMNS
    own = [row for row in rows if row["encoder"] == "a"]
    assert all(row["made_with"] for row in own)
    assert not any(row["made_with"] for row in rows if row["encoder"] == "b")
    np.testing.assert_allclose(
        [row["activation"] for row in own], result.activation.ravel(), rtol=1e-4, atol=1e-4
    )
    for row in rows:
        assert row["natural_image"].startswith("picture ")
        expected = (row["activation"] - row["grey"]) / (row["natural"] - row["grey"])
        if row["natural"] <= row["grey"]:  # no natural image does better than grey: undefined
            expected = float("nan")
        assert row["gain"] == pytest.approx(expected, nan_ok=True)
    means = {row["encoder"]: row for row in summary(rows)}
    assert means["a"]["images"] == 8
    assert means["a"]["gain"] > means["b"]["gain"], "an image is best for what it was made with"


def test_without_natural_images_there_is_no_gain(made):
    one, _, result = made
    rows = compare(result, {"a": one}, {"a"}, PHOTOMETRY)
    assert all(np.isnan(row["gain"]) for row in rows)
    assert np.isnan(summary(rows)[0]["better_than_natural"])


def test_an_encoder_of_other_units_has_no_say(made):
    one, _, result = made
    stranger = random_encoder(n_units=2, unit_indices=[9, 50])
    rows = compare(result, {"a": one, "s": stranger}, {"a"}, PHOTOMETRY)
    assert {row["unit"] for row in rows if row["encoder"] == "s"} == {9}


def test_distances_of_variants(made):
    _, _, result = made
    distance = variant_distances(result)
    assert distance.shape == (4, 2, 2)
    np.testing.assert_array_equal(distance[:, 0, 0], 0)
    np.testing.assert_allclose(distance, distance.transpose(0, 2, 1))
    a, b = (result.pixels[1, v].astype(float).ravel() for v in (0, 1))
    assert distance[1, 0, 1] == pytest.approx(1 - np.corrcoef(a, b)[0, 1])
    assert (distance[:, 0, 1] > 0).all()


def test_judges_say_how_near_they_are_to_the_makers():
    maker = random_encoder(meta={"study": "a/l/V1/full"})
    sibling = random_encoder(seed=1, meta={"study": "a/l/V1/full"})
    relative = random_encoder("factorized", meta={"study": "a/l/V1/factorized"})
    stranger = random_encoder(meta={"study": "b/l/V1/full"})
    stranger.backbone = type("Other", (), {"digest": "another"})()
    made = {"maker": maker}
    near = [
        judge_of(judge, name, made)
        for name, judge in (("maker", maker), ("s", sibling), ("r", relative), ("x", stranger))
    ]
    assert near == ["maker", "same study", "same backbone", "other backbone"]


def test_the_headline_is_of_the_most_independent_judges_and_says_where_none_is():
    def row(judge, share):
        worth = {"better_than_natural_inside": share, "field_is_image": 0}
        return {"judge": judge, "images": 4, **worth}

    table = [row("maker", 1.0), row("same study", 0.9)]
    assert "90% of 4 images" in headline(table)
    assert "no independent evidence" in headline(table)
    assert headline([*table, row("other backbone", 0.25)]).endswith("encoders on another backbone")
    assert "25% of 4 images, judged by" in headline([*table, row("other backbone", 0.25)])
    two = [row("other backbone", 0.25), row("other backbone", 0.5)]
    assert "38% of 4 images (median of 2 judges), judged by" in headline([*table, *two])
    assert "no evidence" in headline(table[:1])


def test_images_are_compared_at_equal_contrast_inside_the_field(made):
    one, other, result = made
    rows = compare(
        result, {"a": one, "b": other}, ["a"], PHOTOMETRY, Pictures(40), fields=from_readout(one)
    )
    assert tuple(rows[0]) == COLUMNS
    assert {row["judge"] for row in rows} == {"maker", "same backbone"}
    for row in rows:
        assert np.isfinite(row["activation_inside"])
        assert row["natural_inside_image"].startswith("picture")
        if np.isfinite(row["gain_inside"]):
            above = row["natural_inside"] - row["grey"]
            assert row["gain_inside"] == pytest.approx(
                (row["activation_inside"] - row["grey"]) / above
            )
        assert np.isfinite([row["scrambled_inside"], row["natural_scrambled_inside"]]).all()
        if row["encoder"] == "a":  # scrambled, the image is worth less to who made it
            assert row["scrambled_inside"] < row["activation_inside"]
    table = summary(rows)
    assert {entry["encoder"] for entry in table} == {"a", "b"}
    assert all(0 <= entry["better_than_natural_inside"] <= 1 for entry in table)
    assert table[0]["better_than_scrambled_inside"] == 1
    assert all(entry["field_is_image"] == 0 for entry in table)
    assert "as large as the image" not in headline(table)
    wide = [row | {"gain": 1.2, "gain_inside": 1.2} for row in rows]
    assert "(each with a field as large as the image)" in headline(summary(wide))
