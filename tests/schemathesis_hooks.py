"""What a generated request may not do, since the rest would not be tested then; loaded by tests/schemathesis."""

import itertools
import os
import re

import schemathesis

OWN = os.environ["CDM_OWN_TOKEN_ID"]
numbers = itertools.count(1)


@schemathesis.hook
def before_call(context, case, kwargs):
    """Spares the token with which everything is asked, and gives each request that has a fit key one of its own.

    A key that comes twice is refused for another request, which is what it is for: cdm-http/tests/e2e/refusals.rs.
    """
    if case.operation.path == "/tokens/{id}" and (case.path_parameters or {}).get("id") == OWN:
        case.path_parameters["id"] = "0" * 26
    headers = case.headers or {}
    for name in headers:
        if name.lower() == "idempotency-key" and re.fullmatch("[!-~]{1,255}", str(headers[name])):
            headers[name] = f"key-{next(numbers)}"
