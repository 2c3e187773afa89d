//! An incident on the command line, in the API and in the console: during a pause of a gated rollout, another image
//! is deployed, which does not work.

use cdm_core::domain::Digest;
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use serde_json::Value;

use crate::test_env::{Running, Stream, TestEnv, image};

const SITES: [&str; 4] = ["books", "garden", "music", "tea"];
const PASSWORD: &str = "lantern-orbit-quilt";

/// A user who is signed in to the console.
struct Browser<'a> {
    env: &'a TestEnv,
    client: Client,
    cookie: String,
}

impl<'a> Browser<'a> {
    fn sign_in(env: &'a TestEnv) -> Self {
        std::fs::write(env.home().join("password"), PASSWORD).expect("a file");
        let file = env.home().join("password").display().to_string();
        env.run(&["user", "create", "ada", "--role", "admin", "--password-file", &file]).ends(0);
        // The client needs a TLS provider, although no request here uses TLS.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = Client::builder().redirect(Policy::none()).build().expect("a client");
        let mut browser = Self { env, client, cookie: String::new() };
        let response = browser.send("/console/sign-in", &format!("name=ada&password={PASSWORD}"));
        assert_eq!(response.status(), 303);
        let cookie = response.headers()[SET_COOKIE].to_str().expect("text").to_owned();
        browser.cookie = cookie.split(';').next().expect("a cookie").to_owned();
        browser
    }

    fn send(&self, path: &str, form: &str) -> Response {
        let request = self.client.post(format!("{}{path}", self.env.server));
        let request = request.header(COOKIE, &self.cookie).header("sec-fetch-site", "same-origin");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        self.env.block_on(request.body(form.to_owned()).send()).expect("a response")
    }

    fn page(&self, path: &str) -> String {
        let request = self.client.get(format!("{}{path}", self.env.server)).header(COOKIE, &self.cookie);
        let response = self.env.block_on(request.send()).expect("a response");
        assert_eq!(response.status(), 200, "{path}");
        self.env.block_on(response.text()).expect("text")
    }

    /// Submits a form of the page `from`.
    fn submit(&self, from: &str, action: &str, fields: &str) -> Response {
        let page = self.page(from);
        self.send(action, &format!("csrf={}&key={}&{fields}", hidden(&page, "csrf"), hidden(&page, "key")))
    }

    fn text(&self, response: Response) -> String {
        self.env.block_on(response.text()).expect("text")
    }
}

/// Returns the value of a hidden field; empty if the page has no such field.
fn hidden(page: &str, name: &str) -> String {
    let field = page.split(&format!("name=\"{name}\" value=\"")).nth(1);
    field.and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned()
}

/// Sends a request directly to the API.
fn api(env: &TestEnv, path: &str, body: &Value) -> (u16, Value) {
    let request = Client::new().post(format!("{}{path}", env.server)).bearer_auth(&env.token);
    let response = env.block_on(request.json(body).send()).expect("a response");
    (response.status().as_u16(), env.block_on(response.json()).expect("JSON"))
}

fn digest(letter: char) -> String {
    Digest::parse(&image(letter)).expect("a digest").to_string()
}

#[test]
fn another_image_is_deployed_during_a_gated_rollout() {
    let env = TestEnv::new();
    for site in SITES {
        env.site(site);
    }
    let (good, failing) = (digest('a'), digest('b'));
    let data = env.data().display().to_string();
    env.run(&["local", "image", &failing, "--failing", "--data-dir", &data]).ends(0);
    env.run(&["services", "select", "green"]).ends(0);
    env.run(&["services", "deploy", &good]).ends(0);
    let browser = Browser::sign_in(&env);

    // The first site has moved, and the rollout bakes, when it is paused.
    let start = ["services", "rollout", "--promote", "--scope", "inactive", "--waves", "1,100%"];
    let more = ["--gate-path", "/", "--auto-rollback", "--bake", "10s"];
    let mut started = Running::start(&mut env.command(&[&start[..], &more].concat()), Stream::Err);
    started.until("baking");
    let rollout =
        env.json(&["rollout", "list", "--limit", "1"])["items"][0]["id"].as_str().expect("an id").to_owned();
    env.run(&["rollout", "pause", &rollout]).ends(0);
    let (code, output) = started.end();
    assert_eq!(code, 7, "{output}");
    let page = browser.page("/console/services");
    assert!(page.contains("A rollout has stopped") && page.contains(&rollout), "{page}");

    // Another image, which becomes ready and responds with errors.
    env.run(&["services", "deploy", &failing]).ends(0);
    let rejected = env.run(&["rollout", "resume", &rollout]).ends(5);
    assert!(rejected.err.contains(&good) && rejected.err.contains(&failing), "{}", rejected.err);
    assert!(rejected.err.contains("--accept-digest"), "{}", rejected.err);
    let path = format!("/rollouts/{rollout}/resume");
    let (status, problem) = api(&env, &path, &serde_json::json!({}));
    assert_eq!(
        (status, &problem["code"], &problem["running"]),
        (409, &"digest_changed".into(), &failing.as_str().into())
    );
    let (status, problem) = api(&env, &path, &serde_json::json!({ "acceptDigest": good }));
    assert_eq!((status, &problem["code"]), (409, &"digest_changed".into()), "{problem}");

    // The console asks for a confirmation that names both digests.
    let (of_it, resume) =
        (format!("/console/rollouts/{rollout}"), format!("/console/rollouts/{rollout}/resume"));
    assert!(browser.page(&of_it).contains("Resume on another digest"));
    let question = browser.page(&resume);
    assert!(question.contains(&good) && question.contains(&failing), "{question}");
    let unconfirmed = browser.submit(&resume, &resume, "");
    assert_eq!(unconfirmed.status(), 409);
    assert!(browser.text(unconfirmed).contains("Resume on this digest"));
    let done = browser.submit(&resume, &resume, &format!("acceptDigest={}", failing.replace(':', "%3A")));
    assert_eq!((done.status().as_u16(), done.headers()[LOCATION].to_str().ok()), (303, Some(of_it.as_str())));

    // The health gate fails: that digest is bad, the other is not, and the sites move back.
    let watched = env.run(&["rollout", "watch", &rollout]);
    assert!(matches!(watched.code, 1 | 7), "{}", watched.err);
    let ended = env.json(&["rollout", "get", &rollout]);
    assert_eq!(
        (&ended["status"], &ended["reason"]["code"]),
        (&"failed".into(), &"budget_exceeded".into()),
        "{ended}"
    );
    assert_eq!(
        (&ended["digest"], &ended["acceptedDigest"]),
        (&good.as_str().into(), &failing.as_str().into())
    );
    let history = env.json(&["services", "history", "green"]);
    let verdict = |of: &str| {
        let releases = history["items"].as_array().expect("a list").iter();
        releases.filter(|it| it["digest"] == of).map(|it| it["verdict"].clone()).next().expect("a release")
    };
    assert_eq!(verdict(&failing), "bad", "{history}");
    assert_ne!(verdict(&good), "bad", "{history}");
    for site in SITES {
        assert_eq!(env.json(&["site", "get", site])["routedService"], "blue", "{site}");
    }
    // Each operation names the digest of its move or health check.
    let members = env.json(&["op", "list", "--rollout", &rollout]);
    let digests: Vec<_> =
        members["items"].as_array().expect("a list").iter().map(|it| it["digest"].clone()).collect();
    assert_eq!((&digests[0], &digests[1]), (&good.as_str().into(), &failing.as_str().into()), "{members}");
    let of_site = env.json(&["op", "list", "--site", SITES[0]]);
    assert_eq!(of_site["items"][0]["rollout"], rollout.as_str(), "{of_site}");
    assert!(browser.page(&format!("/console/sites/{}", SITES[0])).contains(&rollout));
    let audit = env.json(&["audit", "--site", SITES[0]]);
    let actions: Vec<_> =
        audit["items"].as_array().expect("a list").iter().map(|it| it["action"].as_str()).collect();
    assert!(actions.contains(&Some("rollout.resume")) && actions.contains(&Some("rollout.start")), "{audit}");

    // A retry requires a confirmation as well: the digest is bad.
    let again = env.run(&["rollout", "retry", &rollout]).ends(5);
    assert!(again.err.contains("is bad") && again.err.contains("--force"), "{}", again.err);
    let question = browser.submit(&of_it, &format!("/console/rollouts/{rollout}/retry"), "");
    assert_eq!(question.status(), 409);
    let question = browser.text(question);
    assert!(question.contains(&failing) && question.contains("bad digest"), "{question}");
}

#[test]
fn a_parked_site_is_marked_and_its_hint_is_a_retry() {
    let env = TestEnv::new();
    let bare = digest('c');
    let data = env.data().display().to_string();
    env.run(&["local", "image", &bare, "--no-themes", "--data-dir", &data]).ends(0);
    env.run(&["services", "deploy", &bare]).ends(0);
    env.create("shop");
    env.run(&["site", "provision", "shop"]).ends(1);
    let list = env.run(&["site", "list"]).ends(0);
    assert!(list.out.contains("provisioning (parked)"), "{}", list.out);
    let rejected = env.run(&["site", "promote", "shop"]).ends(5);
    let hint = rejected.err.lines().last().expect("a hint");
    assert!(hint.contains("op retry op-") && !hint.contains("watch"), "{hint}");

    let browser = Browser::sign_in(&env);
    let parked = "<span class=\"badge warn\">parked</span>";
    for path in ["/console/sites", "/console/sites/shop", "/console/services"] {
        assert!(browser.page(path).contains(parked), "{path}");
    }
    // A plan without sites has no start button.
    let start = "/console/rollouts/start";
    let form = browser.page(start);
    assert!(
        form.contains("value=\"1 10% 100%\"") && form.contains("name=\"gatePath\" value=\"/\""),
        "{form}"
    );
    let plan = browser.submit(start, start, "promote=true&scope=all&waves=100%25&gatePath=%2F");
    let plan = browser.text(plan);
    assert!(plan.contains("cannot start") && !plan.contains("Start this rollout"), "{plan}");
    let named = browser.submit(start, start, "promote=true&scope=sites&sites=absent&waves=100%25");
    let named = browser.text(named);
    assert!(named.contains("unknown_sites") && named.contains("absent"), "{named}");
}
