"""What Dask users import: a cluster object on a group of the running master.

::

    from aemesh.dask import AemeshCluster

    with AemeshCluster("analysisA", n_workers=8) as cluster, cluster.get_client():
        ...
"""

from aemesh.client.cluster import AemeshCluster

__all__ = ["AemeshCluster"]
