"""What an error of S3, or of its client, means: whether to wait, and what to do about it.

S3's own code and message stand in ours. The advice goes by the cause, which servers tell in their
message as often as in their code. Of errors on our side the class is told and never the text, which
may hold an endpoint with a password in it.
"""

import http.client
import re

from botocore import exceptions as botocore_errors
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError, ProxySchemeUnsupported

from schemas.errors import (
    CredentialsRefused,
    ObjectMissing,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)


class ObjectPresent(StoreError):
    """412: the condition of a conditional put does not hold."""


class BeyondEnd(StoreError):
    """416: the object has no byte at the start of the range."""


_BROKEN_OFF = (
    botocore_errors.AwsChunkedWrapperError,
    botocore_errors.ChecksumError,
    botocore_errors.ConnectionError,
    botocore_errors.FlexibleChecksumError,
    botocore_errors.HTTPClientError,
    botocore_errors.IncompleteReadError,
    *(HTTPError, http.client.HTTPException),  # botocore lets some through while it reads a body
    *(ConnectionError, TimeoutError),  # Python's own, as sockets raise them
    ResponseParserError,
)
SPOKEN = (
    *(BotoCoreError, ClientError),
    *(botocore_errors.UndefinedModelAttributeError, ProxySchemeUnsupported),  # without a base
    *_BROKEN_OFF,
)
"""All that S3's client says."""

_NO_CREDENTIALS = (  # also where the service that lends credentials is away for a moment
    botocore_errors.CredentialRetrievalError,
    botocore_errors.LoginError,
    botocore_errors.MetadataRetrievalError,
    botocore_errors.NoAuthTokenError,
    botocore_errors.NoCredentialsError,
    botocore_errors.PartialCredentialsError,
    botocore_errors.RefreshWithMFAUnsupportedError,
    botocore_errors.SSOError,
    botocore_errors.TokenRetrievalError,
)
_PASSING_CODES = frozenset(
    {
        *("BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"),  # damaged on its way
        *("QuotaExceeded", "RequestTimeout"),
    }
)
_CREDENTIAL_CODES = re.compile(
    r"Expired\w*Token(Exception)?|ExpiredToken\w*|Invalid(AccessKeyId|Token|ClientTokenId)|"
    r"TokenRefreshRequired|UnrecognizedClient\w*|Unauthorized(Exception)?|InvalidGrant\w*"
)

_CHECKSUM = (
    "this server does not know the checksums that AWS's library sends: set "
    "AWS_REQUEST_CHECKSUM_CALCULATION=when_required and "
    "AWS_RESPONSE_CHECKSUM_VALIDATION=when_required"
)
_SSO = "sign in again: aws sso login (with --profile NAME, if AWS_PROFILE names one)"
_CAUSES = (  # the first that fits the code and the message
    (
        r"(?i)object.?lock|legal.?hold|\bretention\b|\bWORM\b|Content-MD5 OR x-amz-checksum",
        "the bucket locks what is put (Object Lock): use one without a lock or a default "
        "retention, or leave AWS_REQUEST_CHECKSUM_CALCULATION unset if it asks for a checksum",
    ),
    (
        r"(?i)x-amz-(sdk-)?checksum|x-amz-trailer|aws-chunked|UNSIGNED-PAYLOAD-TRAILER|"
        r"MissingContentLength",
        _CHECKSUM,
    ),
    (
        r"kms:|KMS\.|(?i:kms key|kms-managed)",
        "let these credentials use the bucket's key: permit kms:GenerateDataKey (to put) and "
        "kms:Decrypt (to read) on it",
    ),
    (
        r"(?i)server-?side-?encryption",
        "have the bucket encrypt by default (its settings, Default encryption): puts here name no "
        "encryption of their own",
    ),
    (
        r"(?i)virtual.?host|SecondLevelDomainForbidden|path.?style",
        "this server wants the bucket in the host's name: "
        "aws configure set default.s3.addressing_style virtual",
    ),
    (
        r"RequestTimeTooSkewed|(?i:signature (expired|not yet current)|request has expired)",
        "set this machine's clock",
    ),
    (r"explicit deny", "a policy denies it, whatever else permits it: have its owner change it"),
    (
        r"ExpiredToken|TokenRefreshRequired|(?i:token .*expired)",
        "get new credentials: a new AWS_SESSION_TOKEN with its key, or aws sso login",
    ),
)
_ADVICE = {
    "AllAccessDisabled": "ask the owner of the account: the bucket is switched off",
    "EntityTooLarge": "make the shards smaller: one put takes at most 5 GB",
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID, and that AWS_ENDPOINT_URL names its server",
    "InvalidBucketName": "correct the bucket's name",
    "NoSuchBucket": "make the bucket, or correct its name",
    "NotImplemented": "use a server that honours If-None-Match on PutObject",
    "QuotaExceeded": "make room in the bucket, or have its quota raised",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY, the region, and what stands between: "
    "a proxy may change requests",
    "NoCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "PartialCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY both",
    "SSLError": "check the certificate of the endpoint: AWS_CA_BUNDLE names your own authority",
    "ProxyConnectionError": "check HTTPS_PROXY and NO_PROXY",
}
_ACTIONS = {
    "read": "s3:GetObject below the prefix (and s3:ListBucket on the bucket: without it, S3 says "
    "this of a missing object, too)",
    "list": "s3:ListBucket on the bucket",
    "delete": "s3:DeleteObject below the prefix",
}
_UNAUTHORISED = re.compile(r"not authorized to perform:? ([\w-]+:\w+)")
_REGION = re.compile(r"expecting '([\w-]+)'")
_KEPT = 300  # characters of a server's message


def our_error(error: Exception, operation: str, failure: str) -> StoreError:
    """An error as ours. `operation` is a verb of `Store`, `failure` what could not be done.

    Nothing else decides what is waited for, and what is not.
    """
    status, code, message = _told(error)
    if status == 404 and code != "NoSuchBucket" and operation in ("read", "delete"):
        return ObjectMissing(f"{failure}: there is no such object; check the key")
    if status == 412:
        return ObjectPresent(failure)
    if status == 416:
        return BeyondEnd(failure)
    said = f"{failure}: {code}" + (f" ({message})" if message else "")
    is_busy = status in (408, 409, 429) or (status >= 500 and status != 501)
    if is_busy or code in _PASSING_CODES or isinstance(error, _BROKEN_OFF):
        advice = _ADVICE.get(code, "check that the endpoint is up, and try again")
        return StoreUnavailable(f"{said}; {advice}")
    is_refused = status in (401, 403) or _CREDENTIAL_CODES.fullmatch(code)
    advice = _advice(error, operation, code, message)
    if is_refused or isinstance(error, _NO_CREDENTIALS):
        return CredentialsRefused(f"{said}; {advice}")
    return StoreRefused(f"{said}; {advice}")


def _advice(error: Exception, operation: str, code: str, message: str) -> str:
    """What to do, by what the server told of the cause."""
    if isinstance(error, botocore_errors.SSOError | botocore_errors.TokenRetrievalError):
        return _SSO
    if isinstance(error, botocore_errors.LoginError):
        return "sign in again: aws login"
    if isinstance(error, ClientError) and (region := _region_of(error)):
        return f"the bucket is in another region: set AWS_DEFAULT_REGION={region}"
    for pattern, advice in _CAUSES:
        if re.search(pattern, f"{code}: {message}"):
            return advice
    if match := _UNAUTHORISED.search(message):
        return f"permit {match[1]} on what it names"
    if code in ("PermanentRedirect", "TemporaryRedirect", "301", "307"):
        return "set AWS_DEFAULT_REGION to the bucket's region, or AWS_ENDPOINT_URL to its server"
    if code == "AccessDenied":
        return f"permit {_ACTIONS.get(operation, 's3:PutObject below the prefix')}"
    if code == "NotImplemented" and operation == "put":  # which has no condition
        return _CHECKSUM
    return _ADVICE.get(code, "check the bucket, its region, the credentials and what they permit")


def _told(error: Exception) -> tuple[int, str, str]:
    """The HTTP status, S3's code and its message; for an error on our side 0 and its class."""
    if not isinstance(error, ClientError):
        return 0, type(error).__name__, ""
    said = error.response.get("Error", {})
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = said.get("Code") or str(status)
    return status, _quoted(code), _quoted(said.get("Message", ""))


def _region_of(error: ClientError) -> str:
    """The region that a redirection names; empty if this is none, or names none."""
    if match := _REGION.search(error.response.get("Error", {}).get("Message") or ""):
        return match[1]
    metadata = error.response.get("ResponseMetadata", {})
    headers = metadata.get("HTTPHeaders", {})
    is_redirection = metadata.get("HTTPStatusCode", 0) in (301, 307)
    return _quoted(headers.get("x-amz-bucket-region", "")) if is_redirection else ""


def _quoted(text: str | None) -> str:
    """A server's words on one line, and not too many of them. Some servers send none."""
    words = " ".join((text or "").split())
    return words if len(words) <= _KEPT else f"{words[:_KEPT]} ..."
