from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.storage.location import data_path
from pipeline.storage.unreachable import naming_unreachable_store

STORE = data_path("memory://knowledge")


def error_of(module: str, *bases: type) -> type:
    """A class as a client's package defines it; the package need not be installed."""
    return type("ClientError", bases or (Exception,), {"__module__": module})


@pytest.mark.parametrize(
    "kind",
    [
        error_of("botocore.exceptions"),
        error_of("aiohttp.client_exceptions", OSError),
        error_of("gcsfs.retry"),
        error_of("google.auth.exceptions"),
        type("Ours", (error_of("botocore.exceptions"),), {}),
    ],
)
def test_what_a_client_raises_is_one_line(kind):
    with pytest.raises(StorageError) as error, naming_unreachable_store(STORE):
        raise kind("Could not connect\nto the endpoint")
    assert str(error.value) == (
        "memory://knowledge: the object store does not answer, or refuses: "
        "Could not connect to the endpoint; what is finished is kept"
    )
    assert error.value.exit_code == 1


def test_an_error_that_was_made_of_a_clients_is_told_too():
    with pytest.raises(StorageError, match="refuses: Forbidden"), naming_unreachable_store(STORE):
        raise PermissionError(13, "Forbidden") from error_of("botocore.exceptions")("Forbidden")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (STORE, ValueError("x")),
        (STORE, FileNotFoundError("x")),
        (Path("/d"), error_of("aiohttp.client")("x")),
    ],
)
def test_other_errors_stay_what_they_are(data, error):
    with pytest.raises(type(error)) as found, naming_unreachable_store(data):
        raise error
    assert found.value is error
