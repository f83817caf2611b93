"""Dask on a group: the engine, and beside it the scripts that run where Dask is.

`engine.py`, `talk.py`, `page.py` and `settings.py` are a part of the master and import
no Dask.  The scripts, `dask_….py`, are copied into the folders of their jobs and import
nothing of aemesh.
"""

from aemesh.engines.dask.engine import ENGINE as ENGINE
