"""Registers the flavors in the active ZenML (`cooper zenml register`)."""

import shutil
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from zenml.client import Client
    from zenml.image_builders import BaseImageBuilderFlavor


class Registered(NamedTuple):
    """What became of one flavor."""

    name: str
    source: str
    # `registered`, `updated` or `unchanged`.
    change: str


class FlavorNameTaken(Exception):
    """Another flavor has the name of one of ours."""


def register_flavors() -> list[Registered]:
    """Registers the flavors of this package, and prints what became of them and what to type next; repeatable.

    A flavor that is there already, from this package, is brought up to date; one whose packages are not installed is
    left out. Fails with `FlavorNameTaken` where a flavor of another source has its name, and with ZenML's own errors
    where the server refuses.
    """
    from zenml.client import Client

    from zenml_cooper import flavors

    client = Client()
    registered = [_register(client, getattr(flavors, name)()) for name in flavors.__all__]
    for flavor in registered:
        print(f"{flavor.name} {flavor.change}")
    for name, reason in flavors.missing().items():
        print(f"{name} is left out: {reason}", file=sys.stderr)
    if not shutil.which("kubectl"):
        print("cooper_kaniko builds where `kubectl` is on the PATH; here it is not", file=sys.stderr)
    print(f"\nNext, with the flavor that needs no Docker:\n{_next_commands(registered[0].name)}", file=sys.stderr)
    return registered


def _next_commands(flavor: str) -> str:
    return (
        f"  zenml image-builder register cooper --flavor={flavor}\n"
        "  zenml stack register cooper -o ORCHESTRATOR -a ARTIFACT_STORE -c CONTAINER_REGISTRY -i cooper --set"
    )


def _register(client: "Client", flavor: "BaseImageBuilderFlavor") -> Registered:
    from zenml.models import FlavorUpdate

    wanted = flavor.to_model(integration="custom", is_custom=True)
    try:
        existing = client.get_flavor_by_name_and_type(name=wanted.name, component_type=wanted.type)
    except KeyError:
        client.zen_store.create_flavor(flavor=wanted)
        return Registered(wanted.name, wanted.source, "registered")
    package = __name__.partition(".")[0]
    if existing.source.partition(".")[0] != package:
        raise FlavorNameTaken(
            f"a flavor `{wanted.name}` of `{existing.source}` is registered; delete it first with "
            f"`zenml image-builder flavor delete {wanted.name}`"
        )
    fields = wanted.model_dump(include=set(FlavorUpdate.model_fields))
    changed = {name: value for name, value in fields.items() if getattr(existing, name, value) != value}
    if not changed:
        return Registered(wanted.name, wanted.source, "unchanged")
    client.zen_store.update_flavor(flavor_id=existing.id, flavor_update=FlavorUpdate(**changed))
    return Registered(wanted.name, wanted.source, "updated")
