//! `kill -9` at random instants while sites are created, provisioned, promoted and terminated: whatever was accepted
//! comes to rest as it was asked, nothing is created twice, and nothing is left behind.
//!
//! `CDM_CAMPAIGNS=full` kills 200 times over 500 sites; otherwise a sample. `CDM_SEED` draws other instants.

#[path = "e2e/server.rs"]
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cdm_core::domain::{SecretKind, SecretName, Uid};
use cdm_core::ports::{SecretStore, SiteDatabases, StoredSecret};
use cdm_testkit::ids::Rng;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use server::{ADMIN, Backends, Server, client, directory, new_site};
use tokio::sync::watch;

/// How many clients ask at once.
const CLIENTS: usize = 16;

/// Asks a server that is killed and started again, until it has answered.
#[derive(Clone, Debug)]
struct Patient {
    client: Client,
    url: watch::Receiver<String>,
    answered: Arc<AtomicUsize>,
}

impl Patient {
    /// The JSON of an answer. Every repetition carries the same key, so it is the same request.
    async fn ask(&mut self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let key = format!("{method} {path}");
        loop {
            let url = self.url.borrow_and_update().clone();
            let mut request = self.client.request(method.clone(), format!("{url}{path}")).bearer_auth(ADMIN);
            if method != Method::GET {
                request = request.header("idempotency-key", key.replace(' ', "-"));
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            if let Ok(answer) = request.send().await {
                let status = answer.status().as_u16();
                if let Ok(value) = answer.json().await
                    && status < 500
                {
                    self.answered.fetch_add(1, Ordering::SeqCst);
                    return (status, value);
                }
            }
            if *self.url.borrow() == url {
                // It was killed: the next one says where it is.
                let _ = tokio::time::timeout(Duration::from_millis(100), self.url.changed()).await;
            }
        }
    }

    /// Asks for long work, and answers its operation at rest.
    async fn done(&mut self, method: Method, path: &str) -> Value {
        loop {
            let (status, operation) = self.ask(method.clone(), &format!("{path}?wait=20s"), None).await;
            assert!(status == 200 || status == 202, "{method} {path}: {status} {operation}");
            if status == 200 {
                return operation;
            }
        }
    }

    /// One site's life; every fourth site is terminated in the end.
    async fn live(&mut self, number: usize) {
        let id = format!("s{number}");
        let (status, site) = self.ask(Method::POST, "/sites/create", Some(&new_site(&id))).await;
        assert!(status == 201 || status == 202, "{id}: {status} {site}");
        let provisioned = self.done(Method::POST, &format!("/sites/{id}/provision")).await;
        assert_eq!(provisioned["status"], "succeeded", "{provisioned}");
        let promoted = self.done(Method::PUT, &format!("/sites/{id}/promote")).await;
        assert_eq!(promoted["status"], "succeeded", "{promoted}");
        if number.is_multiple_of(4) {
            let terminated = self.done(Method::DELETE, &format!("/sites/{id}")).await;
            assert_eq!(terminated["status"], "succeeded", "{terminated}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(
    clippy::disallowed_methods,
    reason = "a campaign reads its size from the environment, and says how long things took"
)]
async fn a_server_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let full = std::env::var("CDM_CAMPAIGNS").is_ok_and(|value| value == "full");
    let seed = std::env::var("CDM_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(2026);
    let (sites, kills) = if full { (500, 200) } else { (48, 12) };
    let mut chance = Rng::new(seed);
    let dir = directory();
    let mut server = Server::start(dir.path());
    let (url, receiver) = watch::channel(server.url.clone());
    let answered = Arc::new(AtomicUsize::new(0));
    let patient = Patient { client: client(), url: receiver, answered: Arc::clone(&answered) };
    let (status, _) = server.ask(Method::POST, "/services", Some(&json!({"selector": "green"}))).await;
    assert_eq!(status, 200);
    let next = Arc::new(AtomicUsize::new(0));
    let clients = (0..CLIENTS).map(|_| {
        let (mut patient, next) = (patient.clone(), Arc::clone(&next));
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::SeqCst);
                if number >= sites {
                    return;
                }
                patient.live(number).await;
            }
        })
    });
    let work = futures_util::future::try_join_all(clients);
    let mut work = std::pin::pin!(work);
    // Instants are drawn in microseconds, over about the time that the work takes between two kills.
    let span = 400_000;
    let (mut killed, mut recoveries) = (0, Vec::new());
    let finished = loop {
        let until = Duration::from_micros(20_000 + chance.below(span));
        match tokio::time::timeout(until, &mut work).await {
            Ok(finished) => break finished,
            Err(_) if killed < kills => {
                server.kill();
                killed += 1;
                let from = Instant::now();
                let before = answered.load(Ordering::SeqCst);
                server = tokio::task::block_in_place(|| Server::start(dir.path()));
                url.send_replace(server.url.clone());
                while answered.load(Ordering::SeqCst) == before {
                    tokio::task::yield_now().await;
                }
                recoveries.push(from.elapsed());
            }
            Err(_) => {}
        }
    };
    finished.expect("every client came to its end");
    assert!(killed > 0, "no kill fell into the work");
    recoveries.sort_unstable();
    let middle = recoveries[recoveries.len() / 2];
    let longest = recoveries[recoveries.len() - 1];
    println!(
        "campaign kill-9: seed {seed}, {sites} sites, {killed} kills, \
         start to the first answer of waiting work: median {middle:?}, longest {longest:?}"
    );
    assert_all_as_asked(&server, sites).await;
    assert_nothing_left_behind(&mut server, dir.path(), sites).await;
}

/// Every site is as its client asked, by its record, by its page, and each operation was made once.
async fn assert_all_as_asked(server: &Server, sites: usize) {
    for number in 0..sites {
        let id = format!("s{number}");
        let operations = server.get(&format!("/operations?site={id}&limit=100")).await;
        let mut kinds: Vec<_> = operations["items"].as_array().expect("a list").iter().collect();
        kinds.retain(|operation| operation["status"] != "succeeded");
        assert!(kinds.is_empty(), "{id}: {kinds:?}");
        let wanted = if number.is_multiple_of(4) { 4 } else { 3 };
        assert_eq!(operations["items"].as_array().map(Vec::len), Some(wanted), "{id}: {operations}");
        let page = server.page(&format!("{id}.example.com")).await;
        if number.is_multiple_of(4) {
            assert_eq!(page.status(), 404, "{id}");
            continue;
        }
        assert_eq!(page.status(), 200, "{id}");
        assert_eq!(page.headers()["x-cdm-service"], "green", "{id}");
        let site = server.get(&format!("/sites/{id}")).await;
        let state = (&site["state"], &site["service"], &site["routedService"]);
        assert_eq!(state, (&"active".into(), &"green".into(), &"green".into()), "{id}");
    }
}

/// Each backend holds what the live sites own, once, and nothing else.
async fn assert_nothing_left_behind(server: &mut Server, dir: &std::path::Path, sites: usize) {
    let mut live = Vec::new();
    for number in (0..sites).filter(|number| !number.is_multiple_of(4)) {
        let site = server.get(&format!("/sites/s{number}")).await;
        live.push(Uid::parse(site["uid"].as_str().expect("a uid")).expect("a uid"));
    }
    assert_eq!(tokio::task::block_in_place(|| server.terminate()).code(), Some(0));
    let data = dir.join("data");
    let entries = |below: &str| {
        let entries = std::fs::read_dir(data.join(below)).expect("a directory").flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    live.sort_unstable();
    let named = |name: &dyn Fn(&Uid) -> String| live.iter().map(name).collect::<Vec<_>>();
    assert_eq!(entries("databases"), named(&|uid| format!("site_{uid}.sqlite")));
    assert_eq!(entries("objects/sites"), named(&|uid| uid.to_string()));
    let backends = Backends::open(&data).await;
    for uid in live {
        let seen = backends.databases.seen(uid).await.expect("an answer");
        assert!(seen.database && seen.user, "{uid}");
        for kind in SecretKind::ALL {
            let secret = backends.secrets.read(&SecretName { uid, kind }).await.expect("an answer");
            assert!(matches!(secret, Some(StoredSecret::Value(_))), "{uid}");
        }
    }
}
