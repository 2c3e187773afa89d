//! The programs come to their end with every claim kept.

use cdm_examples::{crash, life};

#[test]
fn a_cluster_of_ones_own_carries_a_sites_whole_life() {
    let mut told = Vec::new();
    life::play(&mut told).unwrap_or_else(|error| panic!("{error}"));
    let told = String::from_utf8(told).expect("text");
    assert!(told.contains("yes: neither a route nor a job of it is left"), "{told}");
    assert!(!told.contains("NO:"), "{told}");
}

#[test]
fn a_provision_goes_on_wherever_its_worker_dies() {
    let mut told = Vec::new();
    crash::play(&mut told).unwrap_or_else(|error| panic!("{error}"));
    let told = String::from_utf8(told).expect("text");
    for step in ["CreateDatabase", "CreateObjects", "Install", "Ingress", "ActivateTheme"] {
        assert!(told.lines().any(|line| line.starts_with(step)), "no kill in {step}:\n{told}");
    }
}
