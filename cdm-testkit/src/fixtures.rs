//! Deterministic, valid records for tests. A test changes only the fields that it is about.

use cdm_core::domain::operation::Position;
use cdm_core::domain::rollout::{RolloutMember, RolloutPage, RolloutSpec};
use cdm_core::domain::site::Activation;
use cdm_core::domain::{
    Actor, ClaimToken, Color, Epoch, Hostnames, OperationInput, OperationState, Phase, Rollout, RolloutKind,
    RolloutScope, Site, SiteId, SiteName, Status, Theme, Timestamp, Uid,
};
use cdm_core::pipelines::NewRollout;

/// Time at which each fixture was created: 1,700,000,000,000 ms after the Unix epoch.
pub const CREATED_AT: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Returns an active site on blue without a route or an operation, served at `<id>.example.org`. The version is
/// 0: the site was never written. The uid is derived from the id.
///
/// # Panics
/// Panics if `id` is not a valid site id.
pub fn site(id: &str) -> Site {
    let host = format!("{id}.example.org");
    Site {
        id: parsed(SiteId::parse(id)),
        uid: uid(id),
        name: parsed(SiteName::parse(&format!("Site {id}"))),
        theme: parsed(Theme::parse("plain")),
        hostnames: parsed(Hostnames::parse(&[&host], &host)),
        service: Color::Blue,
        route: None,
        phase: Phase::Active,
        operation: None,
        claim_token: ClaimToken::default(),
        last_outcome: None,
        activation: Activation::Ever,
        created_at: CREATED_AT,
        updated_at: CREATED_AT,
        version: 0,
    }
}

/// Returns the uid that [`site`] assigns to the site `id`.
pub fn uid(id: &str) -> Uid {
    // FNV-1a, 128 bits wide: https://datatracker.ietf.org/doc/html/draft-eastlake-fnv
    let hash = id.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash: u128, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    Uid::from_parts(CREATED_AT.millis(), hash)
}

/// Returns the actor that requested everything in this module.
///
/// # Panics
/// Never panics: the name is valid.
pub fn actor() -> Actor {
    parsed(Actor::parse("tester"))
}

/// Returns operation `number`: queued, at the first step of version 1 of its pipeline.
pub fn operation(number: u64, input: OperationInput) -> OperationState {
    OperationState {
        number,
        input,
        pipeline: 1,
        epoch: Epoch::ZERO,
        owner: None,
        status: Status::Queued,
        position: Position::Forward(0),
        attempts: 0,
        job: 1,
        next_poll_at: None,
        waiting_since: None,
        trouble_since: None,
        reason: None,
        cancel: false,
        locked_color: None,
        member: None,
        steps: Vec::new(),
        requested_by: actor(),
        retry_of: None,
        created_at: CREATED_AT,
        started_at: None,
    }
}

/// Returns rollout `number` of `total` sites to `target`: one wave, accepted, no window granted yet. The
/// operation numbers of its members begin at `number + 1`.
pub fn rollout(number: u64, kind: RolloutKind, target: Color, total: u32) -> Rollout {
    let member = RolloutMember::new(parsed(SiteId::parse("any")), Uid::from_parts(0, 0));
    let draft = NewRollout {
        number,
        spec: RolloutSpec { kind, scope: RolloutScope::All, max_concurrent: 8, ..RolloutSpec::default() },
        target,
        members: vec![member; total as usize],
        after: None,
        retry_of: None,
        first_number: number + 1,
        requested_by: actor(),
        now: CREATED_AT,
    };
    parsed(draft.record())
}

/// Returns page `page` of the frozen member list of rollout `number`, with these sites and without outcomes.
pub fn page(number: u64, page: u32, sites: &[Site]) -> RolloutPage {
    let member = |site: &Site| RolloutMember::new(site.id.clone(), site.uid);
    RolloutPage { rollout: number, page, members: sites.iter().map(member).collect() }
}

fn parsed<T>(result: Result<T, cdm_core::domain::NameError>) -> T {
    result.unwrap_or_else(|broken| panic!("a fixture has an invalid name: {broken}"))
}
