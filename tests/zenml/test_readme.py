"""The README's code for ZenML is code that ZenML takes."""

import re
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_docker_settings() -> None:
    text = README.read_text().partition("\n## Use it in ZenML\n")[2].partition("\n## ")[0]
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found
    names: dict[str, object] = {}
    exec(found.group(1), names)
    settings = names["docker_settings"]

    from zenml.config import DockerSettings

    assert isinstance(settings, DockerSettings)
    assert settings.build_config is not None
    assert settings.build_config.dockerignore == ".dockerignore"
    assert settings.build_config.build_options.model_dump()["platform"] == "linux/amd64"
