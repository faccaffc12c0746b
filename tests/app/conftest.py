import pytest
from streamlit.testing.v1 import AppTest

from tests.conftest import ROOT


@pytest.fixture
def page(monkeypatch):
    monkeypatch.setenv("KINDRED_WORKSPACE", "fashion")
    return AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60)
