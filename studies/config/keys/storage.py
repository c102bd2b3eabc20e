"""The table ``[storage]``: where results and features are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from studies.config.keys.table import Table
from studies.config.ranges import problem
from studies.config.values import ConfigPath, Size, StorageUrl, redact


class StorageConfig(Table):
    """``[storage]``: where results and features are kept."""

    url: StorageUrl = Field(
        default="sqlite:///tuner.db",  # type: ignore[assignment]  # checked like what is written
        description="the database: sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/NAME; "
        "$NAME and ${NAME} are replaced by environment variables",
        json_schema_extra={"words": "address"},
    )
    artifacts: ConfigPath = Field(
        Path("artifacts/"), description="folder of kept weights, curves and images"
    )
    cache: ConfigPath = Field(
        Path("cache/"), description="folder of extracted features; may be deleted at any time"
    )
    cache_limit: Size = Field(
        "100GB",  # type: ignore[assignment]  # checked like what is written
        description="disk that the cache may take",
        json_schema_extra={"words": 'size, such as "100GB"'},
    )

    @property
    def redacted_url(self) -> str:
        """The address without its password, for people to read."""
        return redact(self.url.get_secret_value())

    @model_validator(mode="after")
    def _folders_differ(self) -> Self:
        if self.cache == self.artifacts:
            raise problem("cache", "must be another folder than storage.artifacts")
        return self
