"""``tuner.toml``: what is assumed, what is accepted, and the line that answers everything else."""

from __future__ import annotations

import tomllib
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.config.experiment import Experiment, load_experiment, parse_experiment
from studies.config.ranges import (
    CLOSED_FORM,
    SPACES,
    FloatRange,
    IntRange,
    default_space,
    grid,
    points,
    trials_needed,
    varies,
)
from studies.config.reference import TABLES, reference_rows, render_reference
from studies.config.templates import read_template, template_names
from studies.config.values import parse_size, redact
from tuner.errors import InputError

BACKBONE = '[[backbone]]\nname = "vgg19"\n'


def load(folder: Path, text: str, backbone: str = BACKBONE) -> Experiment:
    file = folder / "tuner.toml"
    file.write_text(text + "\n" + backbone, encoding="utf-8")
    return load_experiment(file)


def test_what_is_not_written_has_the_documented_default(tmp_path):
    experiment = load(tmp_path, "")

    data = experiment.data
    assert (data.format, data.region, data.image_size, data.fit) == ("hdf5", "area", 224, "error")
    assert (data.path, data.images) == (tmp_path / "recording.h5", tmp_path / "images")
    assert (data.pixels_per_degree, data.validation_fraction) == (0.0, 0.1)
    assert (data.min_reliability, data.seed, data.monkey, data.stimuli) == (0.0, 0, None, None)
    (backbone,) = experiment.backbone
    assert (backbone.name, backbone.alias, backbone.layers) == ("vgg19", "vgg19", "all")
    assert (backbone.weights, backbone.max_grid) == ("imagenet", 28)
    training = experiment.training
    assert (training.steps, training.batch_size, training.report_every) == (900, 50, 45)
    assert (training.loss, training.device, training.memory) == ("mse", "auto", "auto")
    search = experiment.search
    assert (search.sampler, search.pruner, search.parallel_trials) == ("tpe", "median", 8)
    assert (search.keep, search.warm_start, search.seed) == (3, "finished", 0)
    assert search.rungs == "auto"
    assert search.space == {readout: default_space(readout) for readout in SPACES}
    storage = experiment.storage
    assert storage.url.get_secret_value() == f"sqlite:///{tmp_path / 'tuner.db'}"
    assert (storage.artifacts, storage.cache) == (tmp_path / "artifacts", tmp_path / "cache")
    assert storage.cache_limit == 100 * 10**9
    assert (experiment.folder, experiment.file) == (tmp_path, tmp_path / "tuner.toml")


def test_default_ranges_belong_to_the_readouts():
    from tuner.readouts import READOUTS, TRAINED

    assert SPACES.keys() == READOUTS.keys()
    assert [name for name in READOUTS if name not in TRAINED] == [CLOSED_FORM]
    for name, readout in TRAINED.items():
        assert set(SPACES[name]) == {*readout.penalties, "learning_rate", "drop"}


def test_paths_start_at_the_config_file(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", "/home/ann")
    (tmp_path / "sub").mkdir()
    experiment = load(
        tmp_path / "sub",
        dedent("""
            [data]
            path = "../there.h5"
            images = "/data/images"
            [storage]
            url = "sqlite:///../x.db"
            cache = "~/cache"
        """),
        BACKBONE + 'weights = "w/ecoset.pth"\n',
    )
    assert experiment.data.path == tmp_path / "sub" / ".." / "there.h5"
    assert experiment.data.images == Path("/data/images")
    assert experiment.storage.url.get_secret_value() == f"sqlite:///{tmp_path}/sub/../x.db"
    assert experiment.storage.cache == Path("/home/ann/cache")
    assert experiment.backbone[0].weights == str(tmp_path / "sub" / "w" / "ecoset.pth")


def test_only_the_readouts_that_are_named_are_tried(tmp_path):
    space = load(tmp_path, "[search.space.factorized]\nsparsity = 0.5").search.space
    assert list(space) == ["factorized"]
    assert space["factorized"]["sparsity"] == 0.5
    assert space["factorized"]["drop"] == IntRange(low=20, high=400, log=True)


def test_a_grid_is_numbers_lists_and_ranges(tmp_path):
    def grid_of(text: str) -> list[dict[str, float]]:
        space = load(tmp_path, f"[search.space.smooth]\n{text}").search.space["smooth"]
        assert trials_needed("smooth", space, 1) == trials_needed("smooth", space, 50)
        assert trials_needed("smooth", space, 50) == len(grid(space))
        return grid(space)

    assert grid_of("width = [2, 0.5]\npenalty = 1") == [
        {"width": 0.5, "penalty": 1.0},
        {"width": 2.0, "penalty": 1.0},
    ]
    found = grid_of("width = { high = 2 }\npenalty = { low = 0.1, high = 1 }")
    assert list(dict.fromkeys(point["width"] for point in found)) == [0, 0.5, 1, 1.5, 2]
    assert list(dict.fromkeys(point["penalty"] for point in found)) == [0.1, 10**-0.5, 1]
    assert grid_of("width = 1\npenalty = [3]") == [{"width": 1.0, "penalty": 3.0}]


def test_the_shipped_grid_is_the_closed_forms_own():
    from tuner.closed_form.smooth import PENALTIES, WIDTHS

    space = default_space(CLOSED_FORM)
    assert points(space["width"]) == WIDTHS
    np.testing.assert_allclose(points(space["penalty"]), PENALTIES, rtol=1e-14)


def test_keys_of_one_format_are_its_readers_options(tmp_path):
    from tuner.recordings import FORMATS

    texts = {
        "nwb": "window_ms = [40, 140.5]",
        "tvsd": "monkey = 'F'\nstimuli = 'things_imgs.mat'",
        "tvsd-arrays": "monkey = 'N'\nstimuli = 'things_imgs.mat'",
        "simulated": "n_train = 60\nn_test = 5\nn_repeats = 2\nunits_per_region = 3\nsnr = 2\n"
        "difficulty = 'easy'",
        "hdf5": "",
    }
    for name, text in texts.items():
        options = load(tmp_path, f"[data]\nformat = '{name}'\n{text}").data.options()
        assert len(options) == text.count("=")
        assert set(options) <= set(FORMATS[name].options)
    assert load(tmp_path, "[data]\nformat = 'nwb'\n" + texts["nwb"]).data.options() == {
        "window_ms": (40.0, 140.5)
    }


def test_a_number_fixes_and_a_range_may_be_partial(tmp_path):
    full = load(
        tmp_path,
        dedent("""
            [search.space.full]
            sparsity = 0
            smoothness = { high = 1 }
            group_sparsity = { low = 0, high = 0.5, log = false }
            learning_rate = 1
            drop = { low = 1, high = 2 }
        """),
    ).search.space["full"]
    assert full["sparsity"] == 0.0
    assert isinstance(full["sparsity"], float)
    assert full["smoothness"] == FloatRange(low=1e-7, high=1.0, log=True)
    assert full["group_sparsity"] == FloatRange(low=0.0, high=0.5, log=False)
    assert isinstance(full["learning_rate"], float)
    assert full["drop"] == IntRange(low=1, high=2, log=True)
    assert varies(full)
    assert not varies({"drop": 3, "learning_rate": 0.1})


def test_the_address_can_name_environment_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", "p@ss/w:rd")
    monkeypatch.setenv("DB", "postgresql+psycopg://ann:secret@host:5433/db")
    whole = load(tmp_path, '[storage]\nurl = "$DB"').storage
    assert whole.url.get_secret_value() == "postgresql+psycopg://ann:secret@host:5433/db"
    part = load(
        tmp_path, '[storage]\nurl = "postgresql+psycopg://ann:${DB_PASSWORD}@host/db"'
    ).storage
    assert part.url.get_secret_value() == "postgresql+psycopg://ann:p%40ss%2Fw%3Ard@host/db"
    assert part.redacted_url == "postgresql+psycopg://ann:***@host/db"


def test_no_way_of_showing_an_experiment_shows_the_password(tmp_path):
    experiment = load(
        tmp_path, '[storage]\nurl = "postgresql+psycopg://ann:hunter2@host/db?password=hunter2"'
    )
    shown = [
        repr(experiment),
        str(experiment),
        repr(experiment.storage),
        experiment.storage.redacted_url,
        experiment.model_dump_json(),
        str(experiment.model_dump(mode="json")),
    ]
    assert not [text for text in shown if "hunter2" in text]


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("postgresql+psycopg://ann:s3cret@host/db", "s3cret"),
        ("failed: postgresql+psycopg://ann:s3:cret@host/db (background)", "s3:cret"),
        ("postgresql+psycopg://host/db?user=ann&password=s3cret&sslmode=on", "s3cret"),
        ("postgresql+psycopg://:s3cret@host/db and sqlite:///tuner.db", "s3cret"),
    ],
)
def test_passwords_in_addresses_are_hidden(text, hidden):
    assert hidden not in redact(text)
    assert "***" in redact(text)


def test_text_without_passwords_is_left_alone():
    for text in ("sqlite:////home/ann/tuner.db", "postgresql+psycopg://host/db", "a: b@c", ""):
        assert redact(text) == text


def test_an_experiment_cannot_be_changed(tmp_path):
    experiment = load(tmp_path, "")
    with pytest.raises(ValueError, match="frozen"):
        experiment.training.steps = 5


def test_numbers_survive_a_round_trip(tmp_path):
    experiment = load(tmp_path, "[search.space.full]\ndrop = 7")
    written = experiment.model_dump(mode="json", include={"training", "search"})
    again = parse_experiment({**written, "backbone": [{"name": "vgg19"}]}, experiment.file)
    assert (again.training, again.search) == (experiment.training, experiment.search)


def test_a_byte_order_mark_is_no_error(tmp_path):
    file = tmp_path / "tuner.toml"
    file.write_bytes(b"\xef\xbb\xbf" + BACKBONE.encode())
    assert load_experiment(file).backbone[0].name == "vgg19"


WRONG = {
    # text above the backbone, what the line must name
    "unknown table": ("[trainin]", "trainin: unknown key", "did you mean training?"),
    "unknown key": ("[training]\nstepz = 3", "training.stepz", "valid: steps, batch_size"),
    "unknown key of data": ("[data]\nregions = 'area'", "data.regions", "did you mean region?"),
    "table that is a value": ("training = 3", "training: must be a table"),
    "text for an integer": ("[training]\nsteps = '900'", "training.steps: must be an integer"),
    "real for an integer": ("[training]\nsteps = 9.5", "must be an integer, not 9.5"),
    "yes/no for an integer": ("[training]\nsteps = true", "training.steps: must be an integer"),
    "no steps": ("[training]\nsteps = 0", "training.steps: must be at least 1, not 0"),
    "integer beyond reason": (f"[training]\nsteps = {10**40}", "training.steps: must be at most"),
    "empty batch": ("[training]\nbatch_size = 0", "training.batch_size: must be at least 1"),
    "report beyond the last step": (
        "[training]\nsteps = 10\nreport_every = 11",
        "training.report_every: must be at most training.steps (10)",
    ),
    "default report beyond the last step": (
        "[training]\nsteps = 10",
        "training.report_every: must be at most training.steps (10), not 45",
    ),
    "unknown loss": ("[training]\nloss = 'mae'", 'training.loss: must be "mse" or "poisson"'),
    "unknown device": ("[training]\ndevice = 'gpu'", "training.device", '"cuda:0"'),
    "memory without unit": ("[training]\nmemory = 4", "training.memory", '"4GB"', '"auto"'),
    "memory of nothing": ("[training]\nmemory = '0GB'", "training.memory: must be a size above"),
    "unknown format": ("[data]\nformat = 'hdf'", "data.format", "did you mean hdf5?"),
    "small image": ("[data]\nimage_size = 8", "data.image_size: must be at least 16, not 8"),
    "nothing to validate on": ("[data]\nvalidation_fraction = 0", "must be above 0, not 0"),
    "nothing to fit on": ("[data]\nvalidation_fraction = 1.0", "must be below 1, not 1.0"),
    "not a number": ("[data]\nvalidation_fraction = nan", "must be a finite number, not nan"),
    "infinite": ("[data]\npixels_per_degree = inf", "data.pixels_per_degree: must be a finite"),
    "negative seed": ("[data]\nseed = -1", "data.seed: must be at least 0"),
    "unknown fit": ("[data]\nfit = 'stretch'", 'data.fit: must be "error", "crop" or "pad"'),
    "empty path": ("[data]\npath = ''", "data.path: must be a path"),
    "number for a path": ("[data]\npath = 3", "data.path: must be a path in quotes, not 3"),
    "date for a path": ("[data]\nimages = 2024-01-01", "data.images: must be a path in quotes"),
    "path with a zero byte": ('[data]\npath = "a\\u0000b"', "data.path: must be a path"),
    "empty region": ("[data]\nregion = ''", "data.region: must be a name"),
    "monkey of another format": ("[data]\nmonkey = 'N'", "data.monkey", 'format = "tvsd"'),
    "tvsd without monkey": ("[data]\nformat = 'tvsd'", "data.monkey: required with", '"N" or "F"'),
    "unknown monkey": (
        "[data]\nformat = 'tvsd'\nmonkey = 'X'",
        'data.monkey: must be "N" or "F", not "X"',
    ),
    "simulated key": ("[data]\nn_train = 500", "data.n_train", 'format = "simulated"'),
    "difficulty of another format": ("[data]\ndifficulty = 'hard'", "data.difficulty: only with"),
    "one ratio for hard units": (
        "[data]\nformat = 'simulated'\ndifficulty = 'hard'\nsnr = 2",
        'data.snr: not with data.difficulty = "hard"',
    ),
    "window of another format": ("[data]\nwindow_ms = [50, 150]", "data.window_ms: only with"),
    "window that ends first": (
        "[data]\nformat = 'nwb'\nwindow_ms = [150, 50]",
        "data.window_ms: must be two increasing times in ms",
    ),
    "window of one time": (
        "[data]\nformat = 'nwb'\nwindow_ms = [nan]",
        "data.window_ms: must be two increasing times in ms",
    ),
    "unknown sampler": ("[search]\nsampler = 'TPE'", 'search.sampler: must be "tpe" or "random"'),
    "unknown pruner": ("[search]\npruner = 'hyperband'", "search.pruner", '"none"'),
    "empty round": ("[search]\nparallel_trials = 0", "search.parallel_trials: must be at least 1"),
    "nothing kept": ("[search]\nkeep = 0", "search.keep: must be at least 1"),
    "number for yes/no": (
        "[search]\nwarm_start = 1",
        'search.warm_start: must be "finished", "neighbour" or false, not 1',
    ),
    "seed beyond 32 bits": ("[search]\nseed = 4294967296", "search.seed: must be at most"),
    "a job of no time": ("[cluster]\nwalltime = '00:00:00'", "cluster.walltime: must be longer"),
    "unknown readout": ("[search.space.ful]", "search.space.ful", "valid: full, factorized"),
    "space that is a value": ("[search]\nspace = 'all'", "search.space: must be a table"),
    "readout that is a value": ("[search.space]\nfull = 1", "search.space.full: must be a table"),
    "unknown hyperparameter": (
        "[search.space.full]\nridge = 1",
        "search.space.full.ridge: unknown hyperparameter",
        "group_sparsity",
    ),
    "list of a readout that is searched": (
        "[search.space.full]\nsparsity = [1, 2]",
        "search.space.full.sparsity: must be a number",
        "got [1, 2]",
    ),
    "empty grid": ("[search.space.smooth]\nwidth = []", "smooth.width: needs at least one value"),
    "grid point twice": (
        "[search.space.smooth]\nwidth = [1, 1.0]",
        "search.space.smooth.width[1]: 1 is listed twice",
    ),
    "grid point that is text": (
        "[search.space.smooth]\npenalty = [1, 'a']",
        "search.space.smooth.penalty[1]: must be a number of at least 1e-09",
    ),
    "penalty of nothing": (
        "[search.space.smooth]\npenalty = 0",
        "search.space.smooth.penalty: must be a number of at least 1e-09 and at most 1e+09",
        "a list of them, or a range",
    ),
    "width beyond every map": ("[search.space.smooth]\nwidth = 1e6", "at most 1000"),
    "grid from 0 on a log scale": (
        "[search.space.smooth]\nwidth = { log = true }",
        "search.space.smooth.width.low: a log range cannot start at 0",
    ),
    "grid of thousands": (
        f"[search.space.smooth]\nwidth = {list(range(101))}",
        "search.space.smooth.width: must list at most 100 values, not 101",
    ),
    "hyperparameter of a search": (
        "[search.space.smooth]\nlearning_rate = 1",
        "search.space.smooth.learning_rate: unknown hyperparameter; valid: width, penalty",
    ),
    "log range from 0": (
        "[search.space.full]\nsparsity = { low = 0, high = 1 }",
        "search.space.full.sparsity.low: a log range cannot start at 0",
        "log = false",
    ),
    "range upside down": (
        "[search.space.full]\nsparsity = { low = 2, high = 1 }",
        "search.space.full.sparsity: low 2 must be below high 1",
    ),
    "range of one value": (
        "[search.space.full]\nsparsity = { low = 1, high = 1 }",
        "to fix the value write the number alone",
    ),
    "range upside down by default": (
        "[search.space.full]\nsparsity = { low = 2 }",
        "low 2 must be below high 0.1 (what is not written has its default)",
    ),
    "unknown key of a range": (
        "[search.space.full]\nsparsity = { low = 1, hi = 2 }",
        "search.space.full.sparsity.hi: unknown key; valid: low, high, log",
    ),
    "log that is a number": (
        "[search.space.full]\nsparsity = { low = 1, high = 2, log = 1 }",
        "search.space.full.sparsity.log: must be true or false",
    ),
    "negative penalty": (
        "[search.space.full]\nsparsity = -1",
        "search.space.full.sparsity: must be a number of at least 0",
    ),
    "learning rate of 0": (
        "[search.space.full]\nlearning_rate = 0.0",
        "search.space.full.learning_rate: must be a number above 0",
    ),
    "learning rate beyond reason": (
        "[search.space.full]\nlearning_rate = 1e30",
        "search.space.full.learning_rate: must be a number above 0 and at most 9.0072e+15, or a range",
    ),
    "infinite end": (
        "[search.space.full]\nlearning_rate = { low = 1, high = inf }",
        "search.space.full.learning_rate.high: must be a number above 0; got inf",
    ),
    "text for a hyperparameter": (
        "[search.space.full]\nlearning_rate = 'fast'",
        "search.space.full.learning_rate: must be a number above 0, or a range",
    ),
    "list for a hyperparameter": (
        "[search.space.full]\nlearning_rate = [1, 2]",
        "search.space.full.learning_rate: must be a number above 0, or a range",
    ),
    "drop that is no integer": (
        "[search.space.full]\ndrop = { low = 1.5, high = 3 }",
        "search.space.full.drop.low: must be an integer of at least 1; got 1.5",
    ),
    "drop beyond reason": (
        f"[search.space.factorized]\ndrop = {10**400}",
        "search.space.factorized.drop: must be an integer of at least 1",
    ),
    "database of another kind": ("[storage]\nurl = 'mysql://h/db'", "storage.url", "sqlite:///"),
    "database in memory": ("[storage]\nurl = 'sqlite://'", "storage.url: must name a file"),
    "other driver": ("[storage]\nurl = 'postgresql://h/d'", "storage.url", "postgresql+psycopg:"),
    "port that is no number": (
        "[storage]\nurl = 'postgresql+psycopg://h:x/d'",
        "storage.url: is not an address",
    ),
    "variable that is not set": (
        "[storage]\nurl = '${NO_SUCH_VARIABLE}'",
        "storage.url: names the environment variable NO_SUCH_VARIABLE, which is not set",
    ),
    "number for an address": ("[storage]\nurl = 5", "storage.url: must be text"),
    "limit without unit": ("[storage]\ncache_limit = '100'", "storage.cache_limit", '"4GB"'),
    "one folder for two things": (
        "[storage]\ncache = 'artifacts/'",
        "storage.cache: must be another folder than storage.artifacts",
    ),
    "two things wrong": ("[training]\nsteps = 0\nloss = 3", "(and 1 more key is wrong)"),
    "not TOML": ("[training\nsteps = 1", "not valid TOML", "line 1"),
    "written twice": ("[data]\nseed = 1\nseed = 2", "not valid TOML", "line 3"),
}
WRONG_BACKBONES = {
    "no backbone": ("", "backbone: missing; write at least one [[backbone]] table"),
    "no backbones": ("backbone = []", "backbone: needs at least one [[backbone]] table"),
    "one table": ("[backbone]\nname = 'vgg19'", "backbone: must be written as [[backbone]] tables"),
    "a name alone": ("backbone = ['vgg19']", "backbone[0]: must be a table"),
    "no name": ("[[backbone]]\nlayers = 'all'", "backbone[0].name: missing"),
    "number for a name": ("[[backbone]]\nname = 19", "backbone[0].name: must be text in quotes"),
    "same alias": (
        "[[backbone]]\nname = 'vgg16'\n[[backbone]]\nname = 'vgg19'\nalias = 'vgg16'",
        'backbone[1].alias: "vgg16" is the alias of backbone[0] too',
    ),
    "empty alias": ("[[backbone]]\nname = 'a'\nalias = ''", "backbone[0].alias: must be a name"),
    "no layers": ("[[backbone]]\nname = 'a'\nlayers = []", "backbone[0].layers: needs at least"),
    "layer twice": (
        "[[backbone]]\nname = 'a'\nlayers = ['x', 'y', 'x']",
        'backbone[0].layers[2]: "x" is listed twice',
    ),
    "one layer without a list": (
        "[[backbone]]\nname = 'a'\nlayers = 'features.0'",
        'backbone[0].layers: must be "all" or a list',
    ),
    "number for a layer": (
        "[[backbone]]\nname = 'a'\nlayers = [3]",
        "backbone[0].layers[0]: must be a module path in quotes",
    ),
    "misspelt weights": (
        "[[backbone]]\nname = 'a'\nweights = 'imagnet'",
        'backbone[0].weights: must be "imagenet", "random" or the path',
    ),
    "negative grid": (
        "[[backbone]]\nname = 'a'\nmax_grid = -1",
        "backbone[0].max_grid: must be at least 0",
    ),
}


@pytest.mark.parametrize(
    ("text", "backbone", "mentions"),
    [pytest.param(text, BACKBONE, rest, id=name) for name, (text, *rest) in WRONG.items()]
    + [pytest.param("", text, rest, id=name) for name, (text, *rest) in WRONG_BACKBONES.items()],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path, text, backbone, mentions):
    with pytest.raises(InputError) as caught:
        load(tmp_path, text, backbone)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'tuner.toml'}: ")
    assert "\n" not in message
    for mention in mentions:
        assert mention in message


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:hunter2@host/db",
        "postgresql+psycopg://ann:hunter2@host:port/db",
        "mysql://ann:hunter2@host/db",
        "hunter2",
    ],
)
def test_an_address_that_is_wrong_is_not_repeated(tmp_path, url):
    with pytest.raises(InputError) as caught:
        load(tmp_path, f"[storage]\nurl = '{url}'")
    chained = [caught.value, caught.value.__cause__]
    assert "hunter2" not in " ".join(map(str, chained))
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("make", "mention"),
    [
        (lambda file: None, "not found; write one with 'tuner init DIR'"),
        (lambda file: file.mkdir(), "is a folder; did you mean"),
        (lambda file: file.write_bytes(b"a = '\xff'"), "not UTF-8 (byte 5)"),
        (lambda file: file.write_text("a = " + "[" * 100_000), "not valid TOML"),
        (lambda file: file.symlink_to(file), "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, make, mention):
    file = tmp_path / "tuner.toml"
    make(file)
    with pytest.raises(InputError, match=r"tuner\.toml: ") as caught:
        load_experiment(file)
    assert mention in str(caught.value)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
KEYS = sorted({row.key for row in reference_rows()} | {"space", "full", "low", "high", "log"})


@given(
    table=st.sampled_from(["data", "backbone", "training", "search", "storage"]),
    value=st.dictionaries(st.sampled_from(KEYS), json_like, max_size=3) | json_like,
)
def test_nothing_that_TOML_can_say_ends_in_anything_but_an_experiment_or_a_line(table, value):
    document = {"backbone": [{"name": "vgg19"}], table: value}
    for written in (document, {**document, "backbone": [value]}):
        message = "tuner.toml: "
        try:
            parse_experiment(written)
        except InputError as error:
            message = str(error)
        assert message.startswith("tuner.toml: ")


@pytest.mark.parametrize(
    ("text", "size"),
    [("1B", 1), ("4GB", 4 * 10**9), (" 1.5 GiB ", 3 * 2**29), ("10tb", 10**13), ("2KiB", 2048)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "4", "GB", "-4GB", "0.1B", "4 G B", "1e3GB", "4GBs", 4, None])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="must be a size above zero"):
        parse_size(text)


@pytest.mark.parametrize("name", template_names())
def test_templates_are_valid(name, tmp_path):
    experiment = load(tmp_path, read_template(name), "")
    assert list(experiment.search.space) == ["full", "factorized", "smooth"]
    assert experiment.data.format == {"demo": "simulated"}.get(name, name)


def test_an_unknown_template_is_answered_with_those_there_are():
    with pytest.raises(InputError, match="unknown template 'x'; valid: demo, hdf5, tvsd"):
        read_template("x")


def test_every_key_is_explained():
    rows = reference_rows()
    assert all(row.description and row.kind for row in rows)
    in_models = {(table, key) for table, model in TABLES.items() for key in model.model_fields}
    assert {(row.table, row.key) for row in rows} >= in_models - {("[search]", "space")}
    assert {row.table for row in rows} == {*TABLES, *(f"[search.space.{r}]" for r in SPACES)}


def test_the_reference_shows_the_defaults_that_hold(tmp_path):
    """Written out as a config file, the reference says the same as an empty one."""
    lines: dict[str, list[str]] = {}
    for row in reference_rows():
        if row.default:
            lines.setdefault(row.table, []).append(f"{row.key} = {row.default}")
    text = "\n".join("\n".join([table, *keys]) for table, keys in lines.items())
    text = text.replace("[[backbone]]", '[[backbone]]\nname = "vgg19"')
    assert "weight of sum \\|w\\|" in render_reference()
    written = parse_experiment(tomllib.loads(text), tmp_path / "tuner.toml")
    assert written.model_dump() == load(tmp_path, "").model_dump()


def test_several_values_for_one_are_answered_with_what_to_do() -> None:
    document = {"data": {"region": ["area", "array"]}, "backbone": [{"name": "vgg19"}]}
    with pytest.raises(
        InputError, match=r"data\.region: must be text in quotes, one unit column .* joins them"
    ):
        parse_experiment(document)
