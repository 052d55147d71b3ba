"""The words of S3 in ours, and advice that fits the cause."""

import inspect
import string
from typing import Any

import pytest
import urllib3.exceptions
from botocore import exceptions as botocore_errors
from botocore.exceptions import ClientError

from pipeline.store.trouble.s3_words import SPOKEN, our_error
from schemas.errors import CredentialsRefused, StoreError, StoreRefused, StoreUnavailable

FAILURE = "cannot put s3://bucket/key at example.com"


def refused(
    status: int, code: str | None, message: str | None, headers: dict[str, str] | None = None
) -> ClientError:
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": headers or {}}
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}
    return ClientError(answer, "PutObject")


CAUSES: dict[str, tuple[ClientError, str]] = {
    "a header of checksums": (
        refused(400, "InvalidArgument", "Unsupported header 'x-amz-sdk-checksum-algorithm'"),
        "AWS_REQUEST_CHECKSUM_CALCULATION=when_required",
    ),
    "a trailer of checksums": (
        refused(411, "MissingContentLength", "You must provide the Content-Length header."),
        "AWS_REQUEST_CHECKSUM_CALCULATION=when_required",
    ),
    "an unconditional put that implies something": (
        refused(501, "NotImplemented", "A header you provided implies functionality that is not"),
        "AWS_REQUEST_CHECKSUM_CALCULATION=when_required",
    ),
    "virtual hosts only": (
        refused(403, "SecondLevelDomainForbidden", "Please use virtual hosted style to access."),
        "addressing_style virtual",
    ),
    "a key": (
        refused(403, "AccessDenied", "User a is not authorized to perform: kms:GenerateDataKey on"),
        "kms:GenerateDataKey",
    ),
    "a key that is switched off": (
        refused(400, "KMS.DisabledException", "arn:aws:kms:key is disabled."),
        "kms:GenerateDataKey",
    ),
    "encryption": (
        refused(400, "InvalidRequest", "The policy asks for x-amz-server-side-encryption"),
        "Default encryption",
    ),
    "a lock": (
        refused(400, "InvalidRequest", "Content-MD5 OR x-amz-checksum- HTTP header is required"),
        "Object Lock",
    ),
    "one permission": (
        refused(403, "AccessDenied", "User: arn:a is not authorized to perform: s3:PutObject on"),
        "permit s3:PutObject on",
    ),
    "a policy that denies": (
        refused(403, "AccessDenied", "... s3:PutObject on x with an explicit deny in a policy"),
        "a policy denies it",
    ),
    "access": (refused(403, "AccessDenied", "Access Denied"), "permit s3:PutObject"),
    "another region, by a header": (
        refused(301, "301", "Moved Permanently", {"x-amz-bucket-region": "eu-west-1"}),
        "AWS_DEFAULT_REGION=eu-west-1",
    ),
    "another region, by a message": (
        refused(400, "AuthorizationHeaderMalformed", "'a' is wrong; expecting 'eu-west-1'"),
        "AWS_DEFAULT_REGION=eu-west-1",
    ),
    "another place": (refused(301, "PermanentRedirect", "elsewhere"), "AWS_ENDPOINT_URL"),
    "a clock": (refused(403, "RequestTimeTooSkewed", "The difference is too large."), "clock"),
    "a signature of yesterday": (
        refused(403, "SignatureDoesNotMatch", "Signature expired: 1 is now earlier than 2"),
        "clock",
    ),
    "an old token": (
        refused(400, "ExpiredToken", "The provided token has expired."),
        "AWS_SESSION_TOKEN",
    ),
    "a token of STS": (
        refused(400, "ExpiredTokenException", "The security token has expired"),
        "AWS_SESSION_TOKEN",
    ),
    "a quota": (refused(403, "QuotaExceeded", "full"), "make room"),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_its_words_stand_in_ours_and_the_advice_fits_the_cause(cause: str):
    error, advice = CAUSES[cause]
    said = error.response["Error"]

    ours = str(our_error(error, "put", FAILURE))

    assert ours.startswith(f"{FAILURE}: {said['Code']} ({said['Message']}); ")
    assert advice in ours.partition("); ")[2]


def test_credentials_are_told_from_other_refusals_and_both_from_what_passes():
    def kind(status: int, code: str) -> type[StoreError]:
        return type(our_error(refused(status, code, ""), "put", FAILURE))

    assert kind(400, "ExpiredTokenException") is kind(403, "AccessDenied") is CredentialsRefused
    assert kind(400, "InvalidRequest") is kind(301, "PermanentRedirect") is StoreRefused
    assert kind(503, "SlowDown") is kind(500, "InternalError") is StoreUnavailable


@pytest.mark.parametrize(("status", "kind"), [(503, StoreUnavailable), (403, CredentialsRefused)])
def test_a_server_that_says_nothing_is_known_by_its_status(status: int, kind: type[StoreError]):
    assert type(our_error(refused(status, None, None), "put", FAILURE)) is kind


def test_a_long_message_is_cut_and_stays_on_one_line():
    ours = str(our_error(refused(400, "Bad", "long\n" * 1000), "put", FAILURE))

    assert "\n" not in ours
    assert len(ours) < 1000


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (botocore_errors.UnauthorizedSSOTokenError(), "aws sso login"),
        (botocore_errors.SSOTokenLoadError(error_msg="x"), "aws sso login"),
        (botocore_errors.TokenRetrievalError(provider="sso", error_msg="x"), "aws sso login"),
        (botocore_errors.LoginRefreshRequired(), "aws login"),
    ],
)
def test_a_session_that_is_over_says_how_to_begin_another(error: Exception, advice: str):
    ours = our_error(error, "put", FAILURE)

    assert isinstance(ours, CredentialsRefused)
    assert advice in str(ours)


def all_errors() -> list[Exception]:
    """One of each class of botocore's and urllib3's, but for warnings."""
    return [
        _built(kind)
        for module in (botocore_errors, urllib3.exceptions)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__
        and issubclass(kind, Exception)
        and not issubclass(kind, Warning)
    ]


def _built(kind: type[Exception]) -> Exception:
    """An error of the class, with words for all that its message asks for."""
    if issubclass(kind, ClientError):
        return kind({}, "PutObject")  # also one that says nothing at all
    fields = {name for _, name, _, _ in string.Formatter().parse(getattr(kind, "fmt", "")) if name}
    if issubclass(kind, botocore_errors.WaiterError):
        return kind(name="w", reason="user:password@host", last_response={})
    if issubclass(kind, botocore_errors.BotoCoreError):
        return kind(**dict.fromkeys(fields, "user:password@host"))
    error = kind.__new__(kind)  # the others ask for connections and pools
    error.args = ("user:password@host",)
    return error


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: type(error).__name__)
def test_every_error_of_its_libraries_is_one_of_ours(error: Exception):
    assert isinstance(error, SPOKEN)
    for operation in ("read", "put", "put if absent", "delete", "list"):
        ours = our_error(error, operation, FAILURE)

        assert type(error).__name__ in str(ours) or isinstance(error, ClientError)
        assert "password" not in str(ours)
