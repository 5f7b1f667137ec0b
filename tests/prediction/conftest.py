import pytest
import stand_in


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model's file that stands for `stand_in.red`."""
    stand_in.use(monkeypatch.setattr)
    return stand_in.model_file(tmp_path)
