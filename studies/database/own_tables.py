"""Our own tables, beside optuna's in the same database."""

from __future__ import annotations

import sqlalchemy as sa

SCHEMA = 2
"""Version of these tables; what an older one lacks is made up for in :mod:`studies.database.migration`."""

metadata = sa.MetaData()

meta = sa.Table(
    "tuner_meta",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

studies = sa.Table(
    "tuner_studies",
    metadata,
    sa.Column("study_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(512), nullable=False, unique=True),
    sa.Column("backbone", sa.String(512), nullable=False),
    sa.Column("layer", sa.String(512), nullable=False),
    sa.Column("layer_index", sa.Integer, nullable=False),
    sa.Column("region", sa.String(512), nullable=False),
    sa.Column("readout", sa.String(64), nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("plan", sa.Text, nullable=False),
    sa.Column("set_aside", sa.Text, nullable=True),
    sa.Column("token", sa.String(32), nullable=False, server_default=""),
)
"""One row a study: its combination, the fingerprint of all that changes results, how its rounds are run.

``token`` is drawn when a study is made, and never used again.
"""

claims = sa.Table(
    "tuner_claims",
    metadata,
    sa.Column("claim", sa.String(32), primary_key=True),
    sa.Column("cohort", sa.Text, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
)
"""One row a cohort that was ever claimed: how many times, and who did last. Rows are never deleted."""

weights = sa.Table(
    "tuner_weights",
    metadata,
    sa.Column("artifact_id", sa.String(64), primary_key=True),
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    sa.Column("trial_number", sa.Integer, nullable=True),
    sa.Column("bytes", sa.BigInteger, nullable=False),
)
"""One row a kept weights file; ``trial_number`` is empty for the per-unit best."""

pictures = sa.Table(
    "tuner_pictures",
    metadata,
    sa.Column("artifact_id", sa.String(64), primary_key=True),
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    sa.Column("trial_id", sa.Integer, nullable=False),
    sa.Column("trial_number", sa.Integer, nullable=False),
    sa.Column("finished", sa.Integer, nullable=False),
    sa.Column("filename", sa.String(128), nullable=False),
)
"""One row a picture that the dashboard shows with a study's best trial; ``finished`` trials there were when it was made."""
