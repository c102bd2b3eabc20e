"""Recorded responses come back: read in every form, and scored against what was predicted."""

from __future__ import annotations

import csv

import h5py
import numpy as np
import pytest
from PIL import Image

from tests.encoders import random_encoder
from tests.figures.conftest import edges_with_ink
from tests.synthesis.test_stimuli import SETTINGS, STUDY, Pictures
from tuner.encoder import Together, as_batch
from tuner.errors import InputError
from tuner.synthesis.mei import MeiSettings, synthesize
from tuner.synthesis.stimuli import figures
from tuner.synthesis.stimuli.answers import Answers, read_answers
from tuner.synthesis.stimuli.choice import KINDS, Choice, Source, choose
from tuner.synthesis.stimuli.folder import write_stimuli
from tuner.synthesis.stimuli.manifest import read_stimuli, seen_images
from tuner.synthesis.stimuli.placement import Rig
from tuner.synthesis.stimuli.report import write_scores
from tuner.synthesis.stimuli.score import score
from tuner.synthesis.stimuli.summary import said

UNITS = 6
REPEATS = 8


@pytest.fixture(scope="module")
def encoder():
    return random_encoder(n_units=UNITS, layer="_blocks.0", max_grid=4, meta={"simulated": True})


@pytest.fixture(scope="module")
def session(encoder, tmp_path_factory):
    settings = MeiSettings(steps=40, chunk=SETTINGS.chunk)
    result = synthesize([encoder], None, settings)
    source = Source(STUDY, result, encoder, settings.photometry)
    folder = tmp_path_factory.mktemp("stimuli") / "session"
    other = random_encoder(n_units=UNITS, layer="_blocks.1", seed=9)
    encoders = {STUDY: encoder, "other": other}
    write_stimuli(folder, choose([source], Pictures(), Choice(), "full"), encoders, Rig())
    return read_stimuli(folder)


@pytest.fixture(scope="module")
def clean(session, encoder):
    """What units respond that are just as the encoder says."""
    (answers,) = Together([encoder]).respond(as_batch(seen_images(session)))
    return answers.detach().numpy().astype(np.float64)


def _noisy(clean, seed=0, noise=0.3):
    rng = np.random.default_rng(seed)
    return clean + noise * clean.std(0) * rng.standard_normal((REPEATS, *clean.shape))


def _answers(responses):
    return Answers(responses, np.arange(UNITS) + 7)


def _write_csv(path, session, responses, header=None, repeat=True):
    header = header or [str(unit) for unit in range(7, 7 + UNITS)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *(["repeat"] if repeat else []), *header])
        for r, block in enumerate(responses):
            for name, values in zip(session.images, block, strict=True):
                writer.writerow([name, *([r] if repeat else []), *values.tolist()])
    return path


def test_the_direction_of_the_difference_is_said(session, clean):
    """An animal that answers the opposite prefers the natural images, by the same p value."""
    faithful, contrary = (
        score(session, _answers(sign * _noisy(clean)), draws=200).summary[0] for sign in (1, -1)
    )
    assert faithful["p_value"] == contrary["p_value"] < 0.05
    assert (faithful["better"], contrary["better"]) == ("own", "natural")
    assert contrary["difference"] == pytest.approx(-faithful["difference"])
    assert contrary["difference_low"] < contrary["difference_high"] < 0
    assert "own image better for 100% of 6 units" in said(faithful)
    assert ": the own images are better; median gain" in said(faithful)
    assert "own image better for 0% of 6 units" in said(contrary)
    assert ": the natural images are better" in said(contrary)


# a faithful animal


def test_the_loop_closes(session, clean):
    scores = score(session, _answers(_noisy(clean)), draws=200)
    own = [row for row in scores.prediction if row["encoder"] == STUDY]
    assert len(own) == UNITS
    assert all(row["test_correlation_normalized"] > 0.95 for row in own)
    assert all(row["test_correlation_low"] <= row["test_correlation"] for row in own)
    others = [row for row in scores.prediction if row["encoder"] == "other"]
    assert np.median([row["test_correlation"] for row in others]) < 0.7
    (summary,) = scores.summary
    assert summary["own_better_than_natural"] == 1
    assert summary["gain"] > 1.2
    assert summary["gain_low"] <= summary["gain"] <= summary["gain_high"]
    assert summary["p_value"] < 0.05
    assert summary["selectivity"] > 2 * summary["selectivity_chance"]
    assert summary["selectivity"] > summary["selectivity_natural"]
    assert summary["most_driven_is_target"] > 0.6


def test_preference_is_the_paired_difference(session, clean):
    responses = _noisy(clean)
    scores = score(session, _answers(responses), draws=200)
    kinds = np.array([row["kind"] for row in session.rows])
    units = np.array([row["unit"] for row in session.rows])
    for k, row in enumerate(scores.preference):
        unit = 7 + k
        own = np.flatnonzero((kinds == "mei") & (units == unit))
        natural = np.flatnonzero((kinds == "natural_best") & (units == unit))
        each = responses[:, own, k].mean(1) - responses[:, natural, k].mean(1)
        assert row["difference"] == pytest.approx(each.mean())
        assert row["difference_low"] < row["difference"] < row["difference_high"]
        grey = responses[:, kinds == "grey", k].mean()
        expected = (responses[:, own, k].mean() - grey) / (responses[:, natural, k].mean() - grey)
        assert row["gain"] == pytest.approx(expected)
        assert row["predicted_gain"] > 1


def test_selectivity_is_the_softmax_share(session, clean):
    responses = clean[None]
    found = score(session, _answers(responses), draws=0).selectivity[STUDY, "mei"]
    z = (clean - clean.mean(0)) / clean.std(0)
    kinds = [row["kind"] for row in session.rows]
    images = [k for k, kind in enumerate(kinds) if kind == "mei"]
    np.testing.assert_allclose(found.z, z[images], rtol=1e-9)
    share = np.exp(z[images]) / np.exp(z[images]).sum(1, keepdims=True)
    np.testing.assert_allclose(found.share, share.diagonal())


def test_an_animal_that_does_not_care(session, clean):
    rng = np.random.default_rng(3)
    scores = score(session, _answers(rng.standard_normal((REPEATS, *clean.shape))), draws=100)
    (summary,) = scores.summary
    assert abs(summary["correlation"]) < 0.3
    assert not summary["p_value"] < 0.01
    assert summary["selectivity"] < 3 * summary["selectivity_chance"]


def test_noise_of_few_units_is_no_preference(session, clean):
    """Three units, four repeats: nothing to be sure of, and a median's limits would be their least and largest value."""
    rng = np.random.default_rng(5)
    noise = rng.poisson(3.0, (4, len(clean), 3)).astype(float)
    (row,) = score(session, Answers(noise, np.arange(7, 10)), draws=50).summary
    assert row["n_units"] == row["n_difference"] == 3
    assert np.isnan(row["difference_low"] + row["difference_high"] + row["p_value"])
    assert row["better"] == "undecided"
    assert "3 units" in said(row)
    assert "(too few units to tell: 6 at least)" in said(row)


def test_every_median_says_of_how_many_units_it_is(session, clean):
    responses = _noisy(clean)
    kinds = np.array([row["kind"] for row in session.rows])
    units = np.array([row["unit"] for row in session.rows])
    # The first unit has no gain: its best natural image drives it less than grey; the last has no ceiling.
    natural = np.flatnonzero((kinds == "natural_best") & (units == 7))
    responses[:, natural, 0] = responses[:, kinds == "grey", 0].mean() - 5
    rng = np.random.default_rng(6)
    responses[:, :, 5] = 20 * rng.standard_normal(responses.shape[:2])
    scores = score(session, _answers(responses), draws=50)
    (row,) = scores.summary
    assert (row["n_units"], row["n_difference"], row["n_predicted"]) == (UNITS, UNITS, UNITS)
    assert row["n_gain"] == np.isfinite([r["gain"] for r in scores.preference]).sum() == UNITS - 1
    assert f"of {UNITS - 1} units (own over natural" in said(row)
    own = [r for r in scores.prediction if r["encoder"] == STUDY]
    counted = [r for r in own if r["has_ceiling"] and r["explainable_variance"] >= 0.15]
    assert row["n_with_ceiling"] == len(counted) == UNITS - 1
    assert row["noise_ceiling"] == np.median([r["noise_ceiling"] for r in counted])
    normalized = [r["test_correlation_normalized"] for r in counted]
    assert row["correlation_normalized"] == np.median(normalized)


def test_missing_repeats_and_images_are_left_out(session, clean):
    responses = _noisy(clean)
    responses[3:, :, 2] = np.nan
    responses[:, 4] = np.nan
    scores = score(session, _answers(responses), draws=50)
    own = [row for row in scores.prediction if row["encoder"] == STUDY]
    assert all(row["n_images"] == len(session.images) - 1 for row in own)
    assert all(row["test_correlation_normalized"] > 0.9 for row in own)


def test_a_single_presentation_has_no_ceiling_and_no_interval(session, clean):
    scores = score(session, _answers(clean[None]), draws=50)
    assert all(np.isnan(row["noise_ceiling"]) for row in scores.prediction)
    assert all(np.isnan(row["difference_low"]) for row in scores.preference)


def test_recorded_units_that_nobody_predicted(session, clean):
    with pytest.raises(InputError, match="none of the recorded units"):
        score(session, Answers(clean[None], np.arange(UNITS) + 100))


# files


def test_csv_round_trip(session, clean, tmp_path):
    responses = _noisy(clean)
    answers = read_answers(_write_csv(tmp_path / "r.csv", session, responses), session)
    np.testing.assert_allclose(answers.responses, responses)
    assert answers.units.tolist() == list(range(7, 13))
    assert answers.notes == ()


@pytest.mark.parametrize(
    "header",
    [
        [f"unit_{k}" for k in range(7, 13)],
        [f"#{k}" for k in range(7, 13)],
        [f"el {k}/{'abc'[k % 3]}" for k in range(UNITS)],
        [f"Unit {k}" if k > 99 else f"unit {k}" for k in range(7, 13)],
    ],
)
def test_units_are_told_by_index_or_name(session, clean, tmp_path, header):
    path = _write_csv(tmp_path / "r.csv", session, clean[None], header)
    assert read_answers(path, session).units.tolist() == list(range(7, 13))


def test_a_number_that_is_one_units_index_and_anothers_name_is_refused(
    session, clean, tmp_path, monkeypatch
):
    """Units 7 to 12 on electrodes 12 to 7: headed by indices or by electrodes, the columns look the same."""
    names = {unit: str(19 - unit) for unit in range(7, 13)}
    monkeypatch.setattr(type(session), "unit_names", lambda self: names)
    plain = _write_csv(tmp_path / "r.csv", session, clean[None], [str(k) for k in range(7, 13)])
    with pytest.raises(
        InputError,
        match=r"column 7 may be the unit of index 7 \(12\) or .* index 12, .* such as #12",
    ):
        read_answers(plain, session)
    marked = _write_csv(tmp_path / "s.csv", session, clean[None], [f"#{k}" for k in range(7, 13)])
    assert read_answers(marked, session).units.tolist() == list(range(7, 13))
    names.update({unit: str(unit + 100) for unit in range(7, 13)})  # no number is both
    assert read_answers(plain, session).units.tolist() == list(range(7, 13))


def test_without_a_repeat_column_occurrences_count(session, clean, tmp_path):
    responses = _noisy(clean)[:3]
    path = _write_csv(tmp_path / "r.csv", session, responses, repeat=False)
    np.testing.assert_allclose(read_answers(path, session).responses, responses)


def test_gaps_are_missing_and_said(session, clean, tmp_path):
    path = tmp_path / "r.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "time", "7", "8"])
        writer.writerow([session.images[0], "12:00", "1.5", ""])
        writer.writerow([session.images[1], "12:01", "NaN", "2"])
    answers = read_answers(path, session)
    assert answers.responses[0, 0, 0] == 1.5
    assert np.isnan(answers.responses[0, 0, 1])
    assert any("time" in note for note in answers.notes)
    assert any(f"no response to {len(session.images) - 2} images" in n for n in answers.notes)


def _lines(session, *lines):
    return "\n".join(
        ["image,repeat,7,8", *(line.replace("IMG", session.images[0]) for line in lines)]
    )


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["other.png,1,1,1"], r"line 2: 'other\.png' is not one of the stimuli"),
        (["IMG,1,1,x"], r"line 2, column 8: 'x' is no number"),
        (["IMG,1,1,inf"], "line 2, column 8: the response is infinite"),
        (["IMG,1,1,1e300"], "line 2, column 8: 1e300 is no response"),
        (["IMG,1,1,1,1"], "line 2: has more cells than the 4 of the first line"),
        (["IMG,1,1"], "line 2: has fewer cells than the 4 of the first line"),
        (["IMG,1,1,1", "IMG,1,1,1"], r"line 3: .* stands twice under repeat 1"),
        (["IMG,1,,"], "holds no response"),
        ([], "holds no response"),
    ],
)
def test_wrong_csv_is_named(session, tmp_path, lines, message):
    path = tmp_path / "r.csv"
    path.write_text(_lines(session, *lines))
    with pytest.raises(InputError, match=message):
        read_answers(path, session)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("picture,7\n", "has no column 'image'"),
        ("image,a,b\n", "no column is headed by the index or name of a unit"),
        ("image,7,unit_7\n", "two columns are of unit 7"),
        (
            "image,8,9,10,11,12,13\n",
            "column 13 is no unit .* unit 7 .* has no column; if units are counted from 1",
        ),
    ],
)
def test_wrong_headers_are_named(session, tmp_path, text, message):
    path = tmp_path / "r.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_answers(path, session)


def test_a_file_that_is_not_there(session, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_answers(tmp_path / "nowhere.csv", session)


def _write_hdf5(path, session, responses, *, embedded, columns):
    n = len(session.images)
    with h5py.File(path, "w") as file:
        for split, rows in (("train", slice(0, n // 2)), ("test", slice(n // 2, n))):
            names = session.images[rows]
            if embedded:
                pixels = [np.asarray(Image.open(session.path / "images" / name)) for name in names]
                file[f"{split}/images"] = np.stack(pixels)
            else:
                file[f"{split}/image_paths"] = np.array(names, dtype=h5py.string_dtype())
        file["train/responses"] = responses[0, : n // 2].astype(np.float32)
        file["test/responses"] = responses[:, n // 2 :].astype(np.float32)
        file["units/area"] = np.array(["V1"] * responses.shape[2], dtype=h5py.string_dtype())
        for name, values in columns.items():
            file[f"units/{name}"] = values
    return path


@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("by", ["unit", "name"])
def test_generic_recording_round_trip(session, clean, tmp_path, embedded, by):
    responses = _noisy(clean)[:3]
    order = [4, 2, 0, 1, 3, 5]
    columns = {
        "unit": np.array([7 + k for k in order]),
        "name": np.array([f"el {k}/{'abc'[k % 3]}" for k in order], dtype=h5py.string_dtype()),
    }
    path = _write_hdf5(
        tmp_path / "r.h5",
        session,
        responses[:, :, order],
        embedded=embedded,
        columns={by: columns[by]},
    )
    answers = read_answers(path, session)
    back = np.argsort(answers.units)
    n = len(session.images)
    np.testing.assert_allclose(
        answers.responses[:, n // 2 :, back], responses[:, n // 2 :], rtol=1e-5
    )
    np.testing.assert_allclose(
        answers.responses[0, : n // 2, back].T, responses[0, : n // 2], rtol=1e-5
    )
    assert np.isnan(answers.responses[1, : n // 2]).all()


# what is written


def test_tables_and_figures(session, clean, tmp_path):
    answers = _answers(_noisy(clean))
    paths = write_scores(tmp_path / "out", session, answers, score(session, answers, draws=50))
    names = {path.name for path in paths}
    assert {"summary.csv", "prediction.csv", "preference.csv", "selectivity.csv"} <= names
    assert {"predicted_b-l-V1-full.png", "own_b-l-V1-full.svg"} <= names
    assert "selectivity_b-l-V1-full.png" in names
    for path in paths:
        assert path.stat().st_size > 0
    with (tmp_path / "out" / "preference.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == UNITS
    assert all(row[f"response_{kind}"] for row in rows for kind in KINDS if kind != "mei_other")
    with (tmp_path / "out" / "selectivity.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * UNITS**2


def test_figures_of_a_poor_session_are_drawn(session, clean, tmp_path):
    responses = np.full((1, *clean.shape), np.nan)
    responses[0, :3] = clean[:3]
    answers = _answers(responses)
    assert write_scores(tmp_path, session, answers, score(session, answers, draws=10))


@pytest.mark.parametrize("scale", [1.0, 1e-4])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_of_a_figure_is_cut_off(session, clean, scale, theme):
    answers = _answers(scale * _noisy(clean))
    scores = score(session, answers, draws=10)
    for figure in (
        figures.predicted_against_measured(session, answers, scores, STUDY, theme=theme),
        figures.own_against_natural(session, scores, STUDY, theme=theme),
        figures.who_responds(session, scores, STUDY, theme=theme),
    ):
        figure.canvas.draw()
        assert edges_with_ink(figure) == []


def test_predictions_of_the_wrong_size_are_seen(session, clean):
    """Not only that they correlate: both axes are the same, with a line where predictions would be right."""
    answers = _answers(0.3 * _noisy(clean))
    figure = figures.predicted_against_measured(session, answers, score(session, answers), STUDY)
    assert len(figure.axes) == UNITS
    for axes in figure.axes:
        assert axes.get_xlim() == axes.get_ylim()
        line = axes.lines[0]
        assert list(line.get_xdata()) == list(line.get_ydata())
        assert axes.get_xlim()[0] < line.get_xdata()[0] < line.get_xdata()[1] < axes.get_xlim()[1]
