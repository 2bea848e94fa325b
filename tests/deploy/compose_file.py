"""deploy/compose.yaml as compose reads it: variables replaced, profiles chosen."""
import re

from ruamel.yaml import YAML

from program import ROOT, must

DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
SECRET = {"BROADGATE_SECRET": "s" * 64}


def interpolated(text, variables):
    """${NAME}, ${NAME:-default} and ${NAME:?why}, as compose replaces them."""

    def one(found):
        name, kind, more = found.groups()
        value = variables.get(name, "")
        must(value or kind != ":?", f"{name}: {more}")
        return value or (more if kind == ":-" else "")

    return re.sub(r"\$\{(\w+)(:-|:\?)?([^}]*)\}", one, text)


def settings_of(file):
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


class Compose:
    """The services that are started with these profiles and variables."""

    def __init__(self, text, profiles=(), variables=()):
        def fill(value):
            if isinstance(value, str):
                return interpolated(value, {**SECRET, **dict(variables)})
            if isinstance(value, dict):
                return {key: fill(inner) for key, inner in value.items()}
            return [fill(inner) for inner in value] if isinstance(value, list) else value

        self.all = fill(YAML(typ="safe").load(text))
        self.services = {
            name: service
            for name, service in self.all["services"].items()
            if not service.get("profiles") or set(service["profiles"]) & set(profiles)
        }

    def own(self):
        return {name: service for name, service in self.services.items() if service["image"] == "broadgate"}

    def file(self, service, target):
        """The text of a configuration that is mounted there."""
        sources = [one["source"] for one in service.get("configs", ()) if one["target"] == target]
        must(len(sources) == 1, f"nothing is mounted at {target}")
        return (DEPLOY / self.all["configs"][sources[0]]["file"]).read_text()
