//! What a store has to show: that it writes all or nothing, each write once, and nothing that is out of date.

mod claims;
mod lists;
mod records;
mod scene;

use cdm_core::ports::Store;

use super::Cx;

pub use claims::{
    a_claim_is_refused, a_claim_takes_a_site, a_settled_site_says_so, a_take_over_fences_the_lost_owner,
    settling_keeps_a_lost_owner_out,
};
pub use lists::{
    audit_is_newest_first, beats_are_listed_until_they_stop, events_are_oldest_first, live_lists_rollouts,
    live_lists_what_is_to_be_done, numbers_never_repeat, old_entries_are_deleted,
    operations_are_listed_newest_first, search_ignores_case_and_spelling, sites_come_in_order,
};
pub use records::{
    a_batch_is_all_or_nothing, a_hostname_has_one_owner, a_key_is_used_once, a_repeated_removal_is_applied,
    a_repeated_write_is_written_once, an_id_has_one_site, an_old_key_is_forgotten, an_old_version_is_refused,
    another_incarnation_is_refused, concurrent_creations_have_one_winner, creation_claims_hostnames,
    names_are_no_prefixes, removal_frees_names, rollouts_keep_their_pages, shared_records_carry_versions,
    users_are_one_record, webhooks_are_one_record,
};

/// Everything below, one after the other.
///
/// # Panics
/// With the broken promise.
pub async fn suite(store: &dyn Store, cx: &Cx<'_>) {
    // First of all: entries of the others would lie before its own.
    old_entries_are_deleted(store, cx).await;
    creation_claims_hostnames(store, cx).await;
    a_hostname_has_one_owner(store, cx).await;
    an_id_has_one_site(store, cx).await;
    concurrent_creations_have_one_winner(store, cx).await;
    an_old_version_is_refused(store, cx).await;
    another_incarnation_is_refused(store, cx).await;
    a_batch_is_all_or_nothing(store, cx).await;
    a_repeated_write_is_written_once(store, cx).await;
    a_repeated_removal_is_applied(store, cx).await;
    names_are_no_prefixes(store, cx).await;
    removal_frees_names(store, cx).await;
    a_claim_takes_a_site(store, cx).await;
    a_take_over_fences_the_lost_owner(store, cx).await;
    a_claim_is_refused(store, cx).await;
    a_settled_site_says_so(store, cx).await;
    settling_keeps_a_lost_owner_out(store, cx).await;
    shared_records_carry_versions(store, cx).await;
    webhooks_are_one_record(store, cx).await;
    users_are_one_record(store, cx).await;
    rollouts_keep_their_pages(store, cx).await;
    live_lists_what_is_to_be_done(store, cx).await;
    live_lists_rollouts(store, cx).await;
    operations_are_listed_newest_first(store, cx).await;
    numbers_never_repeat(store, cx).await;
    a_key_is_used_once(store, cx).await;
    an_old_key_is_forgotten(store, cx).await;
    sites_come_in_order(store, cx).await;
    audit_is_newest_first(store, cx).await;
    search_ignores_case_and_spelling(store, cx).await;
    events_are_oldest_first(store, cx).await;
    beats_are_listed_until_they_stop(store, cx).await;
}
