//! A site as an item. What the WordPress image reads and what a claim changes are separate attributes.
//!
//! The attributes that `docs/tenant-contract.md` names are public; the others are not.

use aws_sdk_dynamodb::types::AttributeValue;

use super::item::{Item, ItemReader, Key, document, list_work, number, put, site_list, text, written_by};
use crate::domain::operation::{Move, OperationInput};
use crate::domain::{
    ClaimToken, Color, DatabaseName, Direction, Epoch, Fence, Hostname, Hostnames, Phase, Routed, SecretKind,
    SecretName, Site, SiteId, SiteName, Term, Theme, Timestamp, Uid,
    site::{Activation, LastOutcome},
};
use crate::ports::{StoreError, WriteId};

/// The version of the tenant contract that items are written for.
const CONTRACT: u64 = 1;

/// Converts a site to an item, with the version in its field.
pub(super) fn to_item(site: &Site, write: WriteId) -> Result<Item, StoreError> {
    let mut item = Key::site(&site.id).item();
    let mut with = |name: &str, value| put(&mut item, name, value);
    with("contract", number(CONTRACT));
    with("id", text(site.id.as_str()));
    with("uid", text(site.uid.to_string()));
    with("name", text(site.name.as_str()));
    with("theme", text(site.theme.as_str()));
    with("service", text(site.service.as_str()));
    with("hostnames", hostnames(&site.hostnames));
    with("canonicalHostname", text(site.hostnames.canonical().as_str()));
    with("state", text(site.state().as_str()));
    with("database", map([("name", DatabaseName::of(site.uid).to_string())]));
    let secret = |kind| SecretName { uid: site.uid, kind }.to_string();
    with("secrets", map([("database", secret(SecretKind::Database)), ("cms", secret(SecretKind::Cms))]));
    with("objectPrefix", text(site.prefix().to_string()));
    with("version", number(site.version));
    with("routedService", AttributeValue::Null(true));
    for (name, value) in site.route.iter().flat_map(route) {
        with(name, value);
    }
    with("phase", text(phase_text(site.phase)));
    if let Some(value) = activation_text(site.activation) {
        with("activation", text(value));
    }
    with("grant", claim_token(&site.claim_token));
    if let Some(last_outcome) = &site.last_outcome {
        with("settled", document(last_outcome)?);
        with("settledBy", direction(last_outcome.rollout, last_outcome.direction));
    }
    with("createdAt", number(site.created_at.millis()));
    with("updatedAt", number(site.updated_at.millis()));
    with("write", written_by(write));
    with("list", text(site_list(&site.id)));
    if let Some(operation) = &site.operation {
        with("slot", document(operation)?);
        with("number", number(operation.number));
        with("epoch", number(operation.epoch.0));
    }
    list_work(&mut item, site.operation.as_ref());
    Ok(item)
}

/// Converts an item to a site.
pub(super) fn from_item(item: &Item) -> Result<Site, StoreError> {
    let read = ItemReader(item);
    let route = match read.text_if("routeService") {
        None => None,
        Some(_) => Some(Routed {
            service: read.parsed("routeService", |text| Color::parse(text).ok())?,
            fence: Fence::new(read.number("routeNumber")?, Epoch(read.number("routeEpoch")?)),
        }),
    };
    let mut operation: Option<crate::domain::OperationState> = read.document_if("slot")?;
    if let Some(OperationInput::Upgrade(course) | OperationInput::Promote(course)) =
        operation.as_mut().map(|operation| &mut operation.input)
        && read.text_if("courseFrom").is_some()
    {
        *course = Move {
            from: read.parsed("courseFrom", |text| Color::parse(text).ok())?,
            to: course.to,
            routed: read.parsed("courseRouted", |text| Color::parse(text).ok())?,
        };
    }
    let names = Hostnames::parse(&read.list("hostnames")?, read.text("canonicalHostname")?);
    Ok(Site {
        id: read.parsed("id", |text| SiteId::parse(text).ok())?,
        uid: read.parsed("uid", |text| Uid::parse(text).ok())?,
        name: read.parsed("name", |text| SiteName::parse(text).ok())?,
        theme: read.parsed("theme", |text| Theme::parse(text).ok())?,
        hostnames: names.map_err(|_| read.invalid_attribute("hostnames"))?,
        service: read.parsed("service", |text| Color::parse(text).ok())?,
        route,
        phase: read.parsed("phase", phase_of)?,
        activation: activation_of(read.text_if("activation")),
        operation,
        claim_token: read.parsed("grant", parse_claim_token)?,
        last_outcome: read.document_if::<LastOutcome>("settled")?,
        created_at: Timestamp::from_millis(read.number("createdAt")?),
        updated_at: Timestamp::from_millis(read.number("updatedAt")?),
        version: read.number("version")?,
    })
}

/// Returns the item that maps a hostname to its site, for the WordPress image.
pub(super) fn host_item(host: &Hostname, site: &SiteId) -> Item {
    let mut item = Key::host(host).item();
    put(&mut item, "site", text(site.as_str()));
    put(&mut item, "contract", number(CONTRACT));
    item
}

pub(super) fn hostnames(names: &Hostnames) -> AttributeValue {
    AttributeValue::L(names.all().iter().map(|host| text(host.as_str())).collect())
}

/// Returns the attributes of a confirmed route.
pub(super) fn route(route: &Routed) -> [(&'static str, AttributeValue); 4] {
    [
        ("routedService", text(route.service.as_str())),
        ("routeService", text(route.service.as_str())),
        ("routeNumber", number(route.fence.number)),
        ("routeEpoch", number(route.fence.epoch.0)),
    ]
}

/// Returns a claim token as text in the order of claim tokens: rollout, direction, term.
pub(super) fn claim_token(claim_token: &ClaimToken) -> AttributeValue {
    text(format!(
        "{:020}.{}.{:020}",
        claim_token.rollout,
        direction_digit(claim_token.direction),
        claim_token.term.0
    ))
}

/// Returns one direction of a rollout.
pub(super) fn direction(rollout: u64, direction: Direction) -> AttributeValue {
    text(format!("{rollout}.{}", direction_digit(direction)))
}

pub(super) const fn phase_text(phase: Phase) -> &'static str {
    match phase {
        Phase::New => "new",
        Phase::Created => "created",
        Phase::Active => "active",
    }
}

/// Returns the stored value; `None` for sites of older versions, which did not store it.
const fn activation_text(activation: Activation) -> Option<&'static str> {
    match activation {
        Activation::Never => Some("never"),
        Activation::Ever => Some("ever"),
        Activation::Unrecorded => None,
    }
}

/// A value of a newer version is read as the safe one: nothing is created for such a site a second time.
fn activation_of(value: Option<&str>) -> Activation {
    match value {
        None => Activation::Unrecorded,
        Some("never") => Activation::Never,
        Some(_) => Activation::Ever,
    }
}

fn phase_of(value: &str) -> Option<Phase> {
    [Phase::New, Phase::Created, Phase::Active].into_iter().find(|phase| phase_text(*phase) == value)
}

const fn direction_digit(direction: Direction) -> u8 {
    match direction {
        Direction::Forward => 0,
        Direction::Rollback => 1,
    }
}

fn parse_claim_token(text: &str) -> Option<ClaimToken> {
    let mut parts = text.splitn(3, '.');
    let rollout = parts.next()?.parse().ok()?;
    let direction = [Direction::Forward, Direction::Rollback].into_iter().zip(["0", "1"]);
    let digit = parts.next()?;
    let direction =
        direction.into_iter().find(|(_, known)| *known == digit).map(|(direction, _)| direction)?;
    Some(ClaimToken { rollout, direction, term: Term(parts.next()?.parse().ok()?) })
}

fn map<const N: usize>(entries: [(&str, String); N]) -> AttributeValue {
    AttributeValue::M(entries.into_iter().map(|(name, value)| (name.to_owned(), text(value))).collect())
}
