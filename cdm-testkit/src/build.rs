//! Records as tests want them: whole, valid and the same every time, so that a test says only what it is about.

use cdm_core::domain::operation::Position;
use cdm_core::domain::rollout::{Budget, RolloutMember, RolloutPage};
use cdm_core::domain::site::Activation;
use cdm_core::domain::{
    Actor, ClaimToken, Color, Hostnames, OperationInput, OperationState, Phase, Rollout, RolloutKind,
    RolloutScope, Site, SiteId, SiteName, Status, Theme, Timestamp, Uid,
};
use cdm_core::pipelines::NewRollout;

/// When every built record was made.
pub const BORN: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// An active site on blue, without a route and without an operation, served at `<id>.example.org`. Its version is 0:
/// it was never written. Its uid follows from the id.
///
/// # Panics
/// When `id` is no site id.
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
        created_at: BORN,
        updated_at: BORN,
        version: 0,
    }
}

/// The uid that [`site`] gives the site `id`.
pub fn uid(id: &str) -> Uid {
    // FNV-1a, 128 bits wide: https://datatracker.ietf.org/doc/html/draft-eastlake-fnv
    let hash = id.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash: u128, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    Uid::from_parts(BORN.millis(), hash)
}

/// Who asks for everything that is built here.
///
/// # Panics
/// Never: the name keeps the rules.
pub fn actor() -> Actor {
    parsed(Actor::parse("tester"))
}

/// Operation `number`, queued, at the first step of version 1 of its pipeline.
pub fn operation(number: u64, input: OperationInput) -> OperationState {
    OperationState {
        number,
        input,
        pipeline: 1,
        epoch: 0,
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
        created_at: BORN,
        started_at: None,
    }
}

/// Rollout `number` of `total` sites to `target` in one wave, accepted, with no window granted yet. Its members' operation
/// numbers begin after its own.
pub fn rollout(number: u64, kind: RolloutKind, target: Color, total: u32) -> Rollout {
    let member = RolloutMember::new(parsed(SiteId::parse("any")), Uid::from_parts(0, 0));
    let draft = NewRollout {
        number,
        kind,
        target,
        digest: None,
        scope: RolloutScope::All,
        members: vec![member; total as usize],
        waves: Vec::new(),
        max_concurrent: 8,
        budget: Budget::Count(0),
        auto_rollback: false,
        gate: None,
        bake: std::time::Duration::ZERO,
        after: None,
        retry_of: None,
        first_number: number + 1,
        requested_by: actor(),
        now: BORN,
    };
    parsed(draft.head())
}

/// Page `page` of the frozen list of rollout `number`: these sites, none with an outcome.
pub fn page(number: u64, page: u32, sites: &[Site]) -> RolloutPage {
    let member = |site: &Site| RolloutMember::new(site.id.clone(), site.uid);
    RolloutPage { rollout: number, page, members: sites.iter().map(member).collect() }
}

fn parsed<T>(result: Result<T, cdm_core::domain::NameError>) -> T {
    result.unwrap_or_else(|broken| panic!("a test builds with a name that is none: {broken}"))
}
