//! The known environment variables.

use super::file::{
    RawBackends, RawConfig, RawDatabase, RawFlush, RawGate, RawJobs, RawKubernetes, RawLimits, RawSite,
    RawWebhooks, RawWp,
};
use super::oidc::RawOidc;
use super::retention::RawRetention;
use super::retry::RawRetry;
use super::sources::FILE;

/// The variables of the configuration, by table. The compiler warns about a table that is missing here.
const SETTINGS: &[&[&str]] = &[
    RawConfig::VARIABLES,
    RawBackends::VARIABLES,
    RawDatabase::VARIABLES,
    RawFlush::VARIABLES,
    RawGate::VARIABLES,
    RawJobs::VARIABLES,
    RawKubernetes::VARIABLES,
    RawLimits::VARIABLES,
    RawOidc::VARIABLES,
    RawRetention::VARIABLES,
    RawRetry::VARIABLES,
    RawSite::VARIABLES,
    RawWebhooks::VARIABLES,
    RawWp::VARIABLES,
];

/// The variables that are arguments of the programs.
const ARGUMENTS: &[&str] = &["CDM_CACERT", "CDM_CONFIG", "CDM_SERVER", "CDM_TOKEN_FILE"];

/// Returns whether a program of CDM reads a variable: a setting, an argument, or a secret whose file is one of these.
fn is_known(name: &str) -> bool {
    let is_listed =
        |name: &str| ARGUMENTS.contains(&name) || SETTINGS.iter().any(|table| table.contains(&name));
    is_listed(name) || is_listed(&format!("{name}{FILE}"))
}

/// Returns the names that begin with `CDM_` and have no meaning, sorted: misspelled variables, and variables that only an
/// earlier version read. Variables that Kubernetes sets for a Service named `cdm`, and variables of tests, are not
/// returned.
pub fn unknown_variables(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let is_of_tests = |name: &str| name.starts_with("CDM_TEST_");
    let unknown = |name: &String| {
        name.starts_with("CDM_") && !is_known(name) && !is_of_service(name) && !is_of_tests(name)
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
