//! Jobs run `wp` with exactly the intended arguments, and their credentials are not visible elsewhere.

use std::sync::Arc;
use std::time::Duration;

use cdm_core::domain::{Color, DatabaseName, Digest, Uid};
use cdm_core::ports::{ClusterOps, ErrorKind, ImageWant, Job, JobFailure, JobKind, JobState, Outcome};
use cdm_testkit::installation::Installation;
use cdm_testkit::kubernetes::{Container, Containers, Exit, ImageBehavior, Site, WordPress};

use crate::env::{CANARY, IMAGES, NAMESPACE, TestEnv, ingress};

const DONE: JobState = JobState::Succeeded { failed: Vec::new() };

fn database(uid: Uid) -> String {
    DatabaseName::of(uid).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_titles_install_a_site_of_that_title() {
    let env = TestEnv::start(ingress()).await;
    for title in [
        "A Title",
        "--exec=system('id');",
        "--url=https://other.example.com",
        "@alias",
        "it's \"quoted\" `here` $(id) ${HOME} $$ $(CDM_TABLE)",
        "x; wp eval 'exit;' && true | cat > /tmp/x #",
        "-h",
    ] {
        let uid = env.cx().uid();
        let job = env.finish(&env.install(uid, title)).await;
        assert_eq!(job.state, DONE, "{title}: {}", job.log);
        assert!(job.log.contains("WordPress installed successfully"), "{}", job.log);
        let site = env.wordpress.site(&database(uid)).expect("a site");
        assert_eq!((site.title.as_str(), site.installations), (title, 1));
        assert_eq!(site.home, format!("https://{uid}.example.com"));
    }
    env.assert_allowed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_is_installed_is_not_installed_again() {
    let env = TestEnv::start(ingress()).await;
    let uid = env.cx().uid();
    for _ in 0..2 {
        let job = env.finish(&env.install(uid, "A Title")).await;
        assert_eq!(job.state, DONE, "{}", job.log);
    }
    assert_eq!(env.wordpress.site(&database(uid)).map(|site| site.installations), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_theme_is_activated_or_missing() {
    let env = TestEnv::start(ingress()).await;
    let uid = env.cx().uid();
    assert_eq!(env.finish(&env.install(uid, "A Title")).await.state, DONE);
    assert_eq!(env.finish(&env.theme(uid, "shop")).await.state, DONE);
    assert_eq!(env.wordpress.site(&database(uid)).map(|site| site.theme), Some("shop".to_owned()));
    let job = env.finish(&env.theme(uid, "none")).await;
    let JobState::Failed { message, cause: JobFailure::ThemeMissing } = job.state else { panic!("{job:?}") };
    assert!(message.contains("could not be found"), "{message}");
    assert!(job.log.contains("could not be found"), "{}", job.log);
    env.assert_allowed();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_installation_is_recognized_at_every_point() {
    let env = TestEnv::start(ingress()).await;
    for cut in 0..=Installation::WRITES {
        let uid = env.cx().uid();
        env.wordpress.interrupt_installs([cut]);
        let killed = env.finish(&env.install(uid, "A Title")).await;
        assert!(matches!(killed.state, JobState::Failed { cause: JobFailure::Other, .. }), "{killed:?}");
        let next = env.finish(&env.install(uid, "A Title")).await;
        let complete = |site: Option<Site>| site.is_some_and(|site| site.contents.is_complete());
        if next.state == DONE {
            assert!(complete(env.wordpress.site(&database(uid))), "after {cut}: {}", next.log);
            continue;
        }
        let JobState::Failed { cause: JobFailure::InstallIncomplete, .. } = next.state else {
            panic!("after {cut}: {next:?}")
        };
        env.wordpress.renew(&database(uid));
        assert_eq!(env.finish(&env.install(uid, "A Title")).await.state, DONE, "after {cut}");
        assert!(complete(env.wordpress.site(&database(uid))), "after {cut}");
    }
    assert_eq!(env.wordpress.requests(), 0, "an installation sends no request to its own hostname");
    env.assert_allowed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ended_by_site_code_is_not_a_success() {
    let env = TestEnv::start(ingress()).await;
    let uid = env.cx().uid();
    assert_eq!(env.finish(&env.install(uid, "A Title")).await.state, DONE);
    env.wordpress.quit_early();
    for spec in [env.install(uid, "A Title"), env.theme(uid, "shop")] {
        let job = env.finish(&spec).await;
        assert!(matches!(job.state, JobState::Failed { cause: JobFailure::EndedEarly, .. }), "{job:?}");
    }
    let job = env.finish(&env.job(JobKind::FlushCaches { uids: vec![uid, env.cx().uid()] })).await;
    let JobState::Succeeded { failed } = &job.state else { panic!("{job:?}") };
    assert_eq!(failed.len(), 2, "{job:?}");
    assert_eq!(JobFailure::of_output(&failed[0].1), JobFailure::EndedEarly, "{job:?}");
    assert_eq!(env.wordpress.site(&database(uid)).map(|site| site.flushes), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn wordpress_outside_the_working_directory_is_found_by_its_path() {
    for (path, found) in [(None, false), (Some("/srv/wordpress".to_owned()), true)] {
        let env = TestEnv::with_settings(|settings| settings.wp_path.clone_from(&path)).await;
        env.wordpress.put_at("/srv/wordpress");
        let job = env.finish(&env.install(env.cx().uid(), "A Title")).await;
        match job.state {
            JobState::Succeeded { .. } => assert!(found, "{path:?}"),
            JobState::Failed { cause: JobFailure::WordPressNotFound, .. } => assert!(!found, "{path:?}"),
            JobState::Failed { .. } | JobState::Running => panic!("{job:?}"),
        }
    }
}

/// Containers in which code of the site ends every command before it has any effect.
#[derive(Debug)]
struct ExitsEarly;

impl Containers for ExitsEarly {
    fn run(&self, _: &Container) -> Exit {
        Exit::success("")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_without_an_effect_is_a_failure() {
    let env = TestEnv::with_containers(Arc::new(ExitsEarly)).await;
    let uid = env.cx().uid();
    for spec in [env.install(uid, "A Title"), env.theme(uid, "shop")] {
        let job = env.finish(&spec).await;
        assert!(matches!(job.state, JobState::Failed { cause: JobFailure::Other, .. }), "{job:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_site_of_a_batch_does_not_block_the_others() {
    let env = TestEnv::start(ingress()).await;
    let mut uids = Vec::new();
    for _ in 0..20 {
        let uid = env.cx().uid();
        assert_eq!(env.finish(&env.install(uid, "A Title")).await.state, DONE);
        uids.push(uid);
    }
    // One site that has an anchor and no database, and one that has nothing.
    let empty = env.cx().uid();
    let spec = env.route_spec(empty, &["empty.example.com"]);
    assert_eq!(env.cluster.put_route(&env.cx().call(), &spec).await, Outcome::Applied(()));
    uids.insert(7, empty);
    let unknown = env.cx().uid();
    uids.push(unknown);
    let job = env.finish(&env.job(JobKind::FlushCaches { uids: uids.clone() })).await;
    let JobState::Succeeded { failed } = &job.state else { panic!("{job:?}") };
    let failed: Vec<Uid> = failed.iter().map(|(uid, _)| *uid).collect();
    assert_eq!(failed, [empty, unknown]);
    assert!(job.log.contains("not installed"), "{}", job.log);
    // The other sites of the same pod are done; the last site also fills an unused slot.
    for uid in uids.iter().filter(|uid| !failed.contains(uid)) {
        let flushes = env.wordpress.site(&database(*uid)).map_or(0, |site| site.flushes);
        assert!((1..=2).contains(&flushes), "{flushes}");
    }
    let pods = env.api.objects("pods", NAMESPACE).into_iter();
    let of_batch = pods.filter(|pod| pod["metadata"]["labels"]["cdm/job"] == "flush-caches");
    assert_eq!(of_batch.count(), 2, "21 sites, twenty at most in a pod");
    env.assert_allowed();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caches_of_a_single_site_are_flushed() {
    let env = TestEnv::start(ingress()).await;
    let uid = env.cx().uid();
    assert_eq!(env.finish(&env.install(uid, "A Title")).await.state, DONE);
    assert_eq!(env.finish(&env.job(JobKind::FlushCaches { uids: vec![uid] })).await.state, DONE);
    assert_eq!(env.wordpress.site(&database(uid)).map(|site| site.flushes), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_pulled_fails_a_job_at_once() {
    let env = TestEnv::start(ingress()).await;
    let image = |digest: Digest| ImageWant::Digest(digest);
    let fence = env.cluster.service(Color::Blue).await.expect("a service").fence;
    env.api.set_image_behavior(&IMAGES.first.to_string(), ImageBehavior::Missing);
    let set = env.cluster.set_image(&env.cx().call(), Color::Blue, fence, &image(IMAGES.first)).await;
    assert_eq!(set, Outcome::Applied(()));
    let before = env.api.now();
    let spec = env.install(env.cx().uid(), "A Title");
    let job = env.finish(&spec).await;
    let JobState::Failed { message, cause: JobFailure::Other } = &job.state else { panic!("{job:?}") };
    assert!(message.contains("Pull"), "{message}");
    let took = env.api.now().since(before);
    assert!(took < Duration::from_secs(60), "it took {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_only_in_the_secret_of_the_job() {
    let env = TestEnv::start(ingress()).await;
    let uid = env.cx().uid();
    let (install, theme) = (env.install(uid, "A Title"), env.theme(uid, "shop"));
    let mut logs = env.finish(&install).await.log;
    logs += &env.finish(&theme).await.log;
    let flush = env.job(JobKind::FlushCaches { uids: vec![uid, env.cx().uid()] });
    logs += &env.finish(&flush).await.log;
    for resource in ["jobs", "pods", "configmaps", "ingresses", "deployments"] {
        for object in env.api.objects(resource, NAMESPACE) {
            assert!(!object.to_string().contains(CANARY), "{resource}");
        }
    }
    assert!(!logs.contains(CANARY), "{logs}");
    assert!(!format!("{:?}", env.cluster).contains("token"));
    assert_eq!(env.api.objects("secrets", NAMESPACE).len(), 0, "the Secrets were deleted with their jobs");
    let addresses = env.api.object("configmaps", NAMESPACE, flush.name.as_str()).expect("the addresses");
    assert_eq!(addresses["metadata"]["ownerReferences"][0]["kind"], "Job");
    env.api.advance(Duration::from_secs(25 * 3600));
    assert_eq!(env.api.object("configmaps", NAMESPACE, flush.name.as_str()), None);
    assert_eq!(env.cluster.job(&install.name).await, Ok(None));
    env.assert_allowed();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pod_of_a_job_has_no_labels_and_probes_of_the_service() {
    let env = TestEnv::start(ingress()).await;
    let spec = env.install(env.cx().uid(), "A Title");
    env.finish(&spec).await;
    let pods = env.api.objects("pods", NAMESPACE);
    let of_job = |pod: &&serde_json::Value| pod["metadata"]["labels"]["app.kubernetes.io/component"] == "job";
    let pods: Vec<_> = pods.iter().filter(of_job).collect();
    assert_eq!(pods.len(), 1);
    let text = pods[0].to_string();
    for gone in ["readinessProbe", "livenessProbe", "preStop", "containerPort", "proxy:1", "\"app\":"] {
        assert!(!text.contains(gone), "{gone}");
    }
    assert!(text.contains("CDM_TABLE"), "the job has the settings of the service");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_theme_job_of_a_site_without_resources_is_not_started() {
    let env = TestEnv::start(ingress()).await;
    let spec = env.theme(env.cx().uid(), "shop");
    let Outcome::NotApplied(error) = env.cluster.run_job(&env.cx().call(), &spec).await else {
        panic!("started")
    };
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert_eq!(env.cluster.job(&spec.name).await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_takes_too_long_is_ended_by_the_cluster() {
    #[derive(Debug)]
    struct SlowContainers(WordPress);
    impl Containers for SlowContainers {
        fn run(&self, container: &Container) -> Exit {
            Exit { takes: Duration::from_secs(3600), ..self.0.run(container) }
        }
    }
    let env = TestEnv::with_containers(Arc::new(SlowContainers(WordPress::default()))).await;
    let spec = env.install(env.cx().uid(), "A Title");
    assert_eq!(env.cluster.run_job(&env.cx().call(), &spec).await, Outcome::Applied(()));
    env.api.advance(Duration::from_secs(500));
    let running = Job { state: JobState::Running, log: String::new() };
    assert_eq!(env.cluster.job(&spec.name).await, Ok(Some(running)));
    env.api.advance(Duration::from_secs(200));
    let job = env.ended(&spec.name).await;
    let JobState::Failed { message, .. } = &job.state else { panic!("{job:?}") };
    assert!(message.contains("DeadlineExceeded"), "{message}");
}
