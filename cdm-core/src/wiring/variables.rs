//! The known environment variables.

/// Every `CDM_` variable that a program of CDM reads.
const KNOWN: &[&str] = &[
    "CDM_ADMIN_TOKEN",
    "CDM_ADMIN_TOKEN_FILE",
    "CDM_ALLOW_PLAINTEXT",
    "CDM_BACKEND",
    "CDM_BUCKET",
    "CDM_CACERT",
    "CDM_CANARY_CONFIGMAP",
    "CDM_CONCURRENCY",
    "CDM_CONFIG",
    "CDM_DATABASE_URL",
    "CDM_DATABASE_URL_FILE",
    "CDM_DATA_DIR",
    "CDM_GATE_ADDRESS",
    "CDM_IMAGE_REPOSITORY",
    "CDM_JOB_SERVICE_ACCOUNT",
    "CDM_LISTEN",
    "CDM_LOG",
    "CDM_LOG_FORMAT",
    "CDM_NAMESPACE",
    "CDM_OIDC_CLAIM",
    "CDM_OIDC_CLIENT_ID",
    "CDM_OIDC_CLIENT_SECRET",
    "CDM_OIDC_CLIENT_SECRET_FILE",
    "CDM_OIDC_ISSUER",
    "CDM_PASSWORDS",
    "CDM_PUBLIC_URL",
    "CDM_RETENTION_AUDIT",
    "CDM_RETENTION_EVENTS",
    "CDM_RETRY_DENIED_PATIENCE_S",
    "CDM_RETRY_LONGEST_PAUSE_MS",
    "CDM_RETRY_PATIENCE_S",
    "CDM_RETRY_PAUSE_MS",
    "CDM_ROUTER_LISTEN",
    "CDM_ROUTES",
    "CDM_S3_PATH_STYLE",
    "CDM_SECOND_FACTOR",
    "CDM_SECRET_PREFIX",
    "CDM_SERVER",
    "CDM_SITE_ADMIN_EMAIL",
    "CDM_SITE_ADMIN_USER",
    "CDM_SITE_SCHEME",
    "CDM_TABLE",
    "CDM_TLS_CERT",
    "CDM_TLS_KEY",
    "CDM_TOKEN",
    "CDM_TOKEN_FILE",
    "CDM_TRUSTED_PROXIES",
    "CDM_WEBHOOKS_ALLOW",
    "CDM_WEBHOOKS_ALLOWED_RECEIVERS",
    "CDM_WORKERS",
    "CDM_WP_ALLOW_ROOT",
    "CDM_WP_PATH",
];

/// Returns the names that begin with `CDM_` and have no meaning, sorted: misspelled variables, and variables that only an
/// earlier version read. Variables that Kubernetes sets for a Service named `cdm`, and variables of tests, are not
/// returned.
pub fn unknown_variables(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let is_of_tests = |name: &str| name.starts_with("CDM_TEST_");
    let unknown = |name: &String| {
        name.starts_with("CDM_")
            && !KNOWN.contains(&name.as_str())
            && !is_of_service(name)
            && !is_of_tests(name)
    };
    let mut unknown: Vec<String> = names.into_iter().filter(unknown).collect();
    unknown.sort_unstable();
    unknown.dedup();
    unknown
}

/// Returns whether Kubernetes sets a variable of this name for a Service named `cdm`: `CDM_PORT`, `CDM_SERVICE_HOST`,
/// `CDM_METRICS_SERVICE_PORT_HTTP`, `CDM_PORT_80_TCP_ADDR`.
fn is_of_service(name: &str) -> bool {
    let is_port = name.split_once("_PORT").is_some_and(|(_, rest)| {
        rest.is_empty()
            || rest.strip_prefix('_').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    is_port || name.contains("_SERVICE_HOST") || name.contains("_SERVICE_PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelled_and_removed_variables_are_unknown() {
        let names = [
            "CDM_LISTEN",
            "CDM_LISTN",
            "CDM_ALLOW_TAGS",
            "CDM_PORT",
            "CDM_PORT_8080_TCP_ADDR",
            "CDM_SERVICE_HOST",
            "CDM_SERVICE_PORT_HTTP",
            "CDM_METRICS_SERVICE_PORT",
            "CDM_TEST_AWS",
            "CDMLISTEN",
            "HOME",
        ];
        let unknown = unknown_variables(names.map(str::to_owned));
        assert_eq!(unknown, ["CDM_ALLOW_TAGS", "CDM_LISTN"]);
    }
}
