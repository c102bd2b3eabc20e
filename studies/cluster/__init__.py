"""One search on many machines: a coordinator has the database, and workers of a Dask cluster train its rounds.

The coordinator (:mod:`~studies.cluster.coordinator`) begins and concludes rounds in the search's own ledger, and alone
writes. A round travels as bytes (:mod:`~studies.cluster.messages`) to a worker, which opens the experiment for itself
(:mod:`~studies.cluster.worker`) with a feature cache of its own. Which rounds may begin while others run is decided from
the order in which one process would do them (:mod:`~studies.cluster.schedule`). Only :mod:`~studies.cluster.engine` and
:mod:`~studies.cluster.places` know Dask.
"""
