"""Changes generated requests that would prevent further tests; loaded by tests/schemathesis."""

import itertools
import os
import re

import schemathesis

OWN = os.environ["CDM_OWN_TOKEN_ID"]
numbers = itertools.count(1)


@schemathesis.hook
def before_call(context, case, kwargs):
    """Keeps the token of the tests, and gives each request with a valid idempotency key a unique one.

    A key that is reused for another request is refused, as intended: cdm-http/tests/e2e/refusals.rs tests it.
    """
    if case.operation.path == "/tokens/{id}" and (case.path_parameters or {}).get("id") == OWN:
        case.path_parameters["id"] = "0" * 26
    headers = case.headers or {}
    for name in headers:
        if name.lower() == "idempotency-key" and re.fullmatch("[!-~]{1,255}", str(headers[name])):
            headers[name] = f"key-{next(numbers)}"
