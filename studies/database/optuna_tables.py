"""Optuna's tables as this program reads and writes them, at the revisions named below.

They are described here and not taken from optuna's own modules, which bring its object-relational mapper into every
listing; tests hold that both descriptions are the same.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import sqlalchemy as sa
from optuna.study import StudyDirection
from optuna.trial import TrialState

KNOWN_REVISIONS = ("v3.2.0.a",)
"""Revisions of optuna's schema that these tables describe."""

KNOWN_OPTUNA = ">=5,<6"
"""Versions of optuna that are known to make tables of these revisions."""

_metadata = sa.MetaData()
_LONG = sa.String(512)
_REAL = sa.Float(precision=53)

_CHUNK = 500
"""Identifiers in one ``IN (...)``."""


class TrialValueType(enum.Enum):
    """How a value is stored that may be infinite."""

    FINITE = 1
    INF_POS = 2
    INF_NEG = 3


class TrialIntermediateValueType(enum.Enum):
    """How a report is stored that may be infinite or not a number."""

    FINITE = 1
    INF_POS = 2
    INF_NEG = 3
    NAN = 4


def _table(name: str, key: str, *columns: sa.Column[object]) -> sa.Table:
    return sa.Table(name, _metadata, sa.Column(key, sa.Integer, primary_key=True), *columns)


def _attributes(name: str, key: str, owner: str) -> sa.Table:
    return _table(
        name,
        key,
        sa.Column(owner, sa.Integer),
        sa.Column("key", _LONG),
        sa.Column("value_json", sa.Text),
    )


studies = _table("studies", "study_id", sa.Column("study_name", _LONG, nullable=False))

directions = _table(
    "study_directions",
    "study_direction_id",
    sa.Column("direction", sa.Enum(StudyDirection), nullable=False),
    sa.Column("study_id", sa.Integer, nullable=False),
    sa.Column("objective", sa.Integer, nullable=False),
)

study_user_attrs = _attributes("study_user_attributes", "study_user_attribute_id", "study_id")
study_system_attrs = _attributes("study_system_attributes", "study_system_attribute_id", "study_id")

trials = _table(
    "trials",
    "trial_id",
    sa.Column("number", sa.Integer),
    sa.Column("study_id", sa.Integer),
    sa.Column("state", sa.Enum(TrialState), nullable=False),
    sa.Column("datetime_start", sa.DateTime),
    sa.Column("datetime_complete", sa.DateTime),
)

params = _table(
    "trial_params",
    "param_id",
    sa.Column("trial_id", sa.Integer),
    sa.Column("param_name", _LONG),
    sa.Column("param_value", _REAL),
    sa.Column("distribution_json", sa.Text),
)

values = _table(
    "trial_values",
    "trial_value_id",
    sa.Column("trial_id", sa.Integer, nullable=False),
    sa.Column("objective", sa.Integer, nullable=False),
    sa.Column("value", _REAL),
    sa.Column("value_type", sa.Enum(TrialValueType), nullable=False),
)

reports = _table(
    "trial_intermediate_values",
    "trial_intermediate_value_id",
    sa.Column("trial_id", sa.Integer, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("intermediate_value", _REAL),
    sa.Column("intermediate_value_type", sa.Enum(TrialIntermediateValueType), nullable=False),
)

user_attrs = _attributes("trial_user_attributes", "trial_user_attribute_id", "trial_id")
system_attrs = _attributes("trial_system_attributes", "trial_system_attribute_id", "trial_id")

heartbeats = _table(
    "trial_heartbeats",
    "trial_heartbeat_id",
    sa.Column("trial_id", sa.Integer, nullable=False),
    sa.Column("heartbeat", sa.DateTime, nullable=False),
)

OF_TRIALS = (params, values, reports, user_attrs, system_attrs, heartbeats)
"""Tables with rows of a trial."""

OF_STUDIES = (directions, study_user_attrs, study_system_attrs)
"""Tables with rows of a study."""

ALL = (studies, trials, *OF_TRIALS, *OF_STUDIES)

revision = sa.Table("alembic_version", _metadata, sa.Column("version_num", sa.String(32)))
"""Which revision optuna's schema is of."""

version = sa.Table("version_info", _metadata, sa.Column("library_version", sa.String(256)))
"""Which optuna made the tables."""


def stored_value(value: float) -> tuple[float | None, TrialValueType]:
    """A trial's value as it is stored."""
    if math.isinf(value):
        return None, TrialValueType.INF_POS if value > 0 else TrialValueType.INF_NEG
    return value, TrialValueType.FINITE


def stored_report(value: float) -> tuple[float | None, TrialIntermediateValueType]:
    """A report as it is stored."""
    kind = TrialIntermediateValueType
    if math.isnan(value):
        return None, kind.NAN
    if math.isinf(value):
        return None, kind.INF_POS if value > 0 else kind.INF_NEG
    return value, kind.FINITE


_NOT_FINITE = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}


def read_value(value: float | None, kind: enum.Enum) -> float:
    """A stored value or report as a number."""
    if kind.name in _NOT_FINITE:
        return _NOT_FINITE[kind.name]
    assert value is not None
    return value


def now() -> datetime:
    """UTC without a zone, as optuna stores it since version 5."""
    return datetime.now(UTC).replace(tzinfo=None)


def chunks(identifiers: Sequence[int]) -> Iterator[Sequence[int]]:
    """As many at a time as go into one ``IN (...)``."""
    for begin in range(0, len(identifiers), _CHUNK):
        yield identifiers[begin : begin + _CHUNK]
