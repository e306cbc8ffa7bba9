"""Made-up data for the data room."""

import pytest

from medtextdiff.data.sources import folders


@pytest.fixture
def disc_config(tmp_path):
    """A folders source over eight made-up images."""
    return folders.Config.tiny(tmp_path)


@pytest.fixture
def disc_records(disc_config):
    return disc_config.build().records()
