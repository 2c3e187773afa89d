#!/bin/sh
# Moves one site as an operator would by hand: updates the record, patches the route, updates the record again.
set -eu
table=$1 id=$2 name=$3 patch=$4 service=$5
key="{\"pk\":{\"S\":\"S#$id\"},\"sk\":{\"S\":\"SITE\"}}"
update() {
    "$AWS" dynamodb update-item --table-name "$table" --key "$key" --update-expression "SET #s = :v" \
        --expression-attribute-names "{\"#s\":\"$1\"}" --expression-attribute-values "{\":v\":{\"S\":\"$2\"}}"
}
update state promoting
"$KUBECTL" patch ingress "$name" --type json --patch "$patch"
update service "$service"
