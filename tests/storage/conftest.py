from __future__ import annotations

import pytest

from tests.storage.lmdb_rig import FolderRig


@pytest.fixture
def make_folder_rig(tmp_path):
    rigs = []

    def make(folder=tmp_path, **settings):
        rigs.append(FolderRig(folder, **settings))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def folder_rig(make_folder_rig):
    return make_folder_rig()
