//! `deploy/aws` allows exactly the calls of the AWS adapters: each call has its action, and each action has its call.
//!
//! The tests read the source of the adapters, where an operation is a method without arguments on a value named
//! `client`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use Policy::{Bootstrap, Work};

/// The file that allows a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    /// `policy.json`: normal operation and `doctor`.
    Work,
    /// `bootstrap-policy.json`: the additional calls of `cdm-server --bootstrap`.
    Bootstrap,
}

/// Each operation that an adapter calls, and the actions that allow it according to AWS's service authorization
/// reference.
const CALLS: &[(&str, &str, Policy, &[&str])] = &[
    ("dynamodb", "batch_get_item", Work, &["dynamodb:BatchGetItem"]),
    ("dynamodb", "create_table", Bootstrap, &["dynamodb:CreateTable"]),
    ("dynamodb", "delete_item", Work, &["dynamodb:DeleteItem"]),
    ("dynamodb", "describe_continuous_backups", Bootstrap, &["dynamodb:DescribeContinuousBackups"]),
    ("dynamodb", "describe_table", Work, &["dynamodb:DescribeTable"]),
    ("dynamodb", "describe_time_to_live", Bootstrap, &["dynamodb:DescribeTimeToLive"]),
    ("dynamodb", "get_item", Work, &["dynamodb:GetItem"]),
    ("dynamodb", "put_item", Work, &["dynamodb:PutItem"]),
    ("dynamodb", "query", Work, &["dynamodb:Query"]),
    (
        "dynamodb",
        "transact_write_items",
        Work,
        &["dynamodb:ConditionCheckItem", "dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:UpdateItem"],
    ),
    ("dynamodb", "update_continuous_backups", Bootstrap, &["dynamodb:UpdateContinuousBackups"]),
    ("dynamodb", "update_item", Work, &["dynamodb:UpdateItem"]),
    ("dynamodb", "update_time_to_live", Bootstrap, &["dynamodb:UpdateTimeToLive"]),
    ("s3", "abort_multipart_upload", Work, &["s3:AbortMultipartUpload"]),
    ("s3", "create_bucket", Bootstrap, &["s3:CreateBucket"]),
    ("s3", "delete_object", Work, &["s3:DeleteObject", "s3:DeleteObjectVersion"]),
    ("s3", "delete_objects", Work, &["s3:DeleteObject", "s3:DeleteObjectVersion"]),
    ("s3", "head_bucket", Bootstrap, &["s3:ListBucket"]),
    ("s3", "list_multipart_uploads", Work, &["s3:ListBucketMultipartUploads"]),
    ("s3", "list_object_versions", Work, &["s3:ListBucketVersions"]),
    ("s3", "put_bucket_versioning", Bootstrap, &["s3:PutBucketVersioning"]),
    ("s3", "put_object", Work, &["s3:PutObject"]),
    ("s3", "put_public_access_block", Bootstrap, &["s3:PutBucketPublicAccessBlock"]),
    (
        "secrets_manager",
        "create_secret",
        Work,
        &["secretsmanager:CreateSecret", "secretsmanager:TagResource"],
    ),
    ("secrets_manager", "delete_secret", Work, &["secretsmanager:DeleteSecret"]),
    ("secrets_manager", "describe_secret", Work, &["secretsmanager:DescribeSecret"]),
    ("secrets_manager", "get_secret_value", Work, &["secretsmanager:GetSecretValue"]),
];

/// The permitted resources of a statement: the table, the secrets below the prefix, and the objects of the sites.
const RESOURCES: &[&str] = &[
    "arn:aws:dynamodb:*:*:table/cdm",
    "arn:aws:dynamodb:*:*:table/cdm/index/lists",
    "arn:aws:dynamodb:*:*:table/cdm/index/work",
    "arn:aws:s3:::BUCKET",
    "arn:aws:s3:::BUCKET/sites/*",
    "arn:aws:secretsmanager:*:*:secret:cdm/*",
];

fn adapter(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/adapters").join(name)
}

fn deployed(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/aws").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the text of every file of a folder, recursively.
fn text_of(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let text = paths.map(|path| match path.is_dir() {
        true => text_of(&path),
        false => fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
    });
    text.collect()
}

/// Returns the operations that a text calls on a client.
fn operations(text: &str) -> BTreeSet<String> {
    let after = text.split("client").skip(1).filter_map(|after| after.trim_start().strip_prefix('.'));
    let called = after.filter_map(|after| {
        let (name, rest) = after.split_once('(')?;
        let is_name = name.chars().all(|character| character.is_ascii_lowercase() || character == '_');
        (is_name && rest.starts_with(')')).then(|| name.to_owned())
    });
    called.collect()
}

fn statements(file: &str) -> Vec<Value> {
    let policy: Value = serde_json::from_str(&deployed(file)).expect("JSON");
    policy["Statement"].as_array().expect("statements").clone()
}

/// Returns the elements of a list of texts, or a single text as a list.
fn texts(value: &Value) -> Vec<String> {
    let one = value.as_str().map(|text| vec![text.to_owned()]);
    one.unwrap_or_else(|| {
        let list = value.as_array().expect("a text or a list of texts");
        list.iter().map(|text| text.as_str().expect("a text").to_owned()).collect()
    })
}

#[test]
fn every_operation_of_the_adapters_is_listed() {
    let adapters: BTreeSet<_> = CALLS.iter().map(|(adapter, ..)| *adapter).collect();
    for name in adapters {
        let known = CALLS.iter().filter(|(adapter, ..)| *adapter == name);
        let known: BTreeSet<_> = known.map(|(_, operation, ..)| (*operation).to_owned()).collect();
        assert_eq!(operations(&text_of(&adapter(name))), known, "the operations of `{name}`");
    }
}

#[test]
fn the_policies_allow_exactly_the_calls_of_the_adapters() {
    for (policy, file) in [(Work, "policy.json"), (Bootstrap, "bootstrap-policy.json")] {
        let needed = CALLS.iter().filter(|(_, _, of, _)| *of == policy);
        let needed: BTreeSet<_> =
            needed.flat_map(|(.., actions)| *actions).map(|&text| text.to_owned()).collect();
        let allowed: Vec<_> = statements(file).iter().flat_map(|one| texts(&one["Action"])).collect();
        assert_eq!(allowed.into_iter().collect::<BTreeSet<_>>(), needed, "{file}");
    }
}

#[test]
fn the_policies_are_limited_to_resources_of_cdm() {
    for file in ["policy.json", "bootstrap-policy.json"] {
        for statement in statements(file) {
            assert_eq!(statement["Effect"], "Allow", "{statement}");
            for resource in texts(&statement["Resource"]) {
                assert!(RESOURCES.contains(&resource.as_str()), "{file}: {resource}");
            }
            // The adapter reads or deletes a secret only after it has checked that CDM owns it; the policy restricts
            // both as well.
            for action in texts(&statement["Action"]) {
                let condition = &statement["Condition"]["StringEquals"];
                match action.as_str() {
                    "secretsmanager:GetSecretValue" | "secretsmanager:DeleteSecret" => {
                        assert_eq!(condition["aws:ResourceTag/managed-by"], "cdm", "{action}");
                    }
                    "secretsmanager:CreateSecret" | "secretsmanager:TagResource" => {
                        assert_eq!(condition["aws:RequestTag/managed-by"], "cdm", "{action}");
                    }
                    _ => {}
                }
            }
        }
    }
}

/// What the contract with the image allows it to read: `docs/tenant-contract.md`.
#[test]
fn the_image_reads_what_its_contract_names_and_no_administrator_password() {
    let statements = statements("image-policy.json");
    let of = |action: &str| -> Vec<&Value> {
        statements.iter().filter(|one| texts(&one["Action"]).iter().any(|name| name == action)).collect()
    };
    let allowed: BTreeSet<_> = statements.iter().flat_map(|one| texts(&one["Action"])).collect();
    let wanted = [
        "dynamodb:BatchGetItem",
        "dynamodb:GetItem",
        "s3:AbortMultipartUpload",
        "s3:DeleteObject",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:PutObject",
        "secretsmanager:GetSecretValue",
    ];
    assert_eq!(allowed.iter().map(String::as_str).collect::<Vec<_>>(), wanted);
    assert!(statements.iter().all(|one| one["Effect"] == "Allow"));

    // Items of hostnames and sites only: not tokens, users, operations or the audit log.
    for statement in of("dynamodb:GetItem") {
        assert_eq!(texts(&statement["Resource"]), ["arn:aws:dynamodb:*:*:table/cdm"]);
        let keys = &statement["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"];
        assert_eq!(texts(keys), ["H#*", "S#*"]);
    }
    for action in ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"] {
        assert!(of(action).iter().all(|one| texts(&one["Resource"]) == ["arn:aws:s3:::BUCKET/sites/*"]));
    }
    assert!(of("s3:ListBucket").iter().all(|one| one["Condition"]["StringLike"]["s3:prefix"] == "sites/*"));

    // The ARN of a secret ends in a hyphen and six characters that Secrets Manager generates.
    let arn = |name: &str| format!("arn:aws:secretsmanager:eu-central-1:1:secret:cdm/{name}-aB3dE6");
    let uid = "01k0000000000000000000000a";
    let reads = |name: &str| {
        of("secretsmanager:GetSecretValue").iter().any(|statement| {
            assert_eq!(statement["Condition"]["StringEquals"]["aws:ResourceTag/managed-by"], "cdm");
            texts(&statement["Resource"]).iter().any(|pattern| matches(pattern, &arn(name)))
        })
    };
    assert!(reads(&format!("{uid}/db")));
    for other in ["cms", "webhook", "db/cms", "xdb", "cms-db"] {
        assert!(!reads(&format!("{uid}/{other}")), "{other}");
    }
    assert!(!matches(
        "arn:aws:secretsmanager:*:*:secret:cdm/*/db-??????",
        "arn:aws:secretsmanager:r:1:secret:other/x/db-aB3dE6"
    ));
}

/// Returns whether a text matches a pattern of AWS: `*` matches any text, `?` matches one character.
fn matches(pattern: &str, text: &str) -> bool {
    match (pattern.chars().next(), text.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => {
            matches(&pattern[1..], text)
                || text.chars().next().is_some_and(|first| matches(pattern, &text[first.len_utf8()..]))
        }
        (Some('?'), Some(first)) => matches(&pattern[1..], &text[first.len_utf8()..]),
        (Some(wanted), Some(first)) if wanted == first => {
            matches(&pattern[wanted.len_utf8()..], &text[first.len_utf8()..])
        }
        (_, _) => false,
    }
}

/// The template repeats the table's names; in the adapter they are between these two lines.
#[test]
fn the_template_creates_the_table_of_the_adapter() {
    let template: Value = serde_norway::from_str(&deployed("table-and-bucket.yaml")).expect("YAML");
    let table = &template["Resources"]["Table"]["Properties"];
    let named = |value: &Value, name: &str| -> Vec<String> {
        value
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| one[name].as_str().expect(name).to_owned())
            .collect()
    };
    let indexes = table["GlobalSecondaryIndexes"].as_array().expect("indexes");
    let keys = indexes.iter().flat_map(|index| named(&index["KeySchema"], "AttributeName"));
    let keys: BTreeSet<_> = keys.chain(named(&table["KeySchema"], "AttributeName")).collect();
    assert_eq!(
        named(&table["AttributeDefinitions"], "AttributeName").into_iter().collect::<BTreeSet<_>>(),
        keys
    );

    let source = text_of(&adapter("dynamodb"));
    let (_, names) = source.split_once("const EXPIRES").expect("the names of the table");
    let (names, _) = names.split_once("impl DynamoTable").expect("the end of the names");
    let names: BTreeSet<_> = names.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    let mut written = keys;
    written.extend(indexes.iter().flat_map(|index| texts(&index["Projection"]["NonKeyAttributes"])));
    written.extend(texts(&table["TimeToLiveSpecification"]["AttributeName"]));
    assert_eq!(written, names);
    for index in named(&table["GlobalSecondaryIndexes"], "IndexName") {
        let known = |name: &str| source.contains(&format!("const {name}: &str = \"{index}\";"));
        assert!(known("LISTS") || known("WORK"), "the index `{index}`");
    }
}

#[test]
fn the_template_retains_its_resources_and_blocks_public_access() {
    let template: Value = serde_norway::from_str(&deployed("table-and-bucket.yaml")).expect("YAML");
    let [table, bucket] = ["Table", "Bucket"].map(|name| &template["Resources"][name]);
    for resource in [table, bucket] {
        assert_eq!(resource["DeletionPolicy"], "Retain");
        assert_eq!(resource["UpdateReplacePolicy"], "Retain");
    }
    assert_eq!(table["Properties"]["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"], true);
    let bucket = &bucket["Properties"];
    assert_eq!(bucket["VersioningConfiguration"]["Status"], "Enabled");
    let blocked = bucket["PublicAccessBlockConfiguration"].as_object().expect("a block");
    assert!(blocked.len() == 4 && blocked.values().all(|flag| flag == true), "{blocked:?}");
}

#[test]
fn operations_are_found() {
    let text = "self.client.get_item().x(); table.client\n    .query() client.config(a) .client::b() client.put_item()";
    assert_eq!(operations(text).into_iter().collect::<Vec<_>>(), ["get_item", "put_item", "query"]);
}
