"""Tokens of studies and epochs of claims: by what a writer knows that something is still its own.

A study carries a token that is never used twice, in our row and, as a system attribute, with optuna's own; a claim carries
an epoch that grows whenever the cohort is claimed. What is made of them: :mod:`studies.database.fences`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import secrets
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from studies.database import optuna_tables as tables
from studies.database import own_tables
from tuner.errors import EnvironmentFailure

ATTRIBUTE = "tuner:token"
"""System attribute of optuna's study that holds its token: it goes when optuna deletes the study."""


class Fenced(EnvironmentFailure):
    """A write was refused: what it was meant for is no longer the writer's."""


class ClaimLost(Fenced):
    """Somebody else works on the cohort now."""


@dataclass(frozen=True)
class Claim:
    """A claim that is held.

    Attributes
    ----------
    key
        The cohort's, see :func:`claim_key`.
    cohort
        Its name, to be shown.
    epoch
        How many times it had been claimed, this time included.
    """

    key: str
    cohort: str
    epoch: int


def new_token() -> str:
    """Draw a token, which no other study has or will have."""
    return secrets.token_hex(16)


def seal(token: str, fingerprint: str) -> str:
    """Hash of a study's token and fingerprint, as they are stored."""
    return hashlib.blake2b(f"{token}\0{fingerprint}".encode(), digest_size=16).hexdigest()


def claim_key(cohort: str) -> str:
    """Short key of a cohort: its name may be of any length, and holds what no database stores."""
    return hashlib.blake2b(cohort.encode(), digest_size=16).hexdigest()


@functools.cache
def living() -> sa.Select[tuple[object, ...]]:
    """Our rows of the studies that are optuna's too, under the same name and with the same token."""
    s, o, a = own_tables.studies, tables.studies, tables.study_system_attrs
    return (
        sa.select(s)
        .join(o, sa.and_(o.c.study_id == s.c.study_id, o.c.study_name == s.c.name))
        .join(a, sa.and_(a.c.study_id == s.c.study_id, a.c.key == ATTRIBUTE))
        # The token as json.
        .where(a.c.value_json == sa.literal('"').concat(s.c.token).concat('"'))
    )


def mark(connection: Connection, study_id: int, token: str) -> None:
    """Give optuna's study its token."""
    table = tables.study_system_attrs
    connection.execute(table.delete().where(table.c.study_id == study_id, table.c.key == ATTRIBUTE))
    connection.execute(
        table.insert().values(study_id=study_id, key=ATTRIBUTE, value_json=json.dumps(token))
    )


def refuse_taken(connection: Connection, claim: Claim) -> None:
    """Refuse to write under a claim that somebody else has taken since.

    Raises
    ------
    ClaimLost
        Naming who did.
    """
    t = own_tables.claims.c
    row = connection.execute(
        sa.select(t.epoch, t.host, t.pid).where(t.claim == claim.key)
    ).one_or_none()
    if row is None or row.epoch != claim.epoch:
        who = "somebody else" if row is None else f"process {row.pid} on {row.host}"
        raise ClaimLost(f"{claim.cohort}: {who} works on it now; nothing of this round was written")
