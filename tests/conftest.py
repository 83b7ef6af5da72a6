import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def home(tmp_path_factory: pytest.TempPathFactory):
    """Exports made by tests, those of child processes too, go where nobody else keeps theirs."""
    folder: Path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("HYBRID_")]:
            patch.delenv(name)
        patch.setenv("HYBRID_HOME", str(folder))
        yield folder
