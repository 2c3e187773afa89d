//! The example programs run to their end, and every claim holds.

use cdm_examples::{crash, lifecycle};

#[test]
fn a_custom_cluster_serves_the_lifecycle_of_a_site() {
    let mut output = Vec::new();
    lifecycle::run(&mut output).unwrap_or_else(|error| panic!("{error}"));
    let output = String::from_utf8(output).expect("text");
    assert!(output.contains("yes: it has no route and no job"), "{output}");
    assert!(!output.contains("NO:"), "{output}");
}

#[test]
fn a_provision_is_resumed_wherever_its_worker_dies() {
    let mut output = Vec::new();
    crash::run(&mut output).unwrap_or_else(|error| panic!("{error}"));
    let output = String::from_utf8(output).expect("text");
    for step in ["CreateDatabase", "CreateObjects", "Install", "Ingress", "ActivateTheme"] {
        assert!(output.lines().any(|line| line.starts_with(step)), "no kill in {step}:\n{output}");
    }
}
