//! A site as an item. What the WordPress image reads, and what a claim changes, are attributes of their own.
//!
//! The attributes that `docs/tenant-contract.md` names are public; the others are not.

use aws_sdk_dynamodb::types::AttributeValue;

use super::item::{Item, Key, Read, document, list_work, number, put, site_list, text, written_by};
use crate::domain::operation::{Move, OperationInput};
use crate::domain::{
    ClaimToken, Color, DatabaseName, Direction, Fence, Hostname, Hostnames, Phase, Routed, SecretKind,
    SecretName, Site, SiteId, SiteName, Theme, Timestamp, Uid,
    site::{Activation, LastOutcome},
};
use crate::ports::{StoreError, WriteId};

/// The version of the contract with the image that items are written to.
const CONTRACT: u64 = 1;

/// The item of a site as it shall be, with the version that its field says.
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
    with("phase", text(phase_word(site.phase)));
    if let Some(word) = activation_word(site.activation) {
        with("activation", text(word));
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
        with("epoch", number(operation.epoch));
    }
    list_work(&mut item, site.operation.as_ref());
    Ok(item)
}

/// The site of an item.
pub(super) fn of_item(item: &Item) -> Result<Site, StoreError> {
    let read = Read(item);
    let route = match read.text_if("routeService") {
        None => None,
        Some(_) => Some(Routed {
            service: read.parsed("routeService", |text| Color::parse(text).ok())?,
            fence: Fence::new(read.number("routeNumber")?, read.number("routeEpoch")?),
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
        hostnames: names.map_err(|_| read.broken("hostnames"))?,
        service: read.parsed("service", |text| Color::parse(text).ok())?,
        route,
        phase: read.parsed("phase", phase_of)?,
        activation: activation_of(read.text_if("activation")),
        operation,
        claim_token: read.parsed("grant", grant_of)?,
        last_outcome: read.document_if::<LastOutcome>("settled")?,
        created_at: Timestamp::from_millis(read.number("createdAt")?),
        updated_at: Timestamp::from_millis(read.number("updatedAt")?),
        version: read.number("version")?,
    })
}

/// The item by which the image finds a hostname's site.
pub(super) fn host_item(host: &Hostname, site: &SiteId) -> Item {
    let mut item = Key::host(host).item();
    put(&mut item, "site", text(site.as_str()));
    put(&mut item, "contract", number(CONTRACT));
    item
}

pub(super) fn hostnames(names: &Hostnames) -> AttributeValue {
    AttributeValue::L(names.all().iter().map(|host| text(host.as_str())).collect())
}

/// What a confirmed route is kept as.
pub(super) fn route(route: &Routed) -> [(&'static str, AttributeValue); 4] {
    [
        ("routedService", text(route.service.as_str())),
        ("routeService", text(route.service.as_str())),
        ("routeNumber", number(route.fence.number)),
        ("routeEpoch", number(route.fence.epoch)),
    ]
}

/// A grant as a text that sorts like it: rollout, leg, term.
pub(super) fn claim_token(claim_token: &ClaimToken) -> AttributeValue {
    text(format!("{:020}.{}.{:020}", claim_token.rollout, leg_digit(claim_token.direction), claim_token.term))
}

/// One leg of a rollout.
pub(super) fn direction(rollout: u64, direction: Direction) -> AttributeValue {
    text(format!("{rollout}.{}", leg_digit(direction)))
}

pub(super) const fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::New => "new",
        Phase::Created => "created",
        Phase::Active => "active",
    }
}

/// Items of before do not say.
const fn activation_word(activation: Activation) -> Option<&'static str> {
    match activation {
        Activation::Never => Some("never"),
        Activation::Ever => Some("ever"),
        Activation::Unrecorded => None,
    }
}

/// A word of another version is taken for the safe one: nothing of such a site is made anew.
fn activation_of(word: Option<&str>) -> Activation {
    match word {
        None => Activation::Unrecorded,
        Some("never") => Activation::Never,
        Some(_) => Activation::Ever,
    }
}

fn phase_of(word: &str) -> Option<Phase> {
    [Phase::New, Phase::Created, Phase::Active].into_iter().find(|phase| phase_word(*phase) == word)
}

const fn leg_digit(direction: Direction) -> u8 {
    match direction {
        Direction::Forward => 0,
        Direction::Rollback => 1,
    }
}

fn grant_of(text: &str) -> Option<ClaimToken> {
    let mut parts = text.splitn(3, '.');
    let rollout = parts.next()?.parse().ok()?;
    let direction = [Direction::Forward, Direction::Rollback].into_iter().zip(["0", "1"]);
    let digit = parts.next()?;
    let direction =
        direction.into_iter().find(|(_, known)| *known == digit).map(|(direction, _)| direction)?;
    Some(ClaimToken { rollout, direction, term: parts.next()?.parse().ok()? })
}

fn map<const N: usize>(entries: [(&str, String); N]) -> AttributeValue {
    AttributeValue::M(entries.into_iter().map(|(name, value)| (name.to_owned(), text(value))).collect())
}
