"""Prints the content of DynamoDB, Secrets Manager and S3, read with boto3, as one JSON object.

usage: outside.py ENDPOINT DYNAMODB_ENDPOINT TABLE BUCKET SECRET_PREFIX
"""

import json
import sys

import boto3

endpoint, dynamodb, table, bucket, prefix = sys.argv[1:]


def client(service: str):
    """Returns a client of a service at the endpoint."""
    return boto3.client(service, endpoint_url=endpoint)


def pages(service, operation: str, key: str, **arguments) -> list:
    """Returns all items of a list, from all its pages."""
    found = []
    for page in service.get_paginator(operation).paginate(**arguments):
        found += page.get(key, [])
    return found


s3, secrets = client("s3"), client("secretsmanager")
items = boto3.resource("dynamodb", endpoint_url=dynamodb).Table(table)
rows, start = [], {}
while True:
    page = items.scan(ConsistentRead=True, **start)
    rows += page["Items"]
    if "LastEvaluatedKey" not in page:
        break
    start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

listed = pages(secrets, "list_secrets", "SecretList", IncludePlannedDeletion=True)
named = [secret for secret in listed if secret["Name"].startswith(prefix + "/")]
values = {}
for secret in named:
    if "DeletedDate" not in secret:
        values[secret["Name"]] = json.loads(secrets.get_secret_value(SecretId=secret["Name"])["SecretString"])
versions = pages(s3, "list_object_versions", "Versions", Bucket=bucket)
versions += pages(s3, "list_object_versions", "DeleteMarkers", Bucket=bucket)
uploads = s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
print(
    json.dumps(
        {
            "items": {f"{row['pk']}/{row['sk']}": row for row in rows},
            "secrets": values,
            "deleting": sorted(secret["Name"] for secret in named if "DeletedDate" in secret),
            "objects": sorted(entry["Key"] for entry in versions + uploads),
        },
        default=lambda value: sorted(value, key=str) if isinstance(value, set) else str(value),
    )
)
