//! The role campaign: every role requests every route, and, where the required role depends on stored state, every
//! kind of stored object in every status. The expected results are stated here separately, according to the
//! documentation, and not derived from the code under test.

use std::num::NonZeroU32;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use cdm_core::domain::operation::{Deploy, Hooks, Move};
use cdm_core::domain::rollout::{MemberOutcome, RolloutMember, RolloutPage, RolloutSpec};
use cdm_core::domain::token::Role;
use cdm_core::domain::{
    Actor, Color, Digest, Fleet, Operation, OperationId, OperationInput, OperationKind, OperationState,
    Phase, Rollout, RolloutKind, RolloutStatus, Site, Status, Subject, TerminalStatus, Uid,
};
use cdm_core::ports::{CallContext, Mutation, Outcome, WriteBatch};
use cdm_http::{HttpSettings, ROUTES};
use cdm_testkit::fixtures;
use http_body_util::BodyExt;
use tower::ServiceExt;

use crate::console::{Browser, sign_in};
use crate::support::{TestEnv, digest, new_site};

/// The channel of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channel {
    /// Over HTTP, with a token.
    Rest,
    /// Through a page or form of the console, with a session.
    Console,
    /// In the same process, as `cdm --local` does.
    Local,
}

const CHANNELS: [Channel; 3] = [Channel::Rest, Channel::Console, Channel::Local];
/// No role, and each role.
const CALLERS: [Option<Role>; 4] = [None, Some(Role::Viewer), Some(Role::Operator), Some(Role::Admin)];

const STATUSES: [Status; 7] = [
    Status::Queued,
    Status::Running,
    Status::Waiting,
    Status::Parked,
    Status::Ended(TerminalStatus::Succeeded),
    Status::Ended(TerminalStatus::Failed),
    Status::Ended(TerminalStatus::Cancelled),
];

/// The response to a request.
struct Response {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

/// The expected result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// Any response that the route returns to authorized callers.
    Allowed,
    /// 403, with the required role in the message.
    Forbidden(Role),
    /// 401, or in the console a redirect to the sign-in page.
    Unknown,
}

/// The rule for all routes: a role has all permissions of the role below it.
fn expected(has: Option<Role>, needed: Option<Role>) -> Expected {
    match (has, needed) {
        (_, None) => Expected::Allowed,
        (None, Some(_)) => Expected::Unknown,
        (Some(has), Some(needed)) if has >= needed => Expected::Allowed,
        (Some(_), Some(needed)) => Expected::Forbidden(needed),
    }
}

/// Returns the minimum role of a route of the REST API: every token may read, except that tokens, users and webhooks
/// are for administrators; deletions, services and freezes require an administrator; everything else requires an
/// operator.
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

/// Returns the minimum role of a page or a form, which is the role of the corresponding route.
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

/// Returns the minimum role to start, retry or cancel an operation of a kind.
const fn of_kind(kind: OperationKind) -> Role {
    match kind {
        OperationKind::Create
        | OperationKind::Provision
        | OperationKind::Upgrade
        | OperationKind::Promote => Role::Operator,
        OperationKind::Terminate | OperationKind::Deploy | OperationKind::Select => Role::Admin,
    }
}

/// The environment, the callers, and the results of the campaign.
struct Campaign {
    env: TestEnv,
    local: Vec<(Role, Router)>,
    browsers: Vec<(Role, Browser)>,
    number: u64,
    runs: u32,
    refused: u32,
    failures: Vec<String>,
    /// The last response.
    last: String,
}

impl Campaign {
    async fn new() -> Self {
        let most = NonZeroU32::MAX;
        let settings = HttpSettings { rate: most, burst: most, failures: most, ..HttpSettings::default() };
        let env = TestEnv::idle(settings).await;
        let caller = |role: Role| Actor::parse(&format!("local-{role}")).expect("a name");
        let local = Role::ALL
            .map(|role| (role, cdm_http::local_router(env.app.clone(), caller(role), role)))
            .into_iter()
            .collect();
        let mut campaign = Self {
            env,
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
            self.browsers.push((role, sign_in(&self.env, &name, role).await));
        }
    }

    /// Returns an unused number.
    fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    async fn ask(&self, channel: Channel, role: Option<Role>, request_line: &str, body: &str) -> Response {
        let (method, path) = request_line.split_once(' ').expect("a method and a path");
        let mut request = Request::builder().method(method).uri(path);
        let mut router = &self.env.router;
        let mut sent = body.to_owned();
        match channel {
            Channel::Rest => {
                if let Some(role) = role {
                    request = request.header("authorization", format!("Bearer {}", self.env.token(role)));
                }
            }
            Channel::Local => {
                let role = role.expect("a caller of this process has a role");
                router = &self.local.iter().find(|(of, _)| *of == role).expect("a router").1;
            }
            Channel::Console => {
                request = request.header("host", "127.0.0.1:8080").header("sec-fetch-site", "same-origin");
                if let Some(role) = role {
                    let browser = &self.browsers.iter().find(|(of, _)| *of == role).expect("a browser").1;
                    request = request.header("cookie", &browser.cookie);
                    sent = format!("csrf={}&{body}", browser.csrf);
                }
            }
        }
        if channel == Channel::Console && method == "POST" {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        } else if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let sent = if method == "GET" { String::new() } else { sent };
        let request = request.body(Body::from(sent)).expect("a request");
        let response = router.clone().oneshot(request).await.expect("a response");
        let (parts, body) = response.into_parts();
        // A stream does not end.
        let text = if parts.status == StatusCode::OK {
            String::new()
        } else {
            String::from_utf8_lossy(&body.collect().await.expect("a body").to_bytes()).into_owned()
        };
        Response { status: parts.status, headers: parts.headers, text }
    }

    /// Sends a request and checks the response; returns whether the request was allowed.
    async fn run(
        &mut self,
        (channel, role): (Channel, Option<Role>),
        request_line: &str,
        body: &str,
        expected: Expected,
        what: &str,
    ) -> bool {
        let response = self.ask(channel, role, request_line, body).await;
        self.runs += 1;
        self.last = format!("{} {}", response.status, response.text.chars().take(2_000).collect::<String>());
        let status = response.status.as_u16();
        let to_sign_in = status == 303
            && response
                .headers
                .get("location")
                .is_some_and(|to| to.as_bytes().starts_with(b"/console/sign-in"));
        let got = match status {
            401 => Expected::Unknown,
            // Restarting a sign-in, and signing out, redirect there as well.
            303 if to_sign_in
                && !request_line.contains("/console/sign-in")
                && (role.is_none() || !request_line.ends_with("/sign-out")) =>
            {
                Expected::Unknown
            }
            403 => {
                let named =
                    Role::ALL.into_iter().find(|role| response.text.contains(&format!("the role `{role}`")));
                Expected::Forbidden(named.unwrap_or(Role::Viewer))
            }
            _ => Expected::Allowed,
        };
        self.refused += u32::from(got != Expected::Allowed);
        // Hashing a password takes real time while the simulated clock advances, so its request may exceed its
        // timeout.
        let broken = status >= 500
            && !(status == 503 && request_line.contains("password") || request_line.contains("sign-in"));
        if got != expected || broken {
            self.failures.push(format!(
                "{what} {request_line} by {channel:?} as {}: {status} {got:?}, not {expected:?}: {}",
                role.map_or("no role", Role::as_str),
                response.text.chars().take(200).collect::<String>()
            ));
        }
        got == Expected::Allowed
    }

    async fn write(&self, writes: Vec<Mutation>) {
        let call = CallContext {
            deadline: self.env.ports.clock.monotonic().after(std::time::Duration::from_secs(5)),
            write: self.env.ports.entropy.write(),
            fence: cdm_core::domain::Fence::default(),
        };
        let written = self.env.ports.store.write(&call, &WriteBatch::of(writes)).await;
        assert!(matches!(written, Outcome::Applied(())), "the state is stored: {written:?}");
    }

    /// Removes the operations of the services and of the fleet.
    async fn clear_operations(&self) {
        let store = &self.env.ports.store;
        let mut writes = Vec::new();
        for color in Color::ALL {
            let mut service = store.service(color).await.expect("a response of the store");
            if service.operation.take().is_some() {
                writes.push(Mutation::Service(Box::new(service)));
            }
        }
        let fleet = store.fleet().await.expect("a response of the store");
        if fleet.operation.is_some() || fleet.rollout.is_some() {
            writes.push(Mutation::Fleet(Box::new(Fleet { operation: None, rollout: None, ..fleet })));
        }
        if !writes.is_empty() {
            self.write(writes).await;
        }
    }

    /// Returns the state that a rejected request must not change, as text.
    async fn state(&self, site: Option<&Site>) -> String {
        let store = &self.env.ports.store;
        let site = match site {
            Some(site) => store.site(&site.id).await.expect("a response of the store"),
            None => None,
        };
        let (blue, green) = (store.service(Color::Blue).await, store.service(Color::Green).await);
        format!("{site:?} {blue:?} {green:?} {:?}", store.fleet().await)
    }

    /// Stores an operation of that kind in that status.
    async fn operation(&mut self, kind: OperationKind, status: Status) -> (OperationId, Option<Site>) {
        self.clear_operations().await;
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
        let current = OperationState { status, ..fixtures::operation(number, input) };
        let site = (!matches!(kind, OperationKind::Deploy | OperationKind::Select)).then(|| {
            let phase = match kind {
                OperationKind::Create => Phase::New,
                OperationKind::Provision => Phase::Created,
                _ => Phase::Active,
            };
            Site { phase, ..fixtures::site(&format!("s{number}")) }
        });
        let subject = match (kind, &site) {
            (_, Some(site)) => Subject::Site(site.id.clone()),
            (OperationKind::Deploy, None) => Subject::Service(Color::Green),
            (_, None) => Subject::Fleet,
        };
        let store = &self.env.ports.store;
        let ended = matches!(status, Status::Ended(_));
        let mut writes = Vec::new();
        if ended {
            let operation = Operation::live(subject.clone(), current.clone());
            writes.push(Mutation::History(Box::new(Operation {
                finished_at: Some(fixtures::CREATED_AT),
                ..operation
            })));
        }
        let current = Some(current).filter(|_| !ended);
        match &subject {
            Subject::Site(_) => {
                let site = site.clone().expect("a site");
                writes.push(Mutation::CreateSite(Box::new(Site { operation: current, ..site })));
            }
            Subject::Service(color) if current.is_some() => {
                let mut service = store.service(*color).await.expect("a response of the store");
                service.operation = current;
                writes.push(Mutation::Service(Box::new(service)));
            }
            Subject::Fleet if current.is_some() => {
                let fleet = store.fleet().await.expect("a response of the store");
                writes.push(Mutation::Fleet(Box::new(Fleet { operation: current, ..fleet })));
            }
            Subject::Service(_) | Subject::Fleet => {}
        }
        self.write(writes).await;
        (OperationId::on(number, subject), site)
    }

    /// Stores a rollout to blue in that status, with that digest and a failed site.
    async fn rollout(&mut self, status: RolloutStatus, digest: Option<Digest>) -> u64 {
        self.clear_operations().await;
        let (number, site) = (self.next(), fixtures::site(&format!("s{}", self.number)));
        self.number += 10;
        let rollout = fixtures::rollout(number, RolloutKind::Promote, Color::Blue, 1);
        let finished_at = status.ended().then_some(fixtures::CREATED_AT);
        let spec = RolloutSpec { digest, ..rollout.spec.clone() };
        let rollout = Rollout { status, spec, finished_at, ..rollout };
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

fn image(hex_digit: char) -> Digest {
    Digest::parse(&digest(hex_digit)).expect("a digest")
}

/// Returns the path of a route with its parameters replaced.
fn filled(path: &str) -> String {
    path.replace("{digest}", &digest('a'))
        .replace("{selector}", "green")
        .replace("/operations/{id}", "/operations/op-1-fleet")
        .replace("/rollouts/{id}", "/rollouts/rollout-1")
        .replace("/freezes/{id}", "/freezes/freeze-1")
        .replace("/webhooks/{id}", "/webhooks/webhook-1")
        .replace("/tokens/{id}", &format!("/tokens/{}", Uid::from_parts(1, 1)))
        .replace("/sessions/{id}", &format!("/sessions/{}", Uid::from_parts(1, 1)))
        .replace("{*rest}", "nothing/like/that")
        .replace("{name}", "unknown")
        .replace(['{', '}'], "")
}

async fn every_route(campaign: &mut Campaign) {
    campaign.env.ask("POST /sites/create?wait=0", Some(&new_site("id"))).await;
    for route in ROUTES {
        let of_page = route.path == "/" || route.path.starts_with("/console");
        let ways: &[Channel] = if of_page { &[Channel::Console] } else { &[Channel::Rest, Channel::Local] };
        let needed = if of_page { of_console(route.path) } else { of_rest(route.method, route.path) };
        for channel in ways {
            for role in CALLERS {
                if *channel == Channel::Local && role.is_none() {
                    continue;
                }
                let request_line = format!("{} {}", route.method, filled(route.path));
                let expected = expected(role, needed);
                campaign.run((*channel, role), &request_line, "", expected, "route").await;
                campaign.clear_operations().await;
                // Some of these routes end the session.
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
            for (action, channel, role) in all_requests(&["retry", "cancel"]) {
                let (id, site) = campaign.operation(kind, status).await;
                let what = format!("{kind} {status}");
                let before = campaign.state(site.as_ref()).await;
                let path = if channel == Channel::Console { "/console/operations" } else { "/operations" };
                let request_line = format!("POST {path}/{id}/{action}");
                let expected = match role {
                    // The role of the route is checked first.
                    Some(Role::Viewer) => Expected::Forbidden(Role::Operator),
                    role => expected(role, Some(of_kind(kind))),
                };
                let allowed = campaign.run((channel, role), &request_line, "", expected, &what).await;
                if !allowed && campaign.state(site.as_ref()).await != before {
                    campaign.failures.push(format!("{what} {request_line}: rejected, but the state changed"));
                }
            }
        }
    }
}

async fn every_rollout(campaign: &mut Campaign) {
    // Blue runs `a`.
    for digest in [None, Some(image('a')), Some(image('b'))] {
        for status in RolloutStatus::ALL {
            for (action, channel, role) in all_requests(&["pause", "resume", "abort", "retry"]) {
                let number = campaign.rollout(status, digest).await;
                let runs = digest != Some(image('b'));
                let what = format!(
                    "{} rollout, whose digest {}",
                    status.as_str(),
                    if runs { "runs" } else { "does not run" }
                );
                let path = if channel == Channel::Console { "/console/rollouts" } else { "/rollouts" };
                let request_line = format!("POST {path}/rollout-{number}/{action}");
                let needed = if action == "retry" && !runs { Role::Admin } else { Role::Operator };
                let expected = match role {
                    Some(Role::Viewer) => Expected::Forbidden(Role::Operator),
                    role => expected(role, Some(needed)),
                };
                let before = campaign.state(None).await;
                let allowed = campaign.run((channel, role), &request_line, "", expected, &what).await;
                let store = &campaign.env.ports.store;
                let deploys =
                    store.service(Color::Blue).await.expect("a response of the store").operation.is_some();
                let may_deploy = role == Some(Role::Admin) && action == "retry" && !runs && status.ended();
                if deploys != may_deploy {
                    campaign.failures.push(format!(
                        "{what} {request_line} as {role:?}: deploys: {deploys}: {}",
                        campaign.last
                    ));
                }
                if !allowed && campaign.state(None).await != before {
                    campaign.failures.push(format!("{what} {request_line}: rejected, but the state changed"));
                }
            }
        }
    }
}

/// A rollout that names an image may deploy it in every case; a rollout without an image deploys nothing.
async fn every_start(campaign: &mut Campaign) {
    for (named, needed) in [(None, Role::Operator), (Some('a'), Role::Admin), (Some('b'), Role::Admin)] {
        for dry in [false, true] {
            for (_, channel, role) in all_requests(&["start"]) {
                campaign.clear_operations().await;
                let (request_line, body) = if channel == Channel::Console {
                    let image =
                        named.map(|hex_digit| format!("&imageTag={}", digest(hex_digit))).unwrap_or_default();
                    let planned = if dry {
                        ""
                    } else {
                        "&planHash=0000000000000000000000000000000000000000000000000000000000000000"
                    };
                    ("POST /console/rollouts/start", format!("promote=true&scope=inactive{image}{planned}"))
                } else {
                    let mut body = serde_json::json!({"promote": true, "dryRun": dry});
                    if let Some(hex_digit) = named {
                        body["imageTag"] = digest(hex_digit).into();
                    }
                    ("PUT /services", body.to_string())
                };
                let expected = match role {
                    Some(Role::Viewer) => Expected::Forbidden(Role::Operator),
                    role => expected(role, Some(needed)),
                };
                let what = format!("start with {named:?}, dry: {dry}");
                campaign.run((channel, role), request_line, &body, expected, &what).await;
            }
        }
    }
}

/// Returns each action, through each channel, by each role that can use the channel.
fn all_requests(
    actions: &'static [&'static str],
) -> impl Iterator<Item = (&'static str, Channel, Option<Role>)> {
    let all = actions.iter().flat_map(|action| {
        CHANNELS
            .into_iter()
            .flat_map(move |channel| CALLERS.into_iter().map(move |role| (*action, channel, role)))
    });
    all.filter(|(_, channel, role)| *channel != Channel::Local || role.is_some())
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "a campaign prints its result")]
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

/// A route that is missing from the table rejects every caller; this test names it.
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
    // The reverse, and the routes of the console, which are in no document.
    let console = include_str!("../../src/console/mod.rs");
    for route in ROUTES {
        let page = route.path == "/" || route.path.starts_with("/console");
        let known = documented.contains(&(route.method, route.path));
        assert!(page || known, "{} {} is in the table, and is not a route", route.method, route.path);
    }
    let mut pages = 0;
    for request_line in console.split("\"").filter(|text| text.starts_with("/console")) {
        if request_line != "/console/" {
            let first = request_line.split("{action}").next().unwrap_or(request_line);
            let listed = ROUTES.iter().any(|route| {
                route.path == request_line || (first != request_line && route.path.starts_with(first))
            });
            assert!(listed, "{request_line} is not in the table of routes");
            pages += 1;
        }
    }
    assert!(pages > 25, "{pages} pages");
}
