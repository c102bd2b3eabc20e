"""The tables of ``tuner.toml``, a file each: every key with its kind, its default and what it does."""

from studies.config.keys.backbone import BackboneConfig
from studies.config.keys.cluster import ClusterConfig
from studies.config.keys.data import DataConfig
from studies.config.keys.search import SearchConfig
from studies.config.keys.storage import StorageConfig
from studies.config.keys.table import Table
from studies.config.keys.training import TrainingConfig

__all__ = [
    "BackboneConfig",
    "ClusterConfig",
    "DataConfig",
    "SearchConfig",
    "StorageConfig",
    "Table",
    "TrainingConfig",
]
