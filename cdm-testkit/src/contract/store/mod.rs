//! Guarantees of a store: writes are all or nothing, applied once, and rejected if outdated.

mod claims;
mod env;
mod lists;
mod records;

use cdm_core::ports::Store;

use super::SuiteContext;

pub use claims::{
    a_claim_is_rejected, a_claim_takes_a_site, a_settled_site_reports_its_outcome,
    a_take_over_fences_the_lost_owner, recovery_fences_off_a_lost_owner,
};
pub use lists::{
    allocated_numbers_are_unique, audit_is_newest_first, events_are_oldest_first,
    heartbeats_are_listed_until_the_worker_stops, old_entries_are_deleted,
    operations_are_listed_newest_first, pending_work_lists_operations, pending_work_lists_rollouts,
    search_ignores_case_and_spelling, sites_are_listed_by_id,
};
pub use records::{
    a_batch_is_all_or_nothing, a_hostname_has_one_owner, a_repeated_removal_is_applied,
    a_repeated_write_is_written_once, an_id_has_one_site, an_idempotency_key_expires,
    an_idempotency_key_is_used_once, an_old_version_is_rejected, another_incarnation_is_rejected,
    concurrent_creations_have_one_winner, creation_claims_hostnames, ids_are_not_matched_by_prefix,
    removal_frees_names, rollouts_keep_their_pages, shared_records_carry_versions, users_are_one_record,
    webhooks_are_one_record,
};

/// Tests every guarantee below, one after the other.
///
/// # Panics
/// Panics with the broken guarantee.
pub async fn suite(store: &dyn Store, cx: &SuiteContext<'_>) {
    // Runs first: older entries of other tests would be deleted before its own.
    old_entries_are_deleted(store, cx).await;
    creation_claims_hostnames(store, cx).await;
    a_hostname_has_one_owner(store, cx).await;
    an_id_has_one_site(store, cx).await;
    concurrent_creations_have_one_winner(store, cx).await;
    an_old_version_is_rejected(store, cx).await;
    another_incarnation_is_rejected(store, cx).await;
    a_batch_is_all_or_nothing(store, cx).await;
    a_repeated_write_is_written_once(store, cx).await;
    a_repeated_removal_is_applied(store, cx).await;
    ids_are_not_matched_by_prefix(store, cx).await;
    removal_frees_names(store, cx).await;
    a_claim_takes_a_site(store, cx).await;
    a_take_over_fences_the_lost_owner(store, cx).await;
    a_claim_is_rejected(store, cx).await;
    a_settled_site_reports_its_outcome(store, cx).await;
    recovery_fences_off_a_lost_owner(store, cx).await;
    shared_records_carry_versions(store, cx).await;
    webhooks_are_one_record(store, cx).await;
    users_are_one_record(store, cx).await;
    rollouts_keep_their_pages(store, cx).await;
    pending_work_lists_operations(store, cx).await;
    pending_work_lists_rollouts(store, cx).await;
    operations_are_listed_newest_first(store, cx).await;
    allocated_numbers_are_unique(store, cx).await;
    an_idempotency_key_is_used_once(store, cx).await;
    an_idempotency_key_expires(store, cx).await;
    sites_are_listed_by_id(store, cx).await;
    audit_is_newest_first(store, cx).await;
    search_ignores_case_and_spelling(store, cx).await;
    events_are_oldest_first(store, cx).await;
    heartbeats_are_listed_until_the_worker_stops(store, cx).await;
}
