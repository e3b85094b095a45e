"""What all flavors of this package share."""

from zenml.image_builders import BaseImageBuilderFlavor


class CooperFlavor(BaseImageBuilderFlavor):
    """A flavor whose documentation is not published yet."""

    @property
    def docs_url(self) -> str | None:
        """Where the documentation is; none is published yet."""
        return None

    @property
    def sdk_docs_url(self) -> str | None:
        """Where the documentation of the classes is; none is published yet."""
        return None
