"""Copies the items of a DynamoDB table to a file, or a file's items into a table: {dump|load} ENDPOINT TABLE FILE."""

import json
import sys

import boto3

# Items of one call, at most.
BATCH = 25


def main() -> None:
    verb, endpoint, table, path = sys.argv[1:]
    client = boto3.client("dynamodb", endpoint_url=endpoint)
    if verb == "dump":
        pages = client.get_paginator("scan").paginate(TableName=table)
        items = [item for page in pages for item in page["Items"]]
        items.sort(key=lambda item: (item["pk"]["S"], item["sk"]["S"]))
        with open(path, "w", encoding="utf-8") as file:
            file.write("[\n" + ",\n".join(json.dumps(item, sort_keys=True) for item in items) + "\n]\n")
    else:
        with open(path, encoding="utf-8") as file:
            items = json.load(file)
        for at in range(0, len(items), BATCH):
            puts = {table: [{"PutRequest": {"Item": item}} for item in items[at : at + BATCH]]}
            while puts:
                puts = client.batch_write_item(RequestItems=puts)["UnprocessedItems"]


if __name__ == "__main__":
    main()
