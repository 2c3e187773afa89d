//! The role campaign: every role asks every route, and, where the role depends on what is stored, every kind of stored
//! thing in every status. What is expected is stated here by itself, from what the documents promise, and read from
//! nothing that decides.

use std::num::NonZeroU32;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use cdm_core::domain::operation::{Deploy, Hooks, Move};
use cdm_core::domain::rollout::{MemberOutcome, RolloutMember, RolloutPage};
use cdm_core::domain::token::Role;
use cdm_core::domain::{
    Actor, Color, Digest, Fleet, Operation, OperationId, OperationInput, OperationKind, OperationState,
    Phase, Rollout, RolloutKind, RolloutStatus, Site, Status, Subject, TerminalStatus, Uid,
};
use cdm_core::ports::{CallContext, Mutation, Outcome, WriteBatch};
use cdm_http::{HttpSettings, ROUTES};
use cdm_testkit::build;
use http_body_util::BodyExt;
use tower::ServiceExt;

use crate::console::{Browser, sign_in};
use crate::support::{Bed, digest, new_site};

/// How somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Over HTTP, with a token.
    Rest,
    /// By a page or a form of the console, signed in.
    Console,
    /// In the process itself, as `cdm --local` does.
    Local,
}

const WAYS: [Way; 3] = [Way::Rest, Way::Console, Way::Local];
/// Nobody, and each role.
const ASKING: [Option<Role>; 4] = [None, Some(Role::Viewer), Some(Role::Operator), Some(Role::Admin)];

const STATUSES: [Status; 7] = [
    Status::Queued,
    Status::Running,
    Status::Waiting,
    Status::Parked,
    Status::Ended(TerminalStatus::Succeeded),
    Status::Ended(TerminalStatus::Failed),
    Status::Ended(TerminalStatus::Cancelled),
];

/// What somebody was answered.
struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

/// What has to come of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// Whatever the route answers those who may ask.
    Allowed,
    /// 403, and the role that it takes is named.
    Forbidden(Role),
    /// 401, or in the console the way to the sign-in.
    Unknown,
}

/// The rule of all routes: a role may do what the one below it may.
fn expected(has: Option<Role>, needed: Option<Role>) -> Expected {
    match (has, needed) {
        (_, None) => Expected::Allowed,
        (None, Some(_)) => Expected::Unknown,
        (Some(has), Some(needed)) if has >= needed => Expected::Allowed,
        (Some(_), Some(needed)) => Expected::Forbidden(needed),
    }
}

/// The least role of a route of the REST API, in words: everybody with a token reads, but tokens, users and webhooks are
/// for administrators alone; whatever removes is theirs, and so are services and freezes; the rest is an operator's.
fn of_rest(method: &str, path: &str) -> Option<Role> {
    let first = path.split('/').nth(1).unwrap_or_default();
    Some(match (method, first) {
        (_, "healthz" | "readyz" | "openapi.json") => return None,
        (_, "tokens" | "users" | "webhooks") => Role::Admin,
        ("GET", _) => Role::Viewer,
        ("PUT", "services") => Role::Operator,
        ("DELETE", _) | (_, "services" | "freezes") => Role::Admin,
        _ => Role::Operator,
    })
}

/// The same of a page or a form: each asks for what it leads to.
fn of_console(path: &str) -> Option<Role> {
    let mut parts = path.split('/').skip(2);
    let (section, last) = (parts.next().unwrap_or_default(), path.rsplit('/').next().unwrap_or_default());
    Some(match (section, last) {
        _ if path == "/" => return None,
        ("sign-in" | "setup" | "oidc" | "assets", _) => return None,
        ("services", "select" | "deploy" | "rollback") => Role::Admin,
        ("services", _) if path.contains("/mark/") => Role::Admin,
        ("sites", "terminate") => Role::Admin,
        ("sites", "create" | "provision" | "promote" | "upgrade") => Role::Operator,
        ("rollouts", "start" | "pause" | "resume" | "abort" | "retry") => Role::Operator,
        ("operations", "retry" | "cancel") => Role::Operator,
        _ => Role::Viewer,
    })
}

/// The least role that begins, repeats or stops an operation of a kind.
const fn of_kind(kind: OperationKind) -> Role {
    match kind {
        OperationKind::Create
        | OperationKind::Provision
        | OperationKind::Upgrade
        | OperationKind::Promote => Role::Operator,
        OperationKind::Terminate | OperationKind::Deploy | OperationKind::Select => Role::Admin,
    }
}

/// What is asked, whom it is asked of, and what came of it.
struct Campaign {
    bed: Bed,
    local: Vec<(Role, Router)>,
    browsers: Vec<(Role, Browser)>,
    number: u64,
    runs: u32,
    refused: u32,
    failures: Vec<String>,
    /// What the last request was answered.
    last: String,
}

impl Campaign {
    async fn new() -> Self {
        let most = NonZeroU32::MAX;
        let settings = HttpSettings { rate: most, burst: most, failures: most, ..HttpSettings::default() };
        let bed = Bed::idle(settings).await;
        let caller = |role: Role| Actor::parse(&format!("local-{role}")).expect("a name");
        let local = Role::ALL
            .map(|role| (role, cdm_http::local_router(bed.app.clone(), caller(role), role)))
            .into_iter()
            .collect();
        let mut campaign = Self {
            bed,
            local,
            browsers: Vec::new(),
            number: 1_000,
            runs: 0,
            refused: 0,
            failures: Vec::new(),
            last: String::new(),
        };
        campaign.sign_in().await;
        campaign
    }

    async fn sign_in(&mut self) {
        self.browsers.clear();
        for role in Role::ALL {
            self.number += 1;
            let name = format!("{role}-{}", self.number);
            self.browsers.push((role, sign_in(&self.bed, &name, role).await));
        }
    }

    /// A number that nothing has.
    fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    async fn ask(&self, way: Way, role: Option<Role>, line: &str, body: &str) -> Answered {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let mut request = Request::builder().method(method).uri(path);
        let mut router = &self.bed.router;
        let mut sent = body.to_owned();
        match way {
            Way::Rest => {
                if let Some(role) = role {
                    request = request.header("authorization", format!("Bearer {}", self.bed.token(role)));
                }
            }
            Way::Local => {
                let role = role.expect("a caller of this process has a role");
                router = &self.local.iter().find(|(of, _)| *of == role).expect("a router").1;
            }
            Way::Console => {
                request = request.header("host", "127.0.0.1:8080").header("sec-fetch-site", "same-origin");
                if let Some(role) = role {
                    let browser = &self.browsers.iter().find(|(of, _)| *of == role).expect("a browser").1;
                    request = request.header("cookie", &browser.cookie);
                    sent = format!("csrf={}&{body}", browser.csrf);
                }
            }
        }
        if way == Way::Console && method == "POST" {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        } else if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let sent = if method == "GET" { String::new() } else { sent };
        let request = request.body(Body::from(sent)).expect("a request");
        let response = router.clone().oneshot(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        // A stream has no end.
        let text = if parts.status == StatusCode::OK {
            String::new()
        } else {
            String::from_utf8_lossy(&body.collect().await.expect("a body").to_bytes()).into_owned()
        };
        Answered { status: parts.status, headers: parts.headers, text }
    }

    /// Asks, and judges the answer; whether it was allowed.
    async fn run(
        &mut self,
        (way, role): (Way, Option<Role>),
        line: &str,
        body: &str,
        expected: Expected,
        what: &str,
    ) -> bool {
        let answer = self.ask(way, role, line, body).await;
        self.runs += 1;
        self.last = format!("{} {}", answer.status, answer.text.chars().take(2_000).collect::<String>());
        let status = answer.status.as_u16();
        let to_sign_in = status == 303
            && answer
                .headers
                .get("location")
                .is_some_and(|to| to.as_bytes().starts_with(b"/console/sign-in"));
        let got = match status {
            401 => Expected::Unknown,
            // Signing in that has to begin again, and signing out, lead there too.
            303 if to_sign_in
                && !line.contains("/console/sign-in")
                && (role.is_none() || !line.ends_with("/sign-out")) =>
            {
                Expected::Unknown
            }
            403 => {
                let named =
                    Role::ALL.into_iter().find(|role| answer.text.contains(&format!("the role `{role}`")));
                Expected::Forbidden(named.unwrap_or(Role::Viewer))
            }
            _ => Expected::Allowed,
        };
        self.refused += u32::from(got != Expected::Allowed);
        // Hashing a password takes real time, while the clock of the tests moves on: its request may run out of its own.
        let broken =
            status >= 500 && !(status == 503 && line.contains("password") || line.contains("sign-in"));
        if got != expected || broken {
            self.failures.push(format!(
                "{what} {line} by {way:?} as {}: {status} {got:?}, not {expected:?}: {}",
                role.map_or("nobody", Role::as_str),
                answer.text.chars().take(200).collect::<String>()
            ));
        }
        got == Expected::Allowed
    }

    async fn write(&self, writes: Vec<Mutation>) {
        let call = CallContext {
            deadline: self.bed.ports.clock.monotonic().after(std::time::Duration::from_secs(5)),
            write: self.bed.ports.entropy.write(),
            fence: cdm_core::domain::Fence::default(),
        };
        let written = self.bed.ports.store.write(&call, &WriteBatch::of(writes)).await;
        assert!(matches!(written, Outcome::Applied(())), "the scene is set: {written:?}");
    }

    /// Nothing is at work on a service or on the fleet.
    async fn tidy(&self) {
        let store = &self.bed.ports.store;
        let mut writes = Vec::new();
        for color in Color::ALL {
            let mut service = store.service(color).await.expect("the store answers");
            if service.operation.take().is_some() {
                writes.push(Mutation::Service(Box::new(service)));
            }
        }
        let fleet = store.fleet().await.expect("the store answers");
        if fleet.operation.is_some() || fleet.rollout.is_some() {
            writes.push(Mutation::Fleet(Box::new(Fleet { operation: None, rollout: None, ..fleet })));
        }
        if !writes.is_empty() {
            self.write(writes).await;
        }
    }

    /// Everything that a refused request must leave as it is, in words.
    async fn state(&self, site: Option<&Site>) -> String {
        let store = &self.bed.ports.store;
        let site = match site {
            Some(site) => store.site(&site.id).await.expect("the store answers"),
            None => None,
        };
        let (blue, green) = (store.service(Color::Blue).await, store.service(Color::Green).await);
        format!("{site:?} {blue:?} {green:?} {:?}", store.fleet().await)
    }

    /// Stores an operation of that kind in that status.
    async fn operation(&mut self, kind: OperationKind, status: Status) -> (OperationId, Option<Site>) {
        self.tidy().await;
        let number = self.next();
        let course = Move { from: Color::Blue, to: Color::Green, routed: Color::Blue };
        let input = match kind {
            OperationKind::Create => OperationInput::Create,
            OperationKind::Provision => OperationInput::Provision(Color::Blue),
            OperationKind::Upgrade => OperationInput::Upgrade(course),
            OperationKind::Promote => OperationInput::Promote(course),
            OperationKind::Terminate => OperationInput::Terminate,
            OperationKind::Deploy => OperationInput::Deploy(Box::new(Deploy {
                color: Color::Green,
                digest: image('b'),
                promote: false,
                hooks: Hooks::Run,
                previous: None,
                rollout: None,
                rolls_back: false,
            })),
            OperationKind::Select => OperationInput::Select(Color::Green),
        };
        let current = OperationState { status, ..build::operation(number, input) };
        let site = (!matches!(kind, OperationKind::Deploy | OperationKind::Select)).then(|| {
            let phase = match kind {
                OperationKind::Create => Phase::New,
                OperationKind::Provision => Phase::Created,
                _ => Phase::Active,
            };
            Site { phase, ..build::site(&format!("s{number}")) }
        });
        let subject = match (kind, &site) {
            (_, Some(site)) => Subject::Site(site.id.clone()),
            (OperationKind::Deploy, None) => Subject::Service(Color::Green),
            (_, None) => Subject::Fleet,
        };
        let store = &self.bed.ports.store;
        let ended = matches!(status, Status::Ended(_));
        let mut writes = Vec::new();
        if ended {
            let operation = Operation::live(subject.clone(), current.clone());
            writes
                .push(Mutation::History(Box::new(Operation { finished_at: Some(build::BORN), ..operation })));
        }
        let current = Some(current).filter(|_| !ended);
        match &subject {
            Subject::Site(_) => {
                let site = site.clone().expect("a site");
                writes.push(Mutation::CreateSite(Box::new(Site { operation: current, ..site })));
            }
            Subject::Service(color) if current.is_some() => {
                let mut service = store.service(*color).await.expect("the store answers");
                service.operation = current;
                writes.push(Mutation::Service(Box::new(service)));
            }
            Subject::Fleet if current.is_some() => {
                let fleet = store.fleet().await.expect("the store answers");
                writes.push(Mutation::Fleet(Box::new(Fleet { operation: current, ..fleet })));
            }
            Subject::Service(_) | Subject::Fleet => {}
        }
        self.write(writes).await;
        (OperationId::on(number, subject), site)
    }

    /// Stores a rollout to blue in that status, of that digest, with a site that failed.
    async fn rollout(&mut self, status: RolloutStatus, digest: Option<Digest>) -> u64 {
        self.tidy().await;
        let (number, site) = (self.next(), build::site(&format!("s{}", self.number)));
        self.number += 10;
        let rollout = build::rollout(number, RolloutKind::Promote, Color::Blue, 1);
        let finished_at = status.ended().then_some(build::BORN);
        let rollout = Rollout { status, digest, finished_at, ..rollout };
        let member = RolloutMember {
            outcome: Some(MemberOutcome::Failed),
            ..RolloutMember::new(site.id.clone(), site.uid)
        };
        let page = RolloutPage { rollout: number, page: 0, members: vec![member] };
        self.write(vec![
            Mutation::CreateRollout(Box::new(rollout)),
            Mutation::RolloutPage(page),
            Mutation::CreateSite(Box::new(site)),
        ])
        .await;
        number
    }
}

fn image(letter: char) -> Digest {
    Digest::parse(&digest(letter)).expect("a digest")
}

/// A path of a route, with something in each of its braces.
fn filled(path: &str) -> String {
    path.replace("{digest}", &digest('a'))
        .replace("{color}", "green")
        .replace("/operations/{id}", "/operations/op-1-fleet")
        .replace("/rollouts/{id}", "/rollouts/rollout-1")
        .replace("/freezes/{id}", "/freezes/freeze-1")
        .replace("/webhooks/{id}", "/webhooks/webhook-1")
        .replace("/tokens/{id}", &format!("/tokens/{}", Uid::from_parts(1, 1)))
        .replace("/sessions/{id}", &format!("/sessions/{}", Uid::from_parts(1, 1)))
        .replace("{*rest}", "nothing/like/that")
        .replace("{name}", "nobody")
        .replace(['{', '}'], "")
}

async fn every_route(campaign: &mut Campaign) {
    campaign.bed.ask("POST /sites/create?wait=0", Some(&new_site("id"))).await;
    for route in ROUTES {
        let of_page = route.path == "/" || route.path.starts_with("/console");
        let ways: &[Way] = if of_page { &[Way::Console] } else { &[Way::Rest, Way::Local] };
        let needed = if of_page { of_console(route.path) } else { of_rest(route.method, route.path) };
        for way in ways {
            for role in ASKING {
                if *way == Way::Local && role.is_none() {
                    continue;
                }
                let line = format!("{} {}", route.method, filled(route.path));
                let expected = expected(role, needed);
                campaign.run((*way, role), &line, "", expected, "route").await;
                campaign.tidy().await;
                // Some of these sign people out.
                if route.path == "/console/sign-out" || route.path.starts_with("/console/account/") {
                    campaign.sign_in().await;
                }
            }
        }
    }
}

async fn every_operation(campaign: &mut Campaign) {
    for kind in OperationKind::ALL {
        for status in STATUSES {
            for (word, way, role) in asking(&["retry", "cancel"]) {
                let (id, site) = campaign.operation(kind, status).await;
                let what = format!("{kind} {status}");
                let before = campaign.state(site.as_ref()).await;
                let path = if way == Way::Console { "/console/operations" } else { "/operations" };
                let line = format!("POST {path}/{id}/{word}");
                let expected = match role {
                    // The role of the route is named first.
                    Some(Role::Viewer) => Expected::Forbidden(Role::Operator),
                    role => expected(role, Some(of_kind(kind))),
                };
                let allowed = campaign.run((way, role), &line, "", expected, &what).await;
                if !allowed && campaign.state(site.as_ref()).await != before {
                    campaign.failures.push(format!("{what} {line}: refused, and yet something was changed"));
                }
            }
        }
    }
}

async fn every_rollout(campaign: &mut Campaign) {
    // Blue runs `a`.
    for digest in [None, Some(image('a')), Some(image('b'))] {
        for status in RolloutStatus::ALL {
            for (word, way, role) in asking(&["pause", "resume", "abort", "retry"]) {
                let number = campaign.rollout(status, digest).await;
                let runs = digest != Some(image('b'));
                let what = format!(
                    "{} rollout, whose digest {}",
                    status.as_str(),
                    if runs { "runs" } else { "does not run" }
                );
                let path = if way == Way::Console { "/console/rollouts" } else { "/rollouts" };
                let line = format!("POST {path}/rollout-{number}/{word}");
                let needed = if word == "retry" && !runs { Role::Admin } else { Role::Operator };
                let expected = match role {
                    Some(Role::Viewer) => Expected::Forbidden(Role::Operator),
                    role => expected(role, Some(needed)),
                };
                let before = campaign.state(None).await;
                let allowed = campaign.run((way, role), &line, "", expected, &what).await;
                let store = &campaign.bed.ports.store;
                let deploys =
                    store.service(Color::Blue).await.expect("the store answers").operation.is_some();
                let may_deploy = role == Some(Role::Admin) && word == "retry" && !runs && status.ended();
                if deploys != may_deploy {
                    campaign
                        .failures
                        .push(format!("{what} {line} as {role:?}: deploys: {deploys}: {}", campaign.last));
                }
                if !allowed && campaign.state(None).await != before {
                    campaign.failures.push(format!("{what} {line}: refused, and yet something was changed"));
                }
            }
        }
    }
}

/// A rollout that names an image may deploy it, whatever runs; one that names none deploys nothing.
async fn every_start(campaign: &mut Campaign) {
    for (named, needed) in [(None, Role::Operator), (Some('a'), Role::Admin), (Some('b'), Role::Admin)] {
        for dry in [false, true] {
            for (_, way, role) in asking(&["start"]) {
                campaign.tidy().await;
                let (line, body) = if way == Way::Console {
                    let image =
                        named.map(|letter| format!("&imageTag={}", digest(letter))).unwrap_or_default();
                    let planned = if dry {
                        ""
                    } else {
                        "&planHash=0000000000000000000000000000000000000000000000000000000000000000"
                    };
                    ("POST /console/rollouts/start", format!("promote=true&scope=inactive{image}{planned}"))
                } else {
                    let mut body = serde_json::json!({"promote": true, "dryRun": dry});
                    if let Some(letter) = named {
                        body["imageTag"] = digest(letter).into();
                    }
                    ("PUT /services", body.to_string())
                };
                let expected = match role {
                    Some(Role::Viewer) => Expected::Forbidden(Role::Operator),
                    role => expected(role, Some(needed)),
                };
                let what = format!("start with {named:?}, dry: {dry}");
                campaign.run((way, role), line, &body, expected, &what).await;
            }
        }
    }
}

/// Each word, asked in each way by each who may come that way.
fn asking(words: &'static [&'static str]) -> impl Iterator<Item = (&'static str, Way, Option<Role>)> {
    let all = words.iter().flat_map(|word| {
        WAYS.into_iter().flat_map(move |way| ASKING.into_iter().map(move |role| (*word, way, role)))
    });
    all.filter(|(_, way, role)| *way != Way::Local || role.is_some())
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "a campaign says what it did")]
async fn campaign() {
    let mut campaign = Campaign::new().await;
    every_route(&mut campaign).await;
    every_operation(&mut campaign).await;
    every_rollout(&mut campaign).await;
    every_start(&mut campaign).await;
    let Campaign { runs, refused, failures, .. } = campaign;
    println!(
        "campaign roles: {runs} runs, {} failed, {refused} refused, {} routes, {} kinds in {} statuses, {} phases of rollouts",
        failures.len(),
        ROUTES.len(),
        OperationKind::ALL.len(),
        STATUSES.len(),
        RolloutStatus::ALL.len()
    );
    assert_eq!(failures, Vec::<String>::new());
    assert!(runs > 2_500 && refused > 1_000, "{runs} runs, {refused} refused");
}

/// A route without a line in the table answers nobody; this tells which one it is.
#[tokio::test]
async fn every_route_is_in_the_table_with_its_role() {
    let document = crate::support::served().await;
    let mut documented = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("methods") {
            let method = method.to_uppercase();
            let route = ROUTES.iter().find(|route| route.method == method && route.path == path);
            let route = route.unwrap_or_else(|| panic!("{method} {path} is not in the table of routes"));
            let role = operation.get("x-required-role").and_then(serde_json::Value::as_str);
            assert_eq!(role, route.role().map(Role::as_str), "{method} {path}");
            assert_eq!(route.role(), of_rest(&method, path), "{method} {path}");
            documented.push((route.method, route.path));
        }
    }
    // The other way round, and the console's, which no document has.
    let console = include_str!("../../src/console/mod.rs");
    for route in ROUTES {
        let page = route.path == "/" || route.path.starts_with("/console");
        let known = documented.contains(&(route.method, route.path));
        assert!(page || known, "{} {} is in the table, and is no route", route.method, route.path);
    }
    let mut pages = 0;
    for line in console.split("\"").filter(|text| text.starts_with("/console")) {
        if line != "/console/" {
            let first = line.split("{action}").next().unwrap_or(line);
            let listed = ROUTES
                .iter()
                .any(|route| route.path == line || (first != line && route.path.starts_with(first)));
            assert!(listed, "{line} is not in the table of routes");
            pages += 1;
        }
    }
    assert!(pages > 25, "{pages} pages");
}
