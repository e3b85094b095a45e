"""Build contexts in the artifact store: one archive for each content, uploaded once."""

from uuid import uuid4

from zenml.client import Client
from zenml.io import fileio
from zenml.logger import get_logger
from zenml.utils.archivable import ArchiveType

from zenml_cooper._text import size
from zenml_cooper.context import CooperBuildContext
from zenml_cooper.exceptions import ContextError

logger = get_logger(__name__)

# In the name of every archive. Changes when the same content is packed in another way.
_FORMAT = 1


def upload(context: CooperBuildContext, directory: str, archive_type: ArchiveType) -> str:
    """Puts a context into the artifact store of the active stack, unless it is there.

    The archive is named after the content, so one that is there need not even be packed, whichever machine, directory
    or process it came from. It gets its name when it is complete.

    Args:
        context: The context.
        directory: The directory of the artifact store.
        archive_type: The kind of archive.

    Returns:
        The path of the archive.

    Raises:
        ContextError: If a file cannot be read, or changes meanwhile.
    """
    parent = f"{Client().active_stack.artifact_store.path}/{directory}"
    digest = context.digest()
    path = f"{parent}/{digest.removeprefix('sha256:')}-{_FORMAT}.{archive_type.value}"
    if fileio.exists(path):
        logger.info("The build context is in the artifact store already: `%s`.", path)
        return path

    fileio.makedirs(parent)
    part = f"{path}.{uuid4().hex}.part"
    try:
        with fileio.open(part, "wb") as file:
            packed = context.pack(file, archive_type)
        _check_unchanged(context, digest)
        fileio.rename(part, path, overwrite=True)
    except BaseException:
        # An object store completes the upload of a file that is closed early.
        if fileio.exists(part):
            fileio.remove(part)
        raise
    logger.info("Uploaded the build context, %s, to `%s`.", size(packed["bytes_out"]), path)
    return path


def _check_unchanged(context: CooperBuildContext, digest: str) -> None:
    """Makes sure that an archive has the content that it is named after, for all later builds that will find it."""
    if context.digest() != digest:
        raise ContextError(
            "the build context changed while it was packed",
            code="context-changed",
            hint="build again when nothing writes to it, or exclude what changes in `.dockerignore`",
        )
